"""Blocks of the event loop: sampled, classified, recorded."""
