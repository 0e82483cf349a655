# On a fresh machine, `make run` serves and `make test` tests. `make help` lists all targets.

SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NODE_READY := node_modules/.ready

# `make check` runs these: fast tests that do not start the service.
UNIT_TESTS := tests/credentials tests/identity tests/api/http tests/packaging \
  tests/test_settings.py tests/test_logs.py

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test coverage check token bench charts drill cluster cluster-drill lint fmt wording mutants lighthouse screenshots lock clean

help: ## Show this list
	@awk -F ': .*## ' '/^[a-z-]+:.*## /{printf "%-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(READY) ## Run the service on an embedded Postgres
	@exec $(BIN)/python -m app.dev.run var

test: $(READY) $(NODE_READY) lint ## Run the linters and every test
	@$(BIN)/python -m pytest -n 2

coverage: $(READY) $(NODE_READY) ## Run every test and show the lines that none runs, in eight minutes
	@$(BIN)/python -m pytest -n 2 --cov --cov-report=term

check: $(READY) lint ## Run the linters and the fast tests, in about 25 s
	@$(BIN)/python -m pytest -q -n 2 $(UNIT_TESTS)

token: $(READY) ## Print a development token; UNIT=unit_emea make token for another unit
	@$(BIN)/python -m app.dev.token var

bench: $(READY) ## Measure speed, and write var/bench.json; QUICK=1 for three minutes, FULL=1 for all
	@$(BIN)/python -m bench

charts: $(READY) ## Refresh docs/benchmarks.md and its charts from var/bench.json
	@$(BIN)/python -m bench.charts

drill: $(READY) ## Break things on purpose, and write var/drill.json; ROOT=… drills another checkout
	@$(BIN)/python -m drills $(if $(ROOT),--root $(ROOT))

cluster: $(READY) ## Run three Postgres machines and two instances of the service, until Ctrl-C
	@exec $(BIN)/python -m drills.cluster.run

cluster-drill: $(READY) ## Make the cluster's primary fail, and write var/cluster-drill.json
	@$(BIN)/python -m drills.cluster

lint: $(READY) ## Check style, types and imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fmt: $(READY) ## Format the code, and fix what ruff can fix
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

wording: $(READY) ## Refresh tests/wording.txt after a change of wording
	@UPDATE_WORDING=1 $(BIN)/python -m pytest -q tests/test_wording.py

mutants: $(READY) ## Change FILE line by line and see which changes no test notices
	@$(BIN)/python -m tools.mutants $(FILE) --tests "$(TESTS)"

lighthouse: $(READY) ## Measure the docs page with Lighthouse; needs Chromium and Node.js
	@npm ci --prefix tools/lighthouse --loglevel=error >/dev/null
	@$(BIN)/python -m tools.page_scores

screenshots: $(READY) ## Refresh the screenshots of the docs page in docs/img
	@SCREENSHOTS=1 $(BIN)/python -m pytest -q tests/browser -k screenshots

lock: $(READY) ## Renew the locked dependencies from setup.cfg, and those of the benchmark's peers
	@$(BIN)/pip-compile --output-file requirements/production.txt setup.cfg
	@$(BIN)/pip-compile --extra dev --output-file requirements/development.txt setup.cfg
	@for peer in drf_api_key django_oauth_toolkit; do \
	  $(BIN)/pip-compile --output-file bench/peers/$$peer/requirements.txt bench/peers/$$peer/requirements.in; \
	done

clean: ## Remove the virtual environment, the data and the caches
	rm -rf $(VENV) node_modules var .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# Set-up prints to standard error, so that a target's standard output contains nothing else.
$(READY): requirements/development.txt setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: PYTHON=python3.12 make …")'
	@echo "Installing into $(VENV) …" >&2
	@$(PYTHON) -m venv --clear $(VENV) >&2
	@$(BIN)/pip install -qq --disable-pip-version-check --require-hashes -r $< >&2
	@$(BIN)/pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e . >&2
	@touch $@

# Without npm, the tests that need its tools are skipped, with a message.
$(NODE_READY): package.json package-lock.json .npmrc
	@if command -v npm >/dev/null; then \
	  echo "Installing into node_modules …" >&2; \
	  npm ci --loglevel=error >/dev/null && touch $@; \
	fi
