# Every command of the project. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2
PYTEST_ARGS ?=
SERVE_ARGS ?=
BENCH_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup serve test soak check format bench docs clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv and install everything; redone only when pyproject.toml changes

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

serve: $(STAMP) ## Run the Flight server (8815) and the REST gateway (8000); SERVE_ARGS="--lake URI ..."
	$(BIN)/timedb serve $(SERVE_ARGS)

test: $(STAMP) ## Run the tests; PYTEST_ARGS="tests/storage -k flat ..."
	$(BIN)/python -m pytest --numprocesses=$(WORKERS) $(PYTEST_ARGS)

soak: $(STAMP) ## Run the behaviour suite on many more random histories (minutes)
	$(BIN)/python -m pytest tests/behaviour --hypothesis-profile=soak --timeout=3600 $(PYTEST_ARGS)

check: $(STAMP) ## Lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## Format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## Measure against the raw limits; BENCH_ARGS="--runs 4380 --json FILE ..."
	$(BIN)/python -m benchmarks.run $(BENCH_ARGS)

docs: $(STAMP) ## Write the generated pages of docs/ anew (settings, CLI)
	$(BIN)/python docs/generate.py

clean: ## Remove .venv and all caches; the lake stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
