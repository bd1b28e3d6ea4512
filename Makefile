# Each target does all its own set-up: Python >= 3.10 with pip is all it needs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test lint clean

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: .venv/.train  ## train on handwritten digits and print the table of measures (some minutes, mostly installing)
	$(BIN)/polyanchor demo --out runs/demo-$$(date +%Y%m%d-%H%M%S)

test: .venv/.all lint  ## lint, types, layers, tests
	$(BIN)/python -m pytest -n 2

lint: .venv/.all  ## ruff, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## remove the environment and the caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "polyanchor needs Python 3.10 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv

.venv/.train: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[train]'
	@touch $@

.venv/.all: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[all,dev]'
	@touch $@ .venv/.train
