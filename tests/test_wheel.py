"""What `pip install .` brings: every file of the package, its data, and what to cite."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gradlab"
FILES = {file for file in PACKAGE.rglob("*") if file.is_file() and file.suffix != ".pyc"}


def test_every_data_file_is_named_for_the_wheel():
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    (globs,) = table["package-data"].values()
    named = {file for glob in globs for file in PACKAGE.glob(glob)}
    assert {file for file in FILES if file.suffix != ".py"} == named


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "CITATION.cff"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(PACKAGE, source / "gradlab", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "."]
    subprocess.run([*command, "-q", "-w", "dist"], cwd=source, check=True)
    (file,) = (source / "dist").glob("*.whl")
    return file


# A wheel is built: some ten seconds.
@pytest.mark.slow
def test_the_wheel_has_every_file_and_works_outside_the_clone(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "installed")
    assert {str(file.relative_to(ROOT)) for file in FILES} == {
        name for name in names if name.startswith("gradlab/")
    }
    licenses = {Path(name).name for name in names if ".dist-info/licenses/" in name}
    assert licenses == {"LICENSE", "CITATION.cff"}
    commands = (
        ["cite", "gradlab"],
        ["verify", "ZGR", "--problem", "quadratic", "--size", "2x3", "--regime", "moderate"],
        ["figures", "cold-limit", "--out", "made"],
    )
    code = f"""
import gradlab
from gradlab.cli import main
assert gradlab.__file__.startswith({str(tmp_path / "installed")!r}), gradlab.__file__
for command in {commands}:
    assert main(command) == 0, command
"""
    (tmp_path / "here").mkdir()
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "here", env=environment, check=True)
    assert {file.name for file in (tmp_path / "here" / "made").iterdir()} == {
        f"cold-limit.{end}" for end in ("csv", "png", "pdf")
    }
