"""The section of a training: the losses that were reached, and the curves."""

import pandas as pd

from gradlab.plots.names import series_of, trained_labels
from gradlab.report.charts import Chart
from gradlab.report.scales import Axis
from gradlab.report.sections import Section, SmallTable, counted, listed
from gradlab.report.sources import Source

__all__ = ["training_section"]

# By the kind of training: what is reached, with its title; the first one is what the answer is by.
_REACHED = {
    "vae": {
        "test_nelbo": "test -ELBO",
        "test_bound": "test bound",
        "valid_nelbo": "valid -ELBO",
        "train_nelbo": "training -ELBO",
    },
    "network": {
        "test_mode_error": "test error, most probable levels",
        "test_sample_error": "test error, one sample",
        "test_ensemble_error": "test error, ensemble",
        "valid_mode_error": "valid error, most probable levels",
        "loss": "training loss",
    },
}
_SETTINGS = (
    "objective",
    "k",
    "data",
    "latent",
    "model",
    "levels",
    "activations",
    "weights",
    "batch",
    "lr",
    "hidden",
)


def training_section(source: Source) -> Section:
    """Return the section of the curves of a training.

    Args:
        source: Curves that `gradlab train` wrote.

    Returns:
        The section.

    Example:
        >>> row = {"epoch": 1, "step": 4, "kind": "vae", "seed": 0, "test_nelbo": 190.0}
        >>> rows = pd.DataFrame([row | {"estimator": "ZGR"}, row | {"estimator": "ST"}])
        >>> rows.loc[1, "test_nelbo"] = 195.0
        >>> training_section(Source("vae.csv", rows, "training")).lead
        'ZGR reaches the smallest test -ELBO: 190 nats after 1 epoch.'
    """
    rows = source.rows.reset_index(drop=True).copy()
    if not len(rows):
        return Section("Training", "There are no rows.", [], [], rows, list(rows.columns))
    rows["estimator"] = trained_labels(rows)
    rows["series"] = rows["estimator"].map(series_of)
    rows["run"] = rows["estimator"]
    for name in ("lr", "seed"):
        if name in rows and rows[name].nunique() > 1:
            rows["run"] += f", {name} " + rows[name].astype(str)
    kind = str(rows["kind"].iloc[0])
    known = _REACHED.get(kind, {"loss": "loss"})
    columns = {name: title for name, title in known.items() if name in rows}
    chosen = rows[rows["chosen"].astype(bool)] if "chosen" in rows else rows
    lead, answer, small = _answer(chosen, columns)
    reached = [Axis(c, f"{title} ({_unit(c)})", None) for c, title in columns.items()]
    if "loss" in rows and "loss" not in columns:
        reached.append(Axis("loss", "loss of the training step"))
    told = ["run", "epoch", "step", "seconds", *columns]
    told = [name for name in told if name in rows]
    curves = [a for a in reached if rows.groupby("run")[a.column].count().max() > 1]
    charts = [
        Chart(
            f"by-{across}",
            f"Losses by {across}",
            "One line per run.",
            Axis(across, title, None, False),
            curves,
            ["run"],
            across,
            starts_log=False,
            tooltip=told,
        )
        for across, title in (("epoch", "epoch"), ("seconds", "seconds of training"))
        if across in rows and curves
    ]
    shown = [c for c in ("estimator", "seed", "epoch", "seconds", "loss", *columns) if c in rows]
    asked = [f"{kind} trained by {listed(list(dict.fromkeys(rows['estimator'])))}"]
    asked += [
        f"{name}: {listed(list(dict.fromkeys(rows[name].astype(str))))}"
        for name in (*_SETTINGS, "seed")
        if name in rows
    ]
    asked.append(counted(int(rows["epoch"].max()), "epoch"))
    return Section(
        title=f"Training: {kind}",
        lead=lead,
        answer=answer,
        asked=asked,
        rows=rows,
        shown=shown,
        charts=charts,
        small=small,
        told=source.told,
    )


def _unit(column: str) -> str:
    return "share" if column.endswith("_error") else "nats"


def _answer(rows: pd.DataFrame, columns: dict[str, str]) -> tuple[str, list[str], list[SmallTable]]:
    runs = [c for c in ("estimator", "lr", "seed") if c in rows]
    last = rows.sort_values("step", kind="stable").groupby(runs, sort=False).tail(1)
    groups = last.groupby("estimator", sort=False)
    mean = groups[list(columns)].mean()
    spread = (groups[list(columns)].max() - groups[list(columns)].min()) / 2
    seeds, epochs = int(groups.size().max()), int(last["epoch"].max())
    by = next((name for name in columns if mean[name].notna().any()), None)
    if by is None:
        return "The rows hold no loss at the end.", [], []
    order = mean[by].sort_values().index

    def cell(estimator: object, column: str) -> str:
        value, around = float(mean.loc[estimator, column]), float(spread.loc[estimator, column])
        if value != value:
            return ""
        times, unit = (100, " %") if column.endswith("_error") else (1, "")
        text = f"{times * value:.4g}"
        return text + (f" ± {times * around:.2g}" if seeds > 1 else "") + unit

    unit = "" if by.endswith("_error") else " nats"
    lead = (
        f"{order[0]} reaches the smallest {columns[by]}: {cell(order[0], by)}{unit} after "
        f"{counted(epochs, 'epoch')}."
    )
    answer = []
    if seeds > 1:
        answer.append(f"± is (max - min)/2 of {seeds} seeds.")
        edge = mean.loc[order[0], by] + spread.loc[order[0], by]
        close = [e for e in order[1:] if mean.loc[e, by] - spread.loc[e, by] <= edge]
        if close:
            answer.append(f"The seeds of {listed(close)} overlap with its seeds.")
    else:
        answer.append("One seed: a difference may be chance.")
    unfinished = last[last["epoch"] < last["epoch"].max()]
    if len(unfinished):
        names = listed(list(dict.fromkeys(unfinished["estimator"])))
        answer.append(f"Not as many epochs as the others: {names}.")
    header = ["estimator", *columns.values(), *(["seconds"] if "seconds" in last else [])]
    cells = []
    for estimator in order:
        row = [str(estimator), *(cell(estimator, column) for column in columns)]
        if "seconds" in last:
            row.append(f"{groups['seconds'].mean()[estimator]:.0f}")
        cells.append(row)
    return lead, answer, [SmallTable("Losses at the end, mean over seeds", header, cells)]
