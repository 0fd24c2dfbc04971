"""Calls that hold the event loop; `openrtc_introspect_testing.blockers` is the public face."""
