# Each target does all its own set-up: Python >= 3.10 with pip is all it needs.
PYTHON ?= python3
BIN := .venv/bin
BENCH := .venv-bench/bin/python

.PHONY: help demo test test-all lint docs bench scaling clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: .venv/.train  ## train on handwritten digits and print the table of measures (some minutes, mostly installing)
	$(BIN)/polyanchor demo --out runs/demo-$$(date +%Y%m%d-%H%M%S)

test: .venv/.all lint  ## lint, types, layers, and the tests that take seconds (a few minutes)
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: .venv/.all lint  ## the same with the slow tests, as the CI runs it
	$(BIN)/python -m pytest -n 2

lint: .venv/.all  ## ruff, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/.all  ## build the documentation site, strictly, into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo 'open build/site/index.html; with its search: $(BIN)/mkdocs serve'

bench: .venv-bench/.done  ## time and memory beside other libraries (ten minutes): prints the table, fills benchmarks/README.md
	$(BENCH) -m benchmarks
	$(BENCH) docs/performance_tables.py
	$(BENCH) docs/figures/performance.py

scaling: .venv-bench/.done  ## a million classes, and one rank beside two (half an hour, two cores): fills benchmarks/README.md
	$(BENCH) -m benchmarks.million_classes
	$(BENCH) -m benchmarks.data_parallel
	$(BENCH) -m benchmarks.sharded_loss
	$(BENCH) docs/performance_tables.py

clean:  ## remove the environment and the caches
	rm -rf .venv .venv-bench .mypy_cache .ruff_cache .pytest_cache .hypothesis

# An environment of its own: the peers are pinned, and open-metric-learning holds NumPy below 2 for all.
.venv-bench/.done: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "polyanchor needs Python 3.10 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv-bench
	$(BENCH) -m pip install --disable-pip-version-check -q -e '.[all,bench]'
	@touch $@

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "polyanchor needs Python 3.10 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv

.venv/.train: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[train]'
	@touch $@

.venv/.all: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[all,dev]'
	@touch $@ .venv/.train
