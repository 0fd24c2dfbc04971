"""The kitchen's dishes. This is no agent: without an entrypoint, `openrtc dev` skips it."""

DISHES = ("risotto", "tagliatelle", "branzino")
