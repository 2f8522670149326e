"""How messages get from machine to machine: thin adapters around :mod:`anabranch.tree.peering`."""
