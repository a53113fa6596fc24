"""Grids: what is asked, validated before anything runs; cells that know nothing of each other."""

import math

import pytest

from gradlab.comparison.comparing import compare
from gradlab.estimators import ESTIMATORS, parse
from gradlab.problems import TinyVAE, problem, regime
from gradlab.sweep.cells import computed
from gradlab.sweep.grid import Grid, GridError
from gradlab.sweep.plan import plan
from gradlab.sweep.size import needed_bytes, refused

SMALL = {"problems": ["quadratic"], "sizes": ["2x3"]}

OWN = """
import gradlab
def loss(x): return x[..., 0].sum(-1) + x.square().sum((-2, -1))
def broken(x): raise RuntimeError("no such luck")
number = 3
class Mine(gradlab.ZGR):
    name = "MINE"
"""


def tasks_of(grid):
    return [grid.task(index) for index in range(grid.tasks)]


def rows_of(grid):
    """Compute all cells of a grid; return the rows by the ids, without the time they took."""
    rows = [row for task in tasks_of(grid) for row in computed(task) if row is not None]
    return {row["cell"]: {k: v for k, v in row.items() if k != "seconds"} for row in rows}


def same(a, b):
    """Whether two rows are the same to the last bit, NaN equal to NaN."""
    return repr(a) == repr(b)


def test_a_grid_is_the_product_of_its_axes():
    grid = Grid(
        ["quadratic", "norm:1.5"],
        ["2x3", "4x2", "1x1"],
        ["moderate", "masked"],
        seeds=5,
        estimators=["ZGR", "GR(k=10)", "ZGR"],
        temperatures=[0.1, 1],
    )
    ids = [cell.id for task in tasks_of(grid) for cell in task.cells]
    assert len(grid) == len(ids) == len(set(ids)) == 2 * 3 * 2 * 5 * 3
    assert grid.tasks == 60
    assert ids[0] == "quadratic/2x3/moderate/0/ZGR"
    assert "norm:1.5/4x2/masked/4/GR(tau=0.1, k=10)" in ids
    assert len({cell.seed for task in tasks_of(grid) for cell in task.cells}) == len(ids)


def test_all_estimators_at_temperatures_in_three_digits():
    grid = Grid(**SMALL, temperatures={"from": 0.01, "to": 10, "count": 20})
    taus = sorted({cell.tau for cell in grid.task(0).cells if cell.tau is not None})
    assert len(taus) == 20
    assert (taus[0], taus[1], taus[-1]) == (0.01, 0.0144, 10)
    texts = [cell.id.rpartition("/")[2] for cell in grid.task(0).cells]
    assert {parse(text).name for text in texts} == set(ESTIMATORS)
    with_tau = sum(cls.temperature_field is not None for cls in ESTIMATORS.values())
    assert len(texts) == len(ESTIMATORS) + 19 * with_tau


WRONG = {
    "problems": [
        (["quadratc"], "did you mean 'quadratic'"),
        ([], "must not be empty"),
        ("mlp", "must be a list"),
        ([3], "must hold texts, not 3"),
        (["norm:x"], "must be a number"),
        (["quadratic:2"], "takes no argument"),
        (["vae"], "has N=4, C=4"),
        (["nowhere.py:loss"], "there is no file"),
    ],
    "sizes": [
        (["3"], "must be NxC"),
        (["0x3"], "must be NxC"),
        (["axb"], "must be NxC"),
        (["100x100"], "at most 4096, not 10000"),
    ],
    "regimes": [(["mask"], "did you mean 'masked'"), (["encoder"], "of the problem vae only")],
    "seeds": [
        (0, "1 to 1,000,000"),
        (True, "number of seeds"),
        ([], "must not be empty"),
        ([-1], "seed must be an int"),
        ([1.5], "seed must be an int"),
        ([[1]], "seed must be an int"),
        ("3", "number of seeds"),
    ],
    "estimators": [
        (["GX"], "unknown estimator"),
        (["GR(tau=-1)"], "tau"),
        (["GR(q=1)"], "no argument 'q'"),
        (["nowhere.py:Mine"], "there is no file"),
    ],
    "temperatures": [
        ([0.0], "positive numbers, not 0.0"),
        ([math.inf], "positive numbers"),
        ([math.nan], "positive numbers"),
        (["1"], "positive numbers"),
        ([[1]], "positive numbers"),
        ([], "must not be empty"),
        (0.5, "a list or {from, to, count}"),
        ({"from": 1, "to": 2}, "{from, to, count}"),
        ({"from": 2, "to": 1, "count": 3}, "0 < from < to"),
        ({"from": 1, "to": 2, "count": 1}, "count of 2 to 999"),
    ],
    "draws": [(31, "at least 32, not 31"), ("many", "at least 32")],
    "method": [("both", "known: auto, exact, monte-carlo")],
}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [(field, *case) for field, cases in WRONG.items() for case in cases],
)
def test_what_could_not_be_run_is_told_before_anything_runs(field, value, message):
    with pytest.raises(GridError) as caught:
        Grid(**(SMALL | {field: value}))
    assert field in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("problems = [", "is not TOML"),
        ('problems = ["mlp"]', "the key sizes is missing"),
        ('problems = ["mlp"]\nsizes = ["2x2"]\nregime = ["uniform"]', "did you mean 'regimes'"),
        ('problems = ["mlp"]\nsizes = ["2x2"]\nfolder = "/"', "unknown key 'folder'"),
        ('problems = ["mpl"]\nsizes = ["2x2"]', "did you mean 'mlp'"),
    ],
)
def test_a_wrong_file_is_named_with_its_fault(text, message, tmp_path):
    file = tmp_path / "grid.toml"
    file.write_text(text)
    with pytest.raises(GridError) as caught:
        Grid.from_toml(file)
    assert str(file) in str(caught.value)
    assert message in str(caught.value)


def test_a_file_says_what_the_object_says(tmp_path):
    file = tmp_path / "grid.toml"
    file.write_text(
        'problems = ["mlp"]\nsizes = ["2x3"]\nseeds = [7, 1]\nestimators = ["all"]\n'
        'temperatures = { from = 0.1, to = 10, count = 3 }\ndraws = 64\nmethod = "exact"\n'
    )
    grid = Grid(["mlp"], ["2x3"], seeds=[7, 1], temperatures=[0.1, 1, 10], draws=64, method="exact")
    assert Grid.from_toml(file).settings == grid.settings


def test_rows_are_those_of_compare():
    grid = Grid(["cubic"], ["2x3"], ["masked"], [4], ["ZGR", "GS", "GR(k=3)"], [0.5], draws=64)
    f, logits = problem("cubic", 2, 3, 4), regime("masked", 2, 3, 4)
    for cell, row in zip(grid.task(0).cells, rows_of(grid).values(), strict=True):
        given = {"draws": 64, "seed": cell.seed, "problem": "cubic"}
        expected = compare(f, logits, [row["estimator"]], **given).iloc[0]
        assert row["mse"] == expected["mse"]
        assert row["mse_se"] == expected["mse_se"]
        assert row["method"] == expected["method"]


def test_the_encoder_regime_of_the_vae():
    (row,) = rows_of(Grid(["vae:some"], ["4x4"], ["encoder"], [3], ["ZGR"])).values()
    f = TinyVAE("some", 3)
    assert row["mse"] == compare(f, f.logits, ["ZGR"]).iloc[0]["mse"]


def test_a_cell_does_not_depend_on_the_others():
    few = {"estimators": ["GS", "ARSM", "ZGR"], "draws": 64}
    grid = Grid(["quadratic", "mlp"], ["2x3", "3x2"], seeds=3, temperatures=[0.3, 2], **few)
    whole = rows_of(grid)
    other = rows_of(Grid(["mlp"], ["3x2"], seeds=[2], temperatures=[2, 5], **few))
    common = whole.keys() & other.keys()
    assert len(common) == 3
    assert [cell for cell in common if not same(whole[cell], other[cell])] == []
    # Different cells have different random numbers: the other way round nothing would be shown.
    drawn = [row["mse"] for row in whole.values() if row["method"] == "monte carlo"]
    assert len(set(drawn)) == len(drawn)


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


def test_own_losses_and_estimators(own):
    grid = Grid(
        ["own.py:loss"], ["2x3"], estimators=["own.py:Mine", "ZGR"], folder=own, method="exact"
    )
    mine, zgr = rows_of(grid).values()
    assert mine["cell"] == "own.py:loss/2x3/moderate/0/MINE"
    assert mine["variance"] == zgr["variance"] > 0
    assert mine["error"] is None


def test_the_code_of_own_files_belongs_to_the_grid(own):
    given = {"problems": ["own.py:loss"], "sizes": ["2x3"], "estimators": ["ZGR"], "folder": own}
    before = Grid(**given).settings
    (own / "own.py").write_text(OWN + "\n")
    assert Grid(**given).settings != before


def test_a_loss_that_fails_is_an_error_in_every_row(own):
    rows = rows_of(Grid(["own.py:broken"], ["2x3"], estimators=["ZGR", "ST"], folder=own))
    errors = {row["error"] for row in rows.values()}
    assert len(errors) == 1
    assert "no such luck" in errors.pop()


@pytest.mark.parametrize("name", ["own.py:number", "own.py:nothing"])
def test_what_is_no_loss_is_refused(name, own):
    with pytest.raises(GridError, match=name.partition(":")[2]):
        Grid([name], ["2x3"], folder=own)


def test_too_many_configurations_are_refused_from_the_size():
    grid = Grid(["mlp"], ["13x4", "12x4"], estimators=["ZGR"])
    large, allowed = tasks_of(grid)
    (why,) = refused(large).values()
    assert "67,108,864 configurations of 13 variables of 4 classes" in why
    assert refused(allowed) == {}


def test_masked_classes_do_not_count():
    masked = Grid(["mlp"], ["13x4"], ["masked"], estimators=["ZGR"]).task(0)
    assert math.prod(regime("masked", 13, 4).isfinite().sum(-1).tolist()) < 2**24
    assert refused(masked) == {}


def test_cells_that_need_too_much_memory_are_refused_from_the_size():
    task = Grid(["mlp"], ["1x2048"], estimators=["LE", "RF(m=2)"]).task(0)
    assert needed_bytes(parse("LE"), 1, 2048) > 8 * 16 * 2048 * 2048
    found = refused(task, memory=2.0)
    assert [cell.rpartition("/")[2] for cell in found] == ["LE"]
    assert "more than the 2 GB of a worker" in found["mlp/1x2048/moderate/0/LE"]
    assert refused(task, memory=64.0) == {}


def test_a_plan_of_what_is_too_large_ends_soon():
    found = plan(Grid(["mlp"], ["13x4"], seeds=10**5, estimators=["ZGR"]), seconds=0.1)
    assert 2 <= len(found.refused) < 10**5
    assert (found.seconds, found.cells) == (0, 10**5)


@pytest.mark.usefixtures("kept_processes")
def test_a_plan_counts_and_measures():
    grid = Grid(["quadratic"], ["2x3", "13x4"], seeds=4, estimators=["ZGR", "GS"], draws=64)
    found = plan(grid, seconds=0.2)
    assert (found.cells, found.tasks) == (16, 8)
    assert set(found.refused) <= {c.id for t in tasks_of(grid) if t.N == 13 for c in t.cells}
    assert found.seconds > 0
    assert "16 cells in 8 tasks: " in str(found)
