# What people run and what CI runs are the same few targets. `make` lists them.
# Everything heavy is made once by hack/bootstrap.py, outside the work tree; no root, no activation.

PYTHON ?= python3
VENV   := $(shell $(PYTHON) hack/bootstrap.py env venv)
BIN    := $(VENV)/bin
RUN    := PYTHONPATH=$(CURDIR):$(CURDIR)/operator:$(CURDIR)/trainer_image $(BIN)/python
HELM   := $(shell $(PYTHON) hack/bootstrap.py env helm)
PYTEST  = $(RUN) -m pytest $(PYTEST_ARGS)

# One thread per process: ranks and test workers share the machine's cores.
export OMP_NUM_THREADS ?= 1
export PYTHONDONTWRITEBYTECODE ?= 1

.DEFAULT_GOAL := help
.PHONY: help bootstrap venv check format generate lock test test-unit test-trainer test-cluster \
        test-image test-all mutants bench-operator quickstart cluster-up cluster-down clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

bootstrap: ## Check this machine; make environment, helm and cluster binary (minutes, once)
	@$(PYTHON) hack/bootstrap.py all

venv:
	@$(PYTHON) hack/bootstrap.py venv

check: venv ## Format, lint, types, layers, generated files, chart
	@$(PYTHON) hack/bootstrap.py helm
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=operator:trainer_image $(BIN)/lint-imports --no-logo
	$(RUN) -m tunewright.api.crd --check
	$(HELM) lint --strict --quiet charts/tunewright

format: venv ## Format and mend what can be mended
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

generate: venv ## Write crds/, the chart's copy and the reference page anew from the API's models
	$(RUN) -m tunewright.api.crd

lock: venv ## Resolve pyproject.toml anew into the requirements locks
	$(RUN) -m hack.lock

test: bootstrap ## All tests but the long sweeps: what CI runs
	$(PYTEST) -m "not slow and not image" tests

test-unit: bootstrap ## Pure tests and the chart, seconds
	$(PYTEST) tests/unit

test-trainer: venv ## Trainer tests on CPU: tiny models, real DeepSpeed ranks
	$(PYTEST) -m "not slow" tests/trainer

test-cluster: bootstrap ## Tests of and on the development cluster
	$(PYTEST) -m "not slow" tests/devcluster tests/cluster

test-image: bootstrap ## Run the Dockerfiles' steps in a debootstrap root (root, minutes)
	$(PYTEST) tests/images

test-all: bootstrap ## Every test, the long sweeps included
	$(PYTEST) tests

mutants: bootstrap ## Break the core on purpose, patch by patch; each must turn a test red
	$(RUN) -m hack.mutants

bench-operator: bootstrap ## Measure the operator on a real API server; see docs/benchmarks.md
	$(RUN) -m bench.operator

quickstart: bootstrap ## From apply to a tuned adapter on this machine, without Docker or GPU
	@$(RUN) -m hack.quickstart

cluster-up: bootstrap ## Start the development cluster in .devcluster
	@$(RUN) -m hack.devcluster up

cluster-down: ## Stop the development cluster
	@$(RUN) -m hack.devcluster down

clean: ## Remove what tools left in the work tree (the cache folder stays)
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
