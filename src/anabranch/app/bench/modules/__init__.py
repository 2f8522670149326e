"""Benchmarks of service modules on the packet path of a plain Linux router."""
