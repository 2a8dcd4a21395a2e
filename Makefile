# Everything a contributor runs.  `make` alone lists the targets.
PYTHON := .venv/bin/python

# Idle threads must sleep: two spinning thread pools on few cores run tens of times slower.
export OMP_WAIT_POLICY := PASSIVE
export GOMP_SPINCOUNT := 0

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup libero openpi fix lint types imports test demo bench mutants ci clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

setup: .venv/.ready ## the environment in .venv; instant when pyproject.toml has not changed

.venv/.ready: pyproject.toml scripts/setup.sh
	sh scripts/setup.sh package
	@touch $@

libero: .venv/.libero ## the LIBERO simulator and its renderer (optional)

.venv/.libero: .venv/.ready
	sh scripts/setup.sh libero
	@touch $@

openpi: .venv-openpi/.ready ## PyPI's robot client in an environment of its own, for tests (optional)

.venv-openpi/.ready: .venv/.ready
	$(PYTHON) -m venv .venv-openpi
	@.venv-openpi/bin/pip install --quiet openpi-client==0.1.2 typing_extensions && touch $@ || \
		{ rm -rf .venv-openpi; echo "openpi-client could not be installed: its test will skip"; }

fix: setup ## format, and repair what ruff can repair
	$(PYTHON) -m ruff check --fix-only --quiet .
	$(PYTHON) -m ruff format .

lint: setup ## style
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types: setup ## mypy --strict
	$(PYTHON) -m mypy

imports: setup ## the layers of the package
	.venv/bin/lint-imports --no-cache

test: setup ## every test, slow ones too, some at a time
	$(PYTHON) -m pytest -n auto --maxprocesses 4 --dist worksteal

demo: setup ## warm-up, LAPO, evaluation and report on the embedded world
	.venv/bin/lastr1 demo

bench: setup ## speed on this machine (numbers, no verdict)
	@for name in envs policy decide update; do echo "== $$name"; $(PYTHON) -m benchmarks.$$name || exit 1; done

mutants: setup ## plant known faults; the tests must notice each
	$(PYTHON) scripts/mutants.py

ci: setup libero openpi lint types imports test mutants ## what every commit must pass

clean: ## caches and builds; .venv and runs stay
	rm -rf dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find lastr1 tests scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
