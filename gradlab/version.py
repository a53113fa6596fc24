"""The version of gradlab, in one place."""

__all__ = ["__version__"]

__version__ = "0.5.0"
