"""Benchmarks: speed against other libraries, and the cost model's own."""
