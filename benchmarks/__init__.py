"""Benchmarks: kernels against their peers, the risk step by size, and the clearing day by part."""
