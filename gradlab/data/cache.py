"""Where gradlab keeps what it makes or loads once: one folder per user."""

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """Return $GRADLAB_CACHE, or the folder gradlab in $XDG_CACHE_HOME or in ~/.cache."""
    if own := os.environ.get("GRADLAB_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "gradlab"
