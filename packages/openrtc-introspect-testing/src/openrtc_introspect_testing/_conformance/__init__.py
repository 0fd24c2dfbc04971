"""Checks of servers and clients against docs/wire-protocol.md; `openrtc_introspect_testing.conformance` is public."""
