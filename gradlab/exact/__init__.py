"""The exact engine: enumeration of all configurations, and exact moments of estimators."""
