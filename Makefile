.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Where photos come from: sample, kaggle, oxford-pets, or a folder, zip or tar.
DATA ?= sample
# Parameters of params.yaml to set first, e.g. SET="train.method=finetune train.epochs=3".
SET ?=
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  \033[1m%-12s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(INSTALLED): requirements/dev.lock pyproject.toml
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing the locked dependencies (some minutes, once)"
	@$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements/dev.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: install
install: $(INSTALLED) ## Make .venv with the locked dependencies, once

.PHONY: pipeline
pipeline: $(INSTALLED) ## Run the graph from photos to a bundle; DATA=sample, kaggle, oxford-pets, a folder or zip
	@catsdogs pipeline --data "$(DATA)" $(foreach setting,$(SET),--set "$(setting)")

.PHONY: test
test: $(INSTALLED) ## Run every test
	@tests/run

.PHONY: lint
lint: $(INSTALLED) ## Check style, types and the floors
	@ruff check . && ruff format --check . && mypy && lint-imports

.PHONY: mlflow
mlflow: $(INSTALLED) ## Open MLflow's pages on http://127.0.0.1:5000
	@if [ -n "$$MLFLOW_TRACKING_URI" ]; then echo "MLFLOW_TRACKING_URI names $$MLFLOW_TRACKING_URI: open that"; \
	else mlflow ui --backend-store-uri sqlite:///$(CURDIR)/mlflow.db --host 127.0.0.1 --port 5000; fi

.PHONY: lock
lock: ## Write requirements/ anew from pyproject.toml
	@scripts/lock

.PHONY: kill-series
kill-series: $(INSTALLED) ## Kill every stage ten times at seeded moments; the end must be the same (some minutes)
	@python scripts/kill_series.py
