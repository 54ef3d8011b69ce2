PYTHON ?= $(shell command -v python3.11 || command -v python3)
PORT ?= 3000
PIP_VERSION := 26.1
DATA ?= data/3dshapes.h5
RUN ?= runs/shapes3d_beta_tcvae
PROTO := service/protos/misfit/v1/misfit.proto

# Two environments: .venv serves and never has torch; .venv-train has everything.
SERVE := .venv/bin
TRAIN := .venv-train/bin
INSTALL := -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

export BENTOML_DO_NOT_TRACK := true

.DEFAULT_GOAL := help
.PHONY: help serve test check protos test-service test-all benchmark grpc-soak example data train results bundle clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

serve: .venv/installed  ## serve the shipped bundle on port 3000 (PORT=3100 changes it, MISFIT_BUNDLE=... the bundle)
	$(SERVE)/bentoml serve service.app:Misfit --port $(PORT)

test: check test-service test-all  ## everything: static checks, the service's tests without torch, all tests

check: .venv-train/installed  ## ruff, mypy --strict, import rules
	$(TRAIN)/ruff check .
	$(TRAIN)/ruff format --check .
	$(TRAIN)/mypy
	$(TRAIN)/lint-imports
	$(TRAIN)/buf lint service/protos

protos: .venv/tools  ## generate the gRPC stubs from the proto again
	$(SERVE)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. --grpc_python_out=. $(PROTO)

test-service: .venv/tools  ## the service's tests in an environment without torch
	$(SERVE)/python -c "import importlib.util as u; assert not u.find_spec('torch'), 'torch is installed in .venv'"
	$(SERVE)/pytest -q

test-all: .venv-train/installed  ## what test-service had to leave out: training, export, rendering
	$(TRAIN)/pytest -q --ignore=tests/e2e

benchmark: .venv/tools  ## throughput of /score against the same pipeline in process
	$(SERVE)/python tests/benchmarks/throughput.py

grpc-soak: .venv/tools  ## memory that a gRPC stream of 100,000 images takes (some minutes)
	$(SERVE)/python tests/benchmarks/grpc_soak.py

example: .venv/tools  ## the README's pictures, made by its commands, into train/results/example
	$(SERVE)/python tests/example.py

data: $(DATA)  ## render 3D Shapes (all 480,000 images) to DATA

$(DATA): | .venv-train/installed
	$(TRAIN)/python -m train render shapes3d --out $@

train: .venv-train/installed $(DATA)  ## train, evaluate and draw the shipped preset (hours; interrupt and repeat freely)
	$(TRAIN)/python -m train run shapes3d_beta_tcvae --seed 1 --data $(DATA) --out $(RUN) --resume

results: .venv-train/installed  ## keep the measured results and figures of RUN in train/results
	mkdir -p train/results/$(notdir $(RUN))
	cp $(RUN)/config.json $(RUN)/evaluation.json $(RUN)/metrics.jsonl $(RUN)/figures/*.png train/results/$(notdir $(RUN))
	$(TRAIN)/python -m train results $(RUN)
	$(TRAIN)/python -m train page

bundle: .venv-train/installed  ## export RUN as the bundle that ships
	$(TRAIN)/python -m export $(RUN) --out service/bundles/shapes3d

clean:  ## remove both environments and every cache
	rm -rf .venv .venv-train .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(SERVE)/python -m pip install --quiet --disable-pip-version-check pip==$(PIP_VERSION)
	$(SERVE)/python $(INSTALL) --editable .
	touch $@

.venv/tools: .venv/installed
	$(SERVE)/python $(INSTALL) --group dev
	touch $@

.venv-train/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-train
	$(TRAIN)/python -m pip install --quiet --disable-pip-version-check pip==$(PIP_VERSION)
	$(TRAIN)/python $(INSTALL) --editable ".[train]" --group dev
	touch $@
