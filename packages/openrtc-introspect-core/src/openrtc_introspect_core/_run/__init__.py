"""A Python program, run with introspection attached to each of its event loops: no file of it is changed."""
