# On a fresh machine: `make run` serves, `make test` checks. `make help` tells the rest.

SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NODE_READY := node_modules/.ready

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test token bench lint screenshots lock clean

help: ## Show this list
	@awk -F ': .*## ' '/^[a-z]+:.*## /{printf "%-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(READY) ## Run the service on an embedded Postgres
	@exec $(BIN)/python -m app.dev.run var

test: $(READY) $(NODE_READY) lint ## Run the linters and every test
	@$(BIN)/python -m pytest -n 2 --cov --cov-report=term

token: $(READY) ## Print a development token; UNIT=unit_emea make token for another unit
	@$(BIN)/python -m app.dev.token var

bench: $(READY) ## Measure /verify with wrk, and write var/bench.json
	@$(BIN)/python -m bench.verify

lint: $(READY) ## Check style, types and who imports whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

screenshots: $(READY) ## Take the pictures of the docs page anew, in docs/img
	@SCREENSHOTS=1 $(BIN)/python -m pytest -q tests/browser -k screenshots

lock: $(READY) ## Bring the locked dependencies up to date with setup.cfg
	@$(BIN)/pip-compile --output-file requirements/production.txt setup.cfg
	@$(BIN)/pip-compile --extra dev --output-file requirements/development.txt setup.cfg

clean: ## Remove the virtual environment, the data and the caches
	rm -rf $(VENV) node_modules var .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# Set-up talks on standard error, so that standard output stays a target's own.
$(READY): requirements/development.txt setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: PYTHON=python3.12 make …")'
	@echo "Installing into $(VENV) …" >&2
	@$(PYTHON) -m venv --clear $(VENV) >&2
	@$(BIN)/pip install -qq --disable-pip-version-check --require-hashes -r $< >&2
	@$(BIN)/pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e . >&2
	@touch $@

# Without npm, the tests that need its tools are skipped, and say so.
$(NODE_READY): package.json package-lock.json .npmrc
	@if command -v npm >/dev/null; then \
	  echo "Installing into node_modules …" >&2; \
	  npm ci --loglevel=error >/dev/null && touch $@; \
	fi
