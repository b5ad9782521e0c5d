"""Benchmarks: speed against other libraries, search quality, files on devices, and what large data sets take."""
