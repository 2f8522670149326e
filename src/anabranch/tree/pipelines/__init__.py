"""Media pipelines that a node runs at the root's order (seed 000, section 3.2.1)."""
