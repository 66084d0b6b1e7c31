# The two commands of the README: `make demo` and `make test`. Both set up .venv once, with the versions of constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test check clean

help:
	@echo "make demo   set up .venv, then train, score and label generated wafer maps (about 3 minutes)"
	@echo "make test   set up .venv, then run the tests"
	@echo "make check  ruff and mypy"

demo: $(VENV)/.ready
	$(BIN)/fullconv demo

test: $(VENV)/.ready-dev
	$(BIN)/python -m pytest --numprocesses 2

check: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "fullconv needs Python 3.11 or newer; found `$(PYTHON) --version`: make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch by its exact version first: a plain `torch` could pull another build with gigabytes of GPU libraries.
$(VENV)/.ready: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) --editable .
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(PIP) --editable '.[dev]'
	@touch $@
