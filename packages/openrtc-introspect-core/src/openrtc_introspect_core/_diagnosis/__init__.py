"""From snapshots and blocks to findings: what is wrong, and what helps."""
