"""Modules that come with a node, each a folder with its manifest: as a tenant would write them."""
