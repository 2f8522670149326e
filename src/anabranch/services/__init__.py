"""In-network services: modules that a signed message installs on the nodes along a path."""
