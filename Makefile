# Two commands do everything: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DATA ?= data

.PHONY: help setup demo test lint proto lock bench scaling quality compare up mesh clean check-compose check-chart check-kubernetes check-nats check-milvus chart-goldens
help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-17s %s\n", $$1, $$2}'

setup: $(READY) ## Make .venv and install the locked packages.

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Forage needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.12 ...")'
	@echo "Setting up $(VENV) (about 250 MB of packages, 1 to 3 minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## Import the films, start the mesh, and show the whole loop (ONCE=1 ends by itself).
	@$(BIN)/python -m forage.demo --data $(DATA) $(if $(ONCE),--once)

up: $(READY) ## Start the seven services and watch them; Ctrl-C stops them.
	@$(BIN)/forage up --data $(DATA)

test: $(READY) ## Run the default test suite (about 5 minutes on two cores).
	@$(BIN)/python -m pytest -n 2 -q -m "not slow" $(ARGS)

mesh: $(READY) ## Run the slow tests: whole-demo runs, kills under load, rebuilds.
	@$(BIN)/python -m pytest -q -m slow $(ARGS)

lint: $(READY) ## Check style, imports, types and protos.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/buf lint
	@$(BIN)/buf format --diff --exit-code
	@$(BIN)/mypy

proto: $(READY) ## Regenerate the stubs in forage/v1 from protos/.
	@PATH=$(BIN):$$PATH $(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=. --grpc_python_out=. \
	  --mypy_out=quiet:. --mypy_grpc_out=quiet:. protos/forage/v1/*.proto

lock: $(READY) ## Resolve pyproject.toml again into requirements.lock.
	@$(BIN)/uv pip compile pyproject.toml --extra evaluate --group dev --universal --python-version 3.11 \
	  --prerelease=if-necessary-or-explicit --no-header --no-annotate --generate-hashes --no-emit-index-url \
	  --quiet -o requirements.lock
	@$(BIN)/uv pip compile pyproject.toml --extra all --universal --python-version 3.11 -c requirements.lock \
	  --prerelease=if-necessary-or-explicit --no-header --no-annotate --generate-hashes --no-emit-index-url \
	  --quiet -o requirements.runtime.lock
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml","rb"))["build-system"]["requires"], sep="\n")' \
	  | $(BIN)/uv pip compile - -c requirements.lock --universal --python-version 3.11 --no-header --no-annotate \
	  --generate-hashes --no-emit-index-url --quiet -o requirements.build.lock

check-nats: $(READY) ## Test the NATS engine on real servers: promises, faults, copies, the mesh.
	@PYTHON=$(BIN)/python deploy/check_engine.sh nats $(ARGS)

check-milvus: $(READY) ## Test the semantic generator on a real Milvus server: contract, faults, start-up errors.
	@PYTHON=$(BIN)/python deploy/check_engine.sh milvus $(ARGS)

check-compose: $(READY) ## Build the images, run the whole stack: import, search, trace, kill, restart (FORAGE_LOCAL_IMAGES=1 pulls none).
	@FORAGE=$(BIN)/forage deploy/check_compose.sh

check-chart: $(READY) ## Lint, render, validate and scan the chart (needs helm, or FORAGE_HELM).
	@PYTHON=$(BIN)/python deploy/check_chart.sh

check-kubernetes: ## Dry-run, install, upgrade and roll back the chart (KUBECONFIG, or FORAGE_KUBE_APISERVER).
	@deploy/check_kubernetes.sh

chart-goldens: ## Render the chart's examples again, after any change in config/.
	@deploy/render_examples.sh helm/forage/examples

bench: $(READY) ## Measure speed and memory on the demo catalogue, and say where the time goes.
	@$(BIN)/python -m bench --data $(DATA)

scaling: $(READY) ## Measure how cost grows with the catalogue (ITEMS=10000).
	@$(BIN)/python -m bench.scaling --items $(or $(ITEMS),10000) --work $(DATA)/scaling

quality: $(READY) ## Measure quality on the judged collections and write docs/quality.md (45 minutes on two cores).
	@$(BIN)/python -m evaluation.report --work $(DATA)/quality

compare: $(READY) ## Install the peers (LightGBM, MABWiser, Vowpal Wabbit) and simulate with them.
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml","rb"))["dependency-groups"]["compare"], sep="\n")' \
	  | $(BIN)/uv pip install --quiet --python $(BIN)/python -r -
	@$(BIN)/forage simulate --cache $(DATA)/quality/scenes --out $(DATA)/compare

clean: ## Remove the virtual environment and the demo's data.
	@rm -rf $(VENV) $(DATA)
