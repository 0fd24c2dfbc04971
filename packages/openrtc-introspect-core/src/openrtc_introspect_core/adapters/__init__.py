"""Adapters for the runtimes that host sessions.

They import none of these runtimes.
"""
