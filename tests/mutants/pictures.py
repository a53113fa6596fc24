"""Mutants of what is shown: points, limits and bands of pictures, answers of reports."""

from .mutant import Mutant

__all__ = ["PICTURES"]

_ROOTS = ("tests/plots/test_curves.py",)
_SWEEP = ("tests/plots/test_plots_sweep.py",)
_DOOR = ("tests/plots/test_plot_door.py",)
_REPORT = ("tests/report/test_report.py",)

PICTURES = {
    # ---- plots --------------------------------------------------------------------------------
    "resolved at one standard error": Mutant(
        "plots/curves.py",
        "resolved = ~(square <= 2 * se)",
        "resolved = ~(square <= se)",
        "noise is drawn as a point, not as a limit",
        _ROOTS,
    ),
    "error of a root": Mutant(
        "plots/curves.py",
        "se = np.where(resolved, se / (2 * value), np.nan)",
        "se = np.where(resolved, se / value, np.nan)",
        "error bars of roots are twice too long",
        _ROOTS,
    ),
    "bands of a quarter": Mutant(
        "plots/sweep_points.py",
        '{"low": 0.15, "middle": 0.5, "high": 0.85}',
        '{"low": 0.25, "middle": 0.5, "high": 0.75}',
        "bands are not what the legend says",
        _SWEEP,
    ),
    "failed cells are not counted": Mutant(
        "plots/sweep_points.py",
        "return failed | refused | other, text and",
        "return refused | other, text and",
        "cells that failed are drawn as measured",
        _SWEEP,
    ),
    "the most favourable verdict": Mutant(
        "plots/verdicts.py",
        '["rank", "bias"], ascending=False, kind="stable"',
        '["rank", "bias"], ascending=True, kind="stable"',
        "of several verdicts the best is drawn",
        ("tests/plots/test_plots_rows.py", "tests/figures/test_verdicts.py"),
    ),
    "rows of several problems in a panel": Mutant(
        "plots/quantities.py",
        "if column in rows and rows[column].nunique(dropna=False) > 1:",
        "if False:",
        "rows of several problems are drawn as those of one",
        _DOOR,
    ),
    "temperatures all alike": Mutant(
        "plots/names.py",
        'kept = [f"{key}={value}" for key, value in given if key != "tau"]',
        'kept = [f"{key}={value}" for key, value in given]',
        "each temperature has a colour of its own",
        ("tests/plots/test_names.py",),
    ),
    # ---- reports ------------------------------------------------------------------------------
    "the report ranks by mean progress": Mutant(
        "report/best.py",
        "sure=value - 2 * np.nan_to_num(error)",
        "sure=value + 2 * np.nan_to_num(error)",
        "an estimator of noisy rows wins",
        _REPORT,
    ),
    "the report counts unmet rows": Mutant(
        "report/best.py",
        'rows = measured[~unmet & (measured["cost"] <= budget)]',
        'rows = measured[measured["cost"] <= budget]',
        "rows of too few draws win",
        _REPORT,
    ),
    "squares of the report without |g|²": Mutant(
        "report/measured.py",
        'rows[f"rel_{column}"] = rows[column] / length',
        'rows[f"rel_{column}"] = rows[column] * length',
        "bias² of a report is not relative to the gradient",
        _REPORT,
    ),
    "medians of the report are means": Mutant(
        "report/reduction.py",
        "dropna=False, sort=False).median()",
        "dropna=False, sort=False).mean()",
        "rows that are summed up are not what the page says",
        _REPORT,
    ),
    "the first run is the training": Mutant(
        "report/trained.py",
        'last = rows.sort_values("step", kind="stable").groupby(runs, sort=False).tail(1)',
        'last = rows.sort_values("step", kind="stable").groupby(runs, sort=False).head(1)',
        "the losses of a training are those of its first epoch",
        _REPORT,
    ),
    "failed verdicts are called good": Mutant(
        "report/judged.py",
        '"1.0": "yes", "0.0": "no"',
        '"1.0": "yes", "0.0": "yes"',
        "verdicts that were read from numbers do not fail",
        _REPORT,
    ),
    "points at zero are not counted": Mutant(
        "report/scales.py",
        "below = len(there) - len(positive)",
        "below = 0",
        "points without a logarithm vanish",
        _REPORT,
    ),
    "a seed is rounded": Mutant(
        "report/tables.py",
        "if value == int(value) and abs(value) < 2**53:",
        "if value == int(value) and abs(value) < 2**10:",
        "seeds of a report lose digits",
        _REPORT,
    ),
}
