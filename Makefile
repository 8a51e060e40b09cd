# `make demo` and `make test` do everything on a fresh machine: they make a virtual environment in
# .venv and install what they need, with the versions of constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check clean

demo: $(VENV)/.installed
	$(BIN)/sincut demo -o demo --force

# Processes side by side, with one thread each: threads that wait for each other spin.
test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

clean:
	rm -rf $(VENV) build dist *.egg-info demo

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

INSTALL = $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable
SOURCES = setup.py pyproject.toml constraints.txt

$(VENV)/.installed: $(VENV)/bin/python $(SOURCES)
	$(INSTALL) .
	touch $@

$(VENV)/.installed-test: $(VENV)/bin/python $(SOURCES)
	$(INSTALL) ".[test]"
	touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python $(SOURCES)
	$(INSTALL) ".[dev]"
	touch $@
