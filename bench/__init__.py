"""Benchmarks: each prints a table and a ratio measured in one run; none fails on a clock."""
