"""The accounting of loop time and of memory by session.

Ledgers and accounts, the step meters, the sampling budget, garbage collections, calls in threads, the heap.
"""
