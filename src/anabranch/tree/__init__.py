"""The delivery tree: roles, nodes and the links that join them."""
