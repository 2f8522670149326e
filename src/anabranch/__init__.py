"""Anabranch: a programmable edge for live media."""

from importlib.metadata import version

__version__ = version("anabranch")
