"""Calls that hold the event loop, behind the public module `blockers`."""
