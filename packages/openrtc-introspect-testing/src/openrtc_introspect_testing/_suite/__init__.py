"""The pytest plugin's work: attach to each loop, find blocks, report them."""
