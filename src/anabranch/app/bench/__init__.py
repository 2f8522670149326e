"""Benchmarks: commands that measure and print, beside a peer or a limit. Never timed tests."""
