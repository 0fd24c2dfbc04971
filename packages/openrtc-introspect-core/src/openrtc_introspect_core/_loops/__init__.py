"""Hooks into event loops: one kind of loop, one hook."""
