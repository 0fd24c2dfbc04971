"""Readings of stacks, threads and the host."""
