"""The composition root: configuration, command line, and the one task group of a director."""
