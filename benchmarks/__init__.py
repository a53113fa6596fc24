"""Speed of gradlab as ratios of one run; `python -m benchmarks` prints them beside targets."""

__all__ = ["PARTS"]

PARTS = (
    "against_limits",
    "bare_loops",
    "layers",
    "states",
    "training",
    "enumeration",
    "structures",
    "sequences",
    "peers",
    "sweeps",
)
"""The modules of this folder in the order in which they are measured."""
