"""What the kitchen has. No agent: it defines no entrypoint, so `openrtc dev` passes it over."""

DISHES = ("risotto", "tagliatelle", "branzino")
