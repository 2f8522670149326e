"""Packets that service nodes at a switch claim, led through these nodes and back."""

from anabranch.fabric.steering.model import Filter, FlowKey, ServiceNode
from anabranch.fabric.steering.steering import Cleared, Steering

__all__ = ["Cleared", "Filter", "FlowKey", "ServiceNode", "Steering"]
