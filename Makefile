# Everything is set up by the target that needs it: .venv comes from the hashed locks in requirements/, with venv and pip
# alone, and is touched again only when a lock changes. Works with the make of macOS (3.81) and with -j.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHONS := $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --progress-bar off
PYTEST := $(BIN)/python -m pytest
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock"

.PHONY: help setup demo test test-unit test-contracts test-integration test-acceptance test-architecture test-mlx \
	lint format lock clean FORCE

help: ## show this list
	@echo 'usage: make TARGET [PYTHON=path/of/a/python3]'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' Makefile

setup: .venv/.dev ## make .venv with everything for running and developing

demo: .venv/.checkout ## run the demo on an embedded Postgres and Valkey; needs no key and no server
	@$(BIN)/python -m examples.demo

test: lint mlx-if-it-installs ## lint, then every test
	$(PYTEST)

test-unit: .venv/.dev ## the tests that need no server
	$(PYTEST) tests/unit

test-contracts: .venv/.dev ## one set of tests on every implementation of a seam
	$(PYTEST) tests/contracts

test-integration: .venv/.dev ## the tests on a real Postgres and Valkey
	$(PYTEST) tests/integration

test-acceptance: .venv/.dev ## the tests on whole processes, which they also kill
	$(PYTEST) tests/acceptance

test-architecture: .venv/.dev ## the guides on functions, files, imports and text
	$(PYTEST) tests/architecture

test-mlx: .venv/.dev mlx-if-it-installs ## the tests on a real model server, mlx_lm.server
	$(PYTEST) tests/mlx

lint: .venv/.dev ## ruff, mypy and the layers of import-linter
	$(BIN)/python -m ruff check --quiet
	$(BIN)/python -m ruff format --check --quiet
	$(BIN)/python -m mypy --no-error-summary
	$(BIN)/lint-imports --no-logo

format: .venv/.dev ## rewrite the sources as ruff wants them
	$(BIN)/python -m ruff check --fix-only --quiet
	$(BIN)/python -m ruff format

lock: ## renew requirements/ from pyproject.toml (needs uv; UPGRADE=--upgrade takes newer versions)
	$(COMPILE) $(UPGRADE) pyproject.toml --group build -o requirements/run.txt
	$(COMPILE) $(UPGRADE) pyproject.toml --group dev -c requirements/run.txt -o requirements/dev.txt
	$(COMPILE) $(UPGRADE) --group mlx -c requirements/dev.txt -o requirements/mlx.txt

clean: ## remove .venv and every cache
	rm -rf .venv .demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp waits for the one before: two pips in one .venv would undo each other under -j.

.venv/.made:
	@python=$$(scripts/find_python $(PYTHONS)) || exit 1; \
	echo "Making .venv with $$python"; \
	"$$python" -m venv .venv
	@touch $@

.venv/.run: requirements/run.txt .venv/.made
	@echo 'Installing what llmyard runs on (requirements/run.txt)'
	@$(PIP) --require-hashes -r requirements/run.txt
	@touch $@

# The stamp holds the path it was made for: a moved or copied checkout would go on running the old one.
ifneq "$(shell cat .venv/.checkout 2>/dev/null)" "$(CURDIR)"
.venv/.checkout: FORCE
endif
.venv/.checkout: pyproject.toml .venv/.run
	@$(PIP) --no-deps --no-build-isolation --editable .
	@echo '$(CURDIR)' > $@

.venv/.dev: requirements/dev.txt .venv/.checkout
	@echo 'Installing what developing needs (requirements/dev.txt)'
	@$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

# Where mlx has no wheel its tests skip and say why; no stamp then, so that the next run tries again.
.PHONY: mlx-if-it-installs
mlx-if-it-installs: .venv/.dev
	@$(MAKE) --no-print-directory .venv/.mlx \
	|| echo 'mlx cannot be installed here: its tests will be skipped'

.venv/.mlx: requirements/mlx.txt .venv/.dev
	@echo 'Installing a real model server for the tests (requirements/mlx.txt)'
	@$(PIP) --only-binary :all: --require-hashes -r requirements/mlx.txt
	@touch $@
