"""The ground that all other folders stand on: clock, errors, log, notes, threads, the GIL."""
