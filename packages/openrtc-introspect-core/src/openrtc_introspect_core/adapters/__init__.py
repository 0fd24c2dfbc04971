"""Thin adapters to the runtimes that sessions live in. They import none of them."""
