# On a fresh machine, `make run` serves and `make test` tests. `make help` lists all targets.

SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_READY := $(VENV)/.run-ready
READY := $(VENV)/.ready
NODE_READY := node_modules/.ready
TOOLS := var/tools
TOOLS_READY := $(TOOLS)/.ready

# `make check` runs these: fast tests that do not start the service.
UNIT_TESTS := tests/credentials tests/identity tests/api/http tests/packaging \
  tests/test_settings.py tests/test_logs.py tests/test_equivalent_mutants.py \
  $(addprefix --ignore=tests/credentials/test_,stateful.py background.py races.py)

# Tests of one file may share an image, or a role of the Postgres server, so one process runs a file.
DIST := -n 2 --dist loadfile

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run env token test test-long coverage check bench bench-page drill soak cluster cluster-drill lint fmt mutants lighthouse screenshots tools sbom audit lock lock-check clean

help: ## Show this list
	@awk -F ': .*## ' '/^[a-z-]+:.*## /{printf "%-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(RUN_READY) ## Run the service on an embedded Postgres; UNIT=unit_emea make run for another unit
	@exec $(BIN)/python -m app.dev.run var

env: $(RUN_READY) ## Print the settings that `credentials` needs for a running service: eval "$(make env)"
	@$(BIN)/python -m app.dev.env var

token: $(RUN_READY) ## Print a development token; UNIT=unit_emea make token for another unit
	@$(BIN)/python -m app.dev.token var

test: $(READY) $(NODE_READY) lint ## Run the linters and every test but the long ones
	@$(BIN)/python -m pytest -n 3 -m 'not long'

test-long: $(READY) $(NODE_READY) $(TOOLS_READY) ## Run the long tests: proxies, cluster, image, clients
	@$(BIN)/python -m pytest $(DIST) -m long

coverage: $(READY) $(NODE_READY) ## Run every test and show the lines that no test runs, in eight minutes
	@$(BIN)/python -m pytest $(DIST) --cov --cov-report=term

check: $(READY) lint ## Run the linters and the fast tests, in about 25 s
	@$(BIN)/python -m pytest -q -n 3 -m 'not long' $(UNIT_TESTS)

bench: $(READY) ## Measure speed, and write var/bench.json; QUICK=1 for three minutes, FULL=1 for all, BEFORE=../other to compare versions
	@$(BIN)/python -m bench

bench-page: $(READY) ## Refresh the tables in docs/benchmarks.md from var/bench.json
	@$(BIN)/python -m bench.page

drill: $(READY) ## Break things on purpose, and write var/drill.json; ROOT=… drills another checkout
	@$(BIN)/python -m drills $(if $(ROOT),--root $(ROOT))

soak: $(READY) ## Check random operations under faults for MINUTES=60, and what grows; SEED=7 chooses
	@$(BIN)/python -m drills.history $(if $(MINUTES),--minutes $(MINUTES))

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

mutants: $(READY) ## Change FILE piece by piece and show which changes no test notices
	@$(BIN)/python -m tools.mutation $(FILE) --tests "$(TESTS)"

lighthouse: $(READY) ## Measure the docs page with Lighthouse; needs Chromium and Node.js
	@npm ci --prefix tools/lighthouse --loglevel=error >/dev/null
	@$(BIN)/python -m tools.page_scores

screenshots: $(READY) ## Refresh the screenshots of the docs page in docs/img
	@SCREENSHOTS=1 $(BIN)/python -m pytest -q tests/browser -k screenshots

tools: $(TOOLS_READY) ## Install the proxies and linters that tests of examples/ and deploy/ run (700 MB)

sbom: $(TOOLS_READY) ## Write var/sbom.json: the service's packages and their licences (CycloneDX)
	@$(PYTHON) -m venv --clear --without-pip var/sbom
	@$(TOOLS)/bin/pip --python var/sbom install -qq --require-hashes -r requirements/production.txt
	@rm -rf build
	@$(TOOLS)/bin/pip wheel -qq --no-build-isolation --no-deps --wheel-dir var/sbom/wheels .
	@$(TOOLS)/bin/pip --python var/sbom install -qq --no-deps var/sbom/wheels/*.whl
	@$(TOOLS)/bin/cyclonedx-py environment --output-reproducible --output-file var/sbom.json var/sbom

audit: $(READY) $(TOOLS_READY) ## Look for known vulnerabilities in the locked dependencies; needs npm
	@$(BIN)/python -m tools.audit

lock: $(READY) ## Renew the locked dependencies from setup.cfg, and those of the benchmark's peers
	@$(BIN)/pip-compile --output-file requirements/production.txt setup.cfg
	@$(BIN)/pip-compile --extra run --constraint requirements/production.txt \
	  --output-file requirements/run.txt setup.cfg
	@$(BIN)/pip-compile --extra run --extra dev --constraint requirements/run.txt \
	  --output-file requirements/development.txt setup.cfg
	@$(BIN)/pip-compile --output-file requirements/build.txt requirements/build.in
	@$(BIN)/pip-compile --output-file requirements/tools.txt requirements/tools.in
	@for peer in drf_api_key django_oauth_toolkit; do \
	  $(BIN)/pip-compile --output-file bench/peers/$$peer/requirements.txt bench/peers/$$peer/requirements.in; \
	done

lock-check: $(READY) ## Check the locks: current, and with wheels for every platform
	@$(BIN)/python -m tools.lock_check

clean: ## Remove the virtual environment, the data and the caches
	rm -rf $(VENV) node_modules var .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# $(call step,words,command) prints the words, runs the command, and prints how many seconds it took.
# Set-up prints to standard error, so that a target's standard output contains nothing else.
step = printf '%s …' '$(1)' >&2; started=$$(date +%s); $(2) >&2 || { echo >&2; exit 1; }; \
  echo " $$(($$(date +%s) - started)) s" >&2

# pip compiles nothing: Python does, once it imports a module, and most are never imported.
PIP_INSTALL := $(BIN)/pip install -qq --disable-pip-version-check --no-compile

$(RUN_READY): requirements/run.txt setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: PYTHON=python3.12 make …")'
	@$(call step,Making a virtual environment in $(VENV),$(PYTHON) -m venv --clear $(VENV))
	@$(call step,Installing the service and an embedded Postgres (140 MB),$(PIP_INSTALL) --require-hashes -r $<)
	@$(call step,Installing the command credentials,$(PIP_INSTALL) --no-deps --no-build-isolation -e .)
	@touch $@

$(READY): $(RUN_READY) requirements/development.txt
	@$(call step,Installing the development tools (300 MB),$(PIP_INSTALL) --require-hashes -r requirements/development.txt)
	@touch $@

$(TOOLS_READY): requirements/tools.txt
	@echo "Installing into $(TOOLS) …" >&2
	@$(PYTHON) -m venv --clear $(TOOLS) >&2
	@$(TOOLS)/bin/pip install -qq --disable-pip-version-check --require-hashes -r $< >&2
	@touch $@

# Without npm, the tests that need its tools are skipped, with a message.
$(NODE_READY): package.json package-lock.json .npmrc
	@if command -v npm >/dev/null; then \
	  echo "Installing into node_modules …" >&2; \
	  npm ci --loglevel=error >/dev/null && touch $@; \
	fi
