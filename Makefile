# Every target works on a fresh clone: the first one makes the environment, .venv.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JOBS ?= 2
# Pythons to try, in this order; make PYTHON=... names another.
PYTHON ?= python3.11 python3.12 python3.13 python3

.DEFAULT_GOAL := help
.PHONY: help figures test test-thorough test-all test-mutants lint format notebooks docs bench clean

help: ## this list
	@echo "make TARGET, where TARGET is one of"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

figures: $(READY) ## the main job: every figure and its rows, into figures/
	@$(BIN)/gradlab figures

# One thread a worker: more only makes the workers wait for each other.
test test-thorough test-all: export OMP_NUM_THREADS := 1
test test-thorough test-all: export MPLBACKEND := Agg
# Without stored bytecode every process rewrites the assertions of all files anew.
test test-thorough test-all: PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/pytest
test-all: export GRADLAB_CHECK_SHAPES := 1

test: $(READY) ## the quick tests: at least one of everything
	@$(PYTEST) -n $(JOBS) --dist worksteal

test-thorough: $(READY) ## all tests but the slow ones: what each change must pass
	@$(PYTEST) -n $(JOBS) --dist worksteal -m "not slow and not full_data"

test-all: $(READY) ## all tests, with the slow ones and those on full data sets
	@$(PYTEST) -n $(JOBS) -m ""

test-mutants: $(READY) ## plant each mutant of tests/mutants and see whether its tests fail
	@$(BIN)/python -m tests.mutants

lint: $(READY) ## format, lint and types, checked
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: $(READY) ## format, and what lint can mend by itself
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

notebooks: $(READY) ## run the notebooks and store their outputs in them
	@$(BIN)/jupyter nbconvert --to notebook --execute --inplace --log-level=WARN \
	  --ExecutePreprocessor.record_timing=False notebooks/*.ipynb
	@$(BIN)/python notebooks/smaller.py

docs: $(READY) ## the site, into docs/_build/html; a warning is an error
	@MPLBACKEND=Agg $(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

bench: $(READY) ## speed; beside other packages where the bench extra is installed
	@$(BIN)/python -m benchmarks

clean: ## remove the environment, caches and builds (figures stay)
	@rm -rf $(VENV) build dist docs/_build docs/api docs/estimators \
	  docs/notebooks docs/pictures *.egg-info .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -prune -exec rm -rf {} +

# The mark is written last and taken away first, so an interrupted install leaves no mark; without
# one the environment is made from nothing.
$(READY): pyproject.toml constraints.txt
	@if [ -e $@ ]; then \
	  echo "Updating $(VENV)"; rm $@; \
	else \
	  for python in $(PYTHON) ""; do \
	    $$python -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	      >/dev/null 2>&1 && break; \
	  done; \
	  [ -n "$$python" ] || { echo "No Python 3.11 or newer with the venv module is found" \
	    "(tried $(PYTHON)); name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }; \
	  echo "Making $(VENV) (once, some minutes)"; \
	  $$python -m venv --clear $(VENV); \
	fi
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt \
	  -e '.[dev,notebooks]'
	@touch $@
