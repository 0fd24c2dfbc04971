"""What introspection costs and how right it is, beside the public openrtc package: `python -m benchmarks`."""
