"""One worker's snapshots and its socket, beside its loops."""
