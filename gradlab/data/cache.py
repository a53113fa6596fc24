"""Where gradlab keeps what it makes or loads once: one folder per user."""

import os
from pathlib import Path

from platformdirs import user_cache_path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """Return the folder where gradlab keeps what it makes or loads once.

    Returns:
        $GRADLAB_CACHE, or the system's cache folder of gradlab (Linux: ~/.cache/gradlab).

    Example:
        >>> isinstance(cache_folder(), Path)
        True
    """
    own = os.environ.get("GRADLAB_CACHE")
    return Path(own) if own else user_cache_path("gradlab", appauthor=False)
