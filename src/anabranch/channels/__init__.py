"""Channels and seats: what can be watched, and who watches what, where."""
