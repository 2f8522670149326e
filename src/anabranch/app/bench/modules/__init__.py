"""Benchmarks of service modules on the packet path of a plain Linux router."""

from anabranch.app.bench.modules.measure import measure, parts

__all__ = ["measure", "parts"]
