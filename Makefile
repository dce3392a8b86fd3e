# Every target sets up what it needs: a virtual environment in .venv, samt and its tools.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Real data sets (MNIST, Fashion-MNIST); tests that need them are skipped, and say so, without.
SAMT_DATA_DIR ?= $(abspath $(wildcard ../shared/data))
export SAMT_DATA_DIR

.PHONY: demo test lint bench paper suite docs clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(STAMP)  ## SAMT, SGD and Adam side by side on real images: a table and a picture
	$(BIN)/samt compare --data digits --epochs 40 --threads 1 --run-dir runs/demo --overwrite \
		auto-samt samt sgd sgd:lr=0.3 adam

test: $(STAMP)  ## the whole test suite
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)  ## cost of a step, as a ratio to torch SGD, into docs/performance.md; takes hours
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[benchmark]'
	$(BIN)/python benchmarks/run.py

paper: $(STAMP)  ## the page of measured beside published numbers, from the results that are kept
	$(BIN)/samt report docs/paper/results -o docs/paper --no-figures

suite: $(STAMP)  ## the tables of docs/how-to-choose.md and the page of the suite, from the runs that are kept
	$(BIN)/samt report docs/suite/runs.jsonl.gz -o docs/suite --into docs/how-to-choose.md

docs: $(STAMP)  ## the documentation site, into site/
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/mkdocs build

clean:  ## remove everything that was generated
	rm -rf $(VENV) dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
