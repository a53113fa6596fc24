"""The version of gradlab, and the release in which old names go: in one place."""

__all__ = ["REMOVAL", "__version__"]

__version__ = "1.0.0"

REMOVAL = f"{int(__version__.partition('.')[0]) + 1}.0"
"""The release that removes what warns as deprecated: the next one that changes the first number."""
