# Every command of the project. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SERVE := $(VENV)/.serve
WORKERS ?= 3
PYTEST_ARGS ?=
SERVE_ARGS ?=
BENCH_ARGS ?=
CAMPAIGN_ARGS ?=
RELEASE_KEY ?=
RELEASE_DIR ?= dist
SOAK_MINUTES ?= 10
SCHEMA_ARGS ?= --max-examples=25
LOCK := --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header
CAMPAIGN_FILE ?= .campaign.jsonl

.DEFAULT_GOAL := help
.PHONY: help setup release sign lock serve test coverage soak soak-service readers schema campaign browser check format bench bench-peers docs clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv and install everything; redone only when pyproject.toml or requirements/ change

$(BIN)/pip: # the last that venv makes
	$(PYTHON) -m venv $(VENV)

# The links of one import name to folders side by side (docs/decisions/0041); git brings them, a source archive does not.
LINKS := timedb/storage timedb/flight_server timedb/rest_gateway
$(LINKS):
	ln -s ../$(@F) $@

$(STAMP): pyproject.toml requirements/dev.txt | $(BIN)/pip $(LINKS)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(SERVE) $@

$(SERVE): pyproject.toml requirements/serve.txt | $(BIN)/pip $(LINKS)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements/serve.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

lock: ## Write requirements/ anew: the newest versions that pyproject.toml allows, with hashes, for all Pythons and platforms
	test -x .venv-lock/bin/uv || { $(PYTHON) -m venv .venv-lock && .venv-lock/bin/pip install --quiet 'uv>=0.13,<0.14'; }
	.venv-lock/bin/uv pip compile $(LOCK) pyproject.toml --output-file requirements/serve.txt
	.venv-lock/bin/uv pip compile $(LOCK) pyproject.toml --extra dev --output-file requirements/dev.txt

# What a release consists of beside its tag; CycloneDX's own tool writes the list of parts from the lock file.
release: $(STAMP) ## Make dist/: sdist, wheel, lock file with hashes, SBOM (CycloneDX), checksums and their signature; RELEASE_KEY=private SSH key
	test -r "$(RELEASE_KEY)" || { echo "RELEASE_KEY: name the file of the private SSH key that signs releases"; exit 2; }
	rm -rf $(RELEASE_DIR)
	$(BIN)/python -m hatchling build --directory $(RELEASE_DIR)
	cp requirements/serve.txt $(RELEASE_DIR)/requirements.txt
	test -x .venv-release/bin/cyclonedx-py || { $(PYTHON) -m venv .venv-release && .venv-release/bin/pip install --quiet 'cyclonedx-bom>=7.5,<8'; }
	.venv-release/bin/cyclonedx-py requirements $(RELEASE_DIR)/requirements.txt --pyproject pyproject.toml --output-reproducible --of JSON -o $(RELEASE_DIR)/sbom.cdx.json
	@$(MAKE) --no-print-directory sign

sign: # all files of RELEASE_DIR
	cd $(RELEASE_DIR) && rm -f SHA256SUMS SHA256SUMS.sig && sha256sum -- * > SHA256SUMS && ssh-keygen -q -Y sign -n timedb-release -f "$(abspath $(RELEASE_KEY))" SHA256SUMS

serve: $(SERVE) ## Install what the service needs and run the Flight server (8815) and the REST gateway (8000); SERVE_ARGS="--lake URI ..."
	$(BIN)/timedb serve $(SERVE_ARGS)

test: $(STAMP) $(VENV)/.browser ## Run the tests; PYTEST_ARGS="tests/storage -k flat ..."
	@# Bytecode is written whatever the environment says: the tests start many processes, each of which would compile everything again.
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=worksteal $(PYTEST_ARGS)

coverage: $(STAMP) $(VENV)/.browser ## Run the tests and say which lines they do not reach; fails under the floor in pyproject.toml. Python 3.12 or later: older ones do not see the threads of gRPC
	COVERAGE_CORE=$$($(BIN)/python -c "import sys; print('sysmon' if sys.version_info >= (3, 12) else 'ctrace')") $(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=worksteal --cov --cov-report=term:skip-covered $(PYTEST_ARGS)

soak: $(STAMP) ## Run the behaviour suite on many more random histories (minutes)
	$(BIN)/python -m pytest tests/behaviour --hypothesis-profile=soak --timeout=3600 $(PYTEST_ARGS)

readers: $(STAMP) ## Ask old and new versions of Polars, delta-rs and DuckDB for rows by every column (3 GB in .venv-readers)
	$(BIN)/python -m tests.readers.matrix

schema: $(STAMP) ## Calls made up from /openapi.json, sound and broken: no 5xx, no answer that the document does not know (minutes); SCHEMA_ARGS="--max-examples 100"
	test -x .venv-schema/bin/schemathesis || { $(PYTHON) -m venv .venv-schema && .venv-schema/bin/pip install --quiet 'schemathesis>=4.32,<5'; }
	$(BIN)/python -m tests.fuzzing.run .venv-schema/bin/schemathesis $(SCHEMA_ARGS)

soak-service: $(STAMP) ## Writers, readers and clients that leave, all at once, every answer checked; 50 times open and close; SOAK_MINUTES=10
	TIMEDB_TEST_SOAK_MINUTES=$(SOAK_MINUTES) $(BIN)/python -m pytest tests/soak tests/flight_server/test_open_close.py --timeout=7200 -rP $(PYTEST_ARGS)

campaign: $(STAMP) ## Every fault at every file operation, ten writers (an hour; goes on where stopped); CAMPAIGN_ARGS="-k compaction"
	TIMEDB_TEST_CAMPAIGN=$(CAMPAIGN_FILE) $(BIN)/python -m pytest $(addprefix tests/storage/commit/test_,faults.py full_disk.py many_writers.py) --show-capture=no $(CAMPAIGN_ARGS)

$(VENV)/.browser: | $(BIN)/pip # tried once; without a browser the tests of the page are skipped, and say so
	-@$(MAKE) --no-print-directory browser
	@touch $@

browser: ## Install Chromium and its driver for tests/ui, where they are missing; on Debian, as root
	@test -x /usr/bin/chromium -a -x /usr/bin/chromedriver || { command -v apt-get >/dev/null && test "$$(id -u)" = 0 && \
	  timeout 60 apt-get -qq -o Acquire::Retries=0 -o Acquire::http::Timeout=10 update && DEBIAN_FRONTEND=noninteractive \
	  timeout 180 apt-get -qq -o Acquire::http::Timeout=20 install --yes --no-install-recommends chromium chromium-driver >/dev/null; }

check: $(STAMP) ## Lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## Format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## Measure beside the peers and write docs/benchmarks.md; BENCH_ARGS="--size medium --parts run ..."
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	@$(MAKE) --no-print-directory bench-peers
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

bench-peers: # those that pip cannot install beside the rest; what is not to be had is left out of the run
	-@test -x .venv-arcticdb/bin/python || { $(PYTHON) -m venv .venv-arcticdb && .venv-arcticdb/bin/pip install --quiet 'arcticdb>=6.28,<7' 'pyarrow>=26,<27'; }
	-@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { command -v apt-get >/dev/null && test "$$(id -u)" = 0 && \
	  timeout 60 apt-get -qq -o Acquire::Retries=0 -o Acquire::http::Timeout=10 update && DEBIAN_FRONTEND=noninteractive \
	  timeout 180 apt-get -qq -o Acquire::http::Timeout=20 install --yes --no-install-recommends postgresql >/dev/null; }

docs: $(STAMP) ## Write the generated pages of docs/ anew and build the site into site/
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean: ## Remove .venv and all caches; the lake stays
	rm -rf $(VENV) .campaign.jsonl .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
