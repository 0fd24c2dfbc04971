"""Benchmarks of cost and accuracy beside the public openrtc package, the peer.

Run them by `python -m benchmarks`.
"""
