# `make demo` and `make test` do everything on a fresh machine: they make a virtual environment in
# .venv and install what they need, with the versions of constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check clean

demo: $(VENV)/.installed
	$(BIN)/sincut demo -o demo --force

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

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
