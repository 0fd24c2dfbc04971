"""The `openrtc` command: a live table of the sessions inside every local worker."""
