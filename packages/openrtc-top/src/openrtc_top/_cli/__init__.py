"""The words of the `openrtc` command, one module each."""
