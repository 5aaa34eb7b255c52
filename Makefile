# `make demo` and `make test` need nothing but Python 3.11 or newer, a C library and a network for pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := build/demo
# More flags for pytest, such as PYTEST_FLAGS='-k kill -x'.
PYTEST_FLAGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo demo-containers cloud test test-real-speech bench lint types lock pipelines clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Each stamp is newer than what its environment was made from.
$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python %d.%d is too old: 3.11 or newer is needed" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

RUN_REQUIREMENTS := $(addprefix env/requirements-,$(addsuffix .txt,feature-extractor train evaluate))
$(VENV)/.run-ready: $(RUN_REQUIREMENTS) pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet $(addprefix --requirement ,$(RUN_REQUIREMENTS))
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/.cloud-ready: env/requirements-pipelines.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --requirement $<
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/.test-ready: env/requirements-dev.txt $(VENV)/.run-ready
	$(BIN)/python -m pip install --quiet --requirement env/requirements-dev.txt
	touch $@

demo: $(VENV)/.run-ready ## extract, train and evaluate on the bundled real speech; print EER, minDCF, the report
	components/feature-extractor/run_local.sh --audio data/samples --list data/samples/train_list.txt \
	  --speed 0.9,1.1 --output $(DEMO)/features/train
	components/feature-extractor/run_local.sh --audio data/samples --list data/samples/test_list.txt \
	  --output $(DEMO)/features/test
	for fold in train test; do $(BIN)/voxsrc features verify $(DEMO)/features/$$fold || exit 1; done
	$(BIN)/voxsrc features info $(DEMO)/features/train
	components/train/run_local.sh --recipe demo --features $(DEMO)/features/train --output $(DEMO)/training
	components/evaluate/run_local.sh --model $(DEMO)/training/model --features $(DEMO)/features/test \
	  --audio data/samples --trials data/samples/test_trials.txt --output $(DEMO)/evaluation

demo-containers: ## the same by the train pipeline, in containers that are built first; needs Docker
	common/containers/run_demo.sh

cloud: $(VENV)/.cloud-ready ## make the environment for voxsrc pipeline and voxceleb-data: small, without PyTorch

test: $(VENV)/.test-ready ## run the default tests (CPU, no network, a few minutes)
	$(BIN)/python -m pytest --numprocesses=2 --dist=worksteal $(PYTEST_FLAGS)

test-real-speech: $(VENV)/.test-ready ## run the tests on recorded speech
	$(BIN)/python -m pytest -m real_speech $(PYTEST_FLAGS)

bench: $(VENV)/.test-ready ## measure extraction, training and evaluation beside the usual way (needs ffmpeg and pigz)
	$(BIN)/python tests/benchmarks/extraction.py --json build/extraction.json
	$(BIN)/python tests/benchmarks/training.py --json build/training.json
	$(BIN)/python tests/benchmarks/evaluation.py --json build/evaluation.json

lint: $(VENV)/.test-ready ## ruff, ShellCheck, yamllint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	git ls-files -z '*.sh' .ci/run | xargs -0 shellcheck
	$(BIN)/yamllint --strict .

types: $(VENV)/.test-ready ## mypy, strict
	$(BIN)/mypy

lock: $(VENV)/.test-ready ## renew the pinned requirements in env/
	env/lock.sh

pipelines: $(VENV)/.test-ready ## compile the Kubeflow components and pipelines anew
	$(BIN)/python -m voxsrc.pipelines.compile

clean: ## delete what make made
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
