"""What the commands of `gradlab train` share: the runs, and the report of what they reached."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gradlab.cli.faults import blaming, blaming_one, fail, make_folder
from gradlab.cli.html_report import check_report, write_report

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["train_and_report"]


def train_and_report(
    name: str,
    settings: Sequence[Any],
    columns: dict[str, str],
    data: Path | None,
    workers: int | None,
    device: str,
    threads: int,
    out: Path,
    probe: dict[str, Any] | None = None,
    report: bool = False,
) -> None:
    """Do the runs, write the curves and print what was reached."""
    check_report(report, out)
    import pandas as pd

    from gradlab.data.datasets import load_images
    from gradlab.parallel import usable_cores
    from gradlab.plots.files import save_with_rows
    from gradlab.plots.training import plot
    from gradlab.training.runs import Run, at_best_rate, begin, run_all, summary

    with blaming("--images, --data", (ValueError, FileNotFoundError)):
        images = load_images(settings[0].data, data)
    with blaming_one("ESTIMATOR", "--device", "--probe-estimators"):
        kinds = {(one.estimator, getattr(one, "objective", "")): one for one in settings}
        for chosen in kinds.values():
            begin(chosen, images, device, probe)
    runs = [Run(one, out / Run.name(one), data, device, threads, probe) for one in settings]
    cores = max(1, usable_cores() // threads) if device == "cpu" else 1
    make_folder(out)
    outcomes = run_all(runs, workers or cores, progress=True)
    curves = [outcome.curve for outcome in outcomes if outcome.error is None]
    files: list[Path] = []
    if curves:
        files.append(out / f"{name}.csv")
        rows = pd.concat(curves, ignore_index=True)
        rows = rows.assign(chosen=at_best_rate(rows))
        save_with_rows(rows, plot, out, name)
        best = rows[rows["chosen"]]
        print(_text(summary(best, ["lr", *columns, "seconds"]), columns))
        print(f"\n{out / f'{name}.png'}")
    probed = [outcome.probed for outcome in outcomes if len(outcome.probed)]
    if probed:
        from gradlab.plots import probe as picture

        save_with_rows(pd.concat(probed), picture.plot, out, f"{name}-probe")
        files.append(out / f"{name}-probe.csv")
        print(out / f"{name}-probe.png")
    if report and files:
        write_report(files, out)
    stopped = [outcome for outcome in outcomes if outcome.error is not None]
    for outcome in stopped:
        fail(f"{outcome.run.folder.name}: {outcome.error}", 1)
    if stopped:
        raise typer.Exit(1)


def _text(table: "pd.DataFrame", columns: dict[str, str]) -> str:
    """Return the summary as text: mean ± (max - min) / 2 over seeds."""
    from gradlab.text import aligned

    lines = [("estimator", *columns.values(), "lr", "seconds")]
    for row in table.to_dict("records"):
        cells = [_cell(row, column) for column in columns]
        lines.append((row["estimator"], *cells, f"{row['lr']:g}", f"{row['seconds']:.0f}"))
    seeds, epochs = table["seeds"].max(), table["epochs"].max()
    over = f"mean ± (max - min)/2 of {seeds} seeds" if seeds > 1 else "one seed"
    return f"After {epochs} epochs, {over}.\n\n{aligned(lines)}"


def _cell(row: dict[str, Any], column: str) -> str:
    value, spread, unit = row[column], row[f"{column}_spread"], ""
    if column.endswith("_error"):
        value, spread, unit = 100 * value, 100 * spread, " %"
    return f"{value:.4g}" + (f" ± {spread:.2g}" if row["seeds"] > 1 else "") + unit
