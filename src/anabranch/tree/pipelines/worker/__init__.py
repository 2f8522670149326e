"""The process of one pipeline: run as a directory by the system's Python, ``python3 worker``.

It imports the standard library and GStreamer's ``gi`` only, never the rest of this package.
"""
