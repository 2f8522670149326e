"""The encoder process: run as a directory by the system's Python, ``python3 encoder_worker``.

It imports the standard library and GStreamer's ``gi`` only, never the rest of this package, so
that it needs nothing installed beside the distribution's packages.
"""
