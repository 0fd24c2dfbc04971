"""Sessions with a script, and their reported loop time against the true one."""
