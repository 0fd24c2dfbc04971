"""Checks against docs/wire-protocol.md, behind the public `conformance`."""
