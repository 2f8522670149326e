"""The service controller of a node: who may have what installed, and for how long.

Seed 003, sections 6.1.2 and 6.2.2.
"""
