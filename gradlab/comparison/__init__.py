"""Estimators side by side: rows of a comparison, their ranking, and what it recommends.

Names load on first use: rows and rankings are read without torch, which measuring needs.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradlab.comparison.comparing import compare
    from gradlab.comparison.from_rows import recommend_from_rows
    from gradlab.comparison.ranking import best_temperature
    from gradlab.comparison.recommendation import Recommendation
    from gradlab.comparison.recommending import recommend
    from gradlab.comparison.rows import row_schema

__all__ = [
    "Recommendation",
    "best_temperature",
    "compare",
    "recommend",
    "recommend_from_rows",
    "row_schema",
]

_HOME = {
    "Recommendation": "recommendation",
    "best_temperature": "ranking",
    "compare": "comparing",
    "recommend": "recommending",
    "recommend_from_rows": "from_rows",
    "row_schema": "rows",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        import gradlab

        return gradlab._submodule(__name__, name)
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
