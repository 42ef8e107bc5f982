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

.PHONY: help setup demo test test-long test-unit test-contracts test-integration test-acceptance test-architecture test-mlx \
	test-litellm test-llamacpp test-slurm coverage chaos bench bench-batches bench-growth bench-pool lint format lock clean FORCE

help: ## show this list
	@echo 'usage: make TARGET [PYTHON=path/of/a/python3]'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' Makefile

setup: .venv/.dev ## make .venv with everything for running and developing

demo: .venv/.checkout ## run the demo on an embedded Postgres and Valkey; needs no key and no server
	@$(BIN)/python -m examples.demo

test: lint mlx-if-it-installs packages-if-they-install ## lint, then every test but the long ones
	$(PYTEST) -m 'not long'

test-long: .venv/.dev packages-if-they-install ## the tests that take minutes: RabbitMQ, poison, deaths that are waited out, a fleet at its limits
	$(PYTEST) tests/acceptance -m long

test-unit: .venv/.dev ## the tests that need no server
	$(PYTEST) tests/unit

test-contracts: .venv/.dev ## one set of tests on every implementation of a seam
	$(PYTEST) tests/contracts

test-integration: .venv/.dev ## the tests on a real Postgres and Valkey
	$(PYTEST) tests/integration

test-acceptance: .venv/.dev packages-if-they-install ## the tests on whole processes, which they also kill
	$(PYTEST) tests/acceptance

test-architecture: .venv/.dev ## the guides on functions, files, imports and text
	$(PYTEST) tests/architecture

test-mlx: .venv/.dev mlx-if-it-installs ## the tests on a real model server, mlx_lm.server
	$(PYTEST) tests/mlx

test-litellm: .venv-litellm/.checkout ## the tests on the real LiteLLM, in an environment of its own
	.venv-litellm/bin/python -m pytest tests/litellm

test-llamacpp: .venv-llamacpp/.checkout ## the tests on a real llama_cpp.server, which is compiled first (7 minutes)
	.venv-llamacpp/bin/python -m pytest tests/llamacpp

coverage: .venv/.dev ## what of the pool its tests run, line by line; fails below 80 % (2 minutes)
	$(BIN)/python -m coverage run --source=llm_pool -m pytest -q tests/unit/llm_pool tests/contracts
	$(BIN)/python -m coverage report --skip-covered --fail-under=80

test-slurm: .venv/.dev ## the tests of a fleet on a real Slurm, started on this host (5 minutes)
	@scripts/install_packages slurm-wlm munge
	LLMYARD_TEST_SLURM=1 $(PYTEST) tests/slurm -s

chaos: .venv/.dev packages-if-they-install ## the fault bench: kills, cuts and floods, counted from outside (15 minutes; LONG=1 hours; ROWS=1,5; WRITE=1)
	$(BIN)/python -m benchmarks.chaos $(if $(LONG),--long) $(if $(LENIENT),--lenient) $(if $(ROWS),--rows $(ROWS)) $(if $(WRITE),--write docs/chaos.md)

bench: .venv/.dev ## ours beside other queues on the same job; writes docs/benchmarks.md (15 minutes; SHORT=1; ONLY=ours,taskiq SCENARIOS=1,2)
	$(BIN)/python -m benchmarks.throughput $(if $(SHORT),--short) $(if $(ONLY),--only $(ONLY)) $(if $(SCENARIOS),--scenarios $(SCENARIOS)) $(if $(SHORT)$(ONLY)$(SCENARIOS),,--write docs)

bench-batches: .venv/.dev ## a batch from file to file, undisturbed and with everybody killed; writes the table (10 minutes; SHORT=1; LINES=20000)
	$(BIN)/python -m benchmarks.batches $(if $(SHORT),--short) $(if $(LINES),--lines $(LINES)) $(if $(SHORT)$(LINES),,--write docs/benchmarks-batches.md)

bench-growth: .venv/.dev ## growth with backlog and calls in flight, start-up, idle cost; writes the table (10 minutes; SHORT=1)
	$(BIN)/python -m benchmarks.growth $(if $(SHORT),--short,--write docs/benchmarks-growth.md) $(if $(PARTS),--parts $(PARTS))

bench-pool: .venv/.dev .venv-litellm/.checkout ## what a call through the pool costs, beside LiteLLM; writes the table
	$(BIN)/python -m benchmarks.pool_cost --peer-python .venv-litellm/bin/python --write docs/benchmarks-pool.md

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
	$(COMPILE) $(UPGRADE) pyproject.toml --group litellm -o requirements/litellm.txt
	$(COMPILE) $(UPGRADE) pyproject.toml --group llamacpp -c requirements/run.txt -o requirements/llamacpp.txt
	for each in requirements/peers/*.in; do $(COMPILE) $(UPGRADE) $$each -o $${each%.in}.txt || exit 1; done

clean: ## remove .venv and every cache
	rm -rf .venv .venv-litellm .venv-llamacpp .venv-peers .demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage dist
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

# A broker, and a model checker with the compiler it needs, for tests that skip without them.
.PHONY: packages-if-they-install
packages-if-they-install:
	@scripts/install_packages rabbitmq-server spin gcc libc6-dev

# Environments beside the main one, for what cannot live in it.
.venv-%/.checkout: requirements/%.txt pyproject.toml .venv/.made
	@echo 'Making .venv-$* (requirements/$*.txt)'
	@$(BIN)/python -m venv .venv-$*
	@.venv-$*/bin/python -m pip --disable-pip-version-check install --quiet --progress-bar off \
		--require-hashes -r requirements/$*.txt
	@.venv-$*/bin/python -m pip --disable-pip-version-check install --quiet --progress-bar off \
		--no-deps --no-build-isolation --editable .
	@touch $@
