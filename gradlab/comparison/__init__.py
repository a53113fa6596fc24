"""Estimators side by side: rows of a comparison, their ranking, and what it recommends."""

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
