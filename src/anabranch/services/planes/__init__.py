"""Forwarding planes: how packets of the path come to a tenant's modules, and go on from there."""
