"""Seeds from names: the same for ever, and each name's own."""

import hashlib
from pathlib import Path

import pytest

from gradlab.reproducible import seed_of, seeded


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("quadratic/2x3/moderate/0/ST", 8715086993167654368),
        ("quadratic/2x3/moderate/0/ZGR", 167185694202007918),
    ],
)
def test_the_seed_of_a_cell_is_that_of_earlier_versions(name, seed):
    assert seed_of(name) == seed


@pytest.mark.parametrize("seed", [0, 7])
def test_a_problem_draws_from_the_stream_of_earlier_versions(seed):
    digest = hashlib.sha256(f"cubic:{seed}".encode()).digest()
    assert seeded("cubic", seed).initial_seed() == int.from_bytes(digest[:7], "big")


def test_no_other_module_makes_seeds_of_names():
    package = Path(__file__).parents[1] / "gradlab"
    hashing = {
        file.relative_to(package).as_posix()
        for file in package.rglob("*.py")
        if "int.from_bytes" in file.read_text()
    }
    assert hashing == {"reproducible.py"}
