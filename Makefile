PYTHON ?= $(shell command -v python3.11 || command -v python3)
PORT ?= 3000
PIP_VERSION := 26.1
DATA ?= data/3dshapes.h5
RUN ?= runs/shapes3d_beta_tcvae
DISTILLED ?= runs/shapes3d_distilled
SEEDS ?= 1 2 3
PEERS ?= fastapi litserve mlserver pytriton ray bentoml
PROTO := service/protos/misfit/v1/misfit.proto service/protos/inference/open_inference.proto

# The Bento and its image. Without a docker daemon: buildah, which as root and without a daemon needs no more than chroot.
MISFIT_BUNDLE ?= shapes3d
VARIANT ?= cpu
ifeq ($(filter cpu gpu ray,$(VARIANT)),)
$(error VARIANT is $(VARIANT); there are cpu, gpu and ray)
endif
BENTO := misfit$(if $(filter gpu ray,$(VARIANT)),-$(VARIANT))
IMAGE ?= $(BENTO):0.1.0
ENGINE ?= $(shell docker info >/dev/null 2>&1 && echo docker || echo buildah)
ENGINE_ENV = $(if $(filter buildah,$(ENGINE)),STORAGE_DRIVER=$${STORAGE_DRIVER:-vfs})
ENGINE_OPTIONS = $(if $(filter buildah,$(ENGINE)),--opt network=host --opt isolation=chroot)
KUBECTL = $(shell command -v kubectl || echo .venv/bin/kubectl)
PROMTOOL ?= promtool

# Two environments: .venv serves and never has torch; .venv-train has everything.
SERVE := .venv/bin
TRAIN := .venv-train/bin
INSTALL := -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

export BENTOML_DO_NOT_TRACK := true

.DEFAULT_GOAL := help
.PHONY: help serve test check docs protos test-service test-train bentoml-newest k8s alerts bento image image-test gpu-check client clients pages open-inference faults overload soak fuzz benchmark record train-benchmark peers scale speed-tables ray labelling remote grpc-soak sizing learning worst example data train seeds results bundle distill clean

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

serve: .venv/installed  ## serve the shipped bundle on port 3000 (PORT=3100 changes it, MISFIT_BUNDLE=... the bundle)
	$(SERVE)/bentoml serve service.app:Misfit --port $(PORT)

test: check test-service test-train k8s docs  ## everything: static checks, the service's tests without torch, those that need torch, manifests, links

check: .venv-train/installed  ## ruff, mypy --strict, import rules
	$(TRAIN)/ruff check .
	$(TRAIN)/ruff format --check .
	$(TRAIN)/mypy
	$(TRAIN)/lint-imports
	$(TRAIN)/buf lint service/protos

docs: .venv-docs/installed  ## this documentation as a site in build/docs; broken links end the build
	rm -rf build/pages build/docs && mkdir -p build/pages
	git ls-files --cached --others --exclude-standard '*.md' '*.png' '*.proto' 'service/*.py' 'tests/faults/*.py' 'tests/clients/open_inference/*.py' 'k8s/*.yaml' 'train/results/*.json' LICENSE | \
		tar --create --files-from - | tar --extract --directory build/pages
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

protos: .venv/tools  ## generate the gRPC stubs from the proto again
	$(SERVE)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. --grpc_python_out=. $(PROTO)

test-service: .venv/tools  ## the service's tests in an environment without torch
	$(SERVE)/python -c "import importlib.util as u; assert not u.find_spec('torch'), 'torch is installed in .venv'"
	$(SERVE)/pytest -q

test-train: .venv-train/installed  ## what test-service had to leave out: training, export, rendering
	$(TRAIN)/pytest -q $$(grep -rl importorskip tests/unit tests/contract tests/properties)

# BentoML is upgraded without constraints.txt: where its newest version needs a newer package than is named there, pip
# would take an older BentoML without a word.
bentoml-newest:  ## the tests of a served service with the newest BentoML 1.4 on the index, in an environment of its own
	$(PYTHON) -m venv --clear .venv-bentoml
	.venv-bentoml/bin/python -m pip install --quiet --disable-pip-version-check pip==$(PIP_VERSION)
	grep -v '^bentoml==' constraints.txt >.venv-bentoml/constraints.txt
	.venv-bentoml/bin/python -m pip install --quiet --disable-pip-version-check --constraint .venv-bentoml/constraints.txt \
		--editable . --group dev
	.venv-bentoml/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'bentoml<1.5'
	.venv-bentoml/bin/python -c "from importlib.metadata import version; print('bentoml', version('bentoml'))"
	.venv-bentoml/bin/pytest -q tests/unit/hosting tests/contract/test_workers.py tests/contract/test_recorded.py tests/e2e

record: .venv/tools  ## write the answers on record anew (tests/contract/recorded): look at what git says has changed
	rm -rf tests/contract/recorded && mkdir tests/contract/recorded
	RECORD=1 $(SERVE)/pytest -q tests/contract/test_recorded.py

k8s: .venv/tools .venv-checkov/installed  ## render every overlay into build/k8s and hold it against checkov's policies
	rm -rf build/k8s && mkdir -p build/k8s
	for overlay in k8s/overlays/*; do $(KUBECTL) kustomize $$overlay > build/k8s/$$(basename $$overlay).yaml || exit 1; done
	.venv-checkov/bin/checkov --config-file k8s/checkov.yaml --directory build/k8s

alerts: .venv/tools  ## play the alerts through in promtool (Debian has it in the package prometheus)
	mkdir -p build/alerts
	$(SERVE)/python -c 'import yaml; print(yaml.safe_dump(yaml.safe_load(open("k8s/components/monitoring/alerts.yaml"))["spec"]))' \
		> build/alerts/rules.yaml
	cp k8s/components/monitoring/alerts_test.yaml build/alerts
	$(PROMTOOL) check rules build/alerts/rules.yaml
	$(PROMTOOL) test rules build/alerts/alerts_test.yaml

bento: .venv/tools  ## build a Bento with the bundle that MISFIT_BUNDLE names (VARIANT=gpu: with the CUDA libraries; ray: with Ray)
	@test -f "service/bundles/$(MISFIT_BUNDLE)/manifest.json" || \
		{ echo "There is no bundle service/bundles/$(MISFIT_BUNDLE): export one there (python -m export)."; exit 1; }
	mkdir -p build
	$(SERVE)/uv pip compile --quiet pyproject.toml --constraint constraints.txt --universal \
		$(if $(filter gpu,$(VARIANT)),--extra cuda,--override k8s/cpu-image.txt) \
		$(if $(filter ray,$(VARIANT)),--extra ray) --python-version 3.11 \
		--generate-hashes --no-annotate --no-header --output-file build/requirements.txt
	sed 's/shapes3d/$(MISFIT_BUNDLE)/; s/^name: misfit$$/name: $(BENTO)/' bentofile.yaml > build/bentofile.yaml
	$(SERVE)/bentoml build --bentofile build/bentofile.yaml .

image: bento  ## an image of it, by docker or, where there is no docker, buildah (IMAGE=... names it)
	$(ENGINE_ENV) $(SERVE)/bentoml containerize $(BENTO):latest --backend $(ENGINE) --image-tag $(IMAGE) $(ENGINE_OPTIONS)
	@echo "$(IMAGE) is in the store of $(ENGINE), and published nowhere: docs/deployment.md says how."

image-test: image  ## run the image as the pods do - not root, read-only - and score the sample batch by HTTP and gRPC
	$(ENGINE_ENV) PYTHONPATH=tests/support $(SERVE)/python tests/tools/container_image.py $(ENGINE) $(IMAGE) $(if $(OUT),--out $(OUT))

gpu-check: .venv-train/installed  ## does a GPU compute what the CPU does, and how fast: networks, a training step (under six minutes)
	$(TRAIN)/python tests/benchmarks/gpu_check.py $(GPU_CHECK)

client: .venv/tools  ## the Python client's own wheel in dist/, installed by itself and tried in another project
	PYTHONPATH=tests/support $(SERVE)/python tests/tools/client_distribution.py

clients: .venv/tools .venv-clients/installed  ## generate TypeScript, Python and Go clients, compile them, call the service with each
	PYTHONPATH=tests/support $(SERVE)/python tests/tools/clients.py $(CLIENTS)

pages: .venv/tools tests/pages/node_modules/.package-lock.json  ## the web page, reports and Swagger UI in headless Chromium, and their JavaScript type-checked (SHOTS=FOLDER keeps pictures)
	tests/pages/node_modules/.bin/tsc --project tests/pages
	PYTHONPATH=. $(SERVE)/python tests/tools/pages.py

ray: .venv-ray/installed  ## scoring on a Ray cluster of this machine: the numbers of a request, and whoever is killed (some minutes)
	.venv-ray/bin/pytest -q tests/ray

labelling: .venv/tools .venv-labelling/installed  ## what misfit convert writes, read by FiftyOne, Label Studio's SDK and Datumaro
	rm -rf build/labelling && mkdir -p build/labelling
	$(SERVE)/python -m zipfile -e tests/data/shapes3d_batch.zip build/labelling/batch
	$(SERVE)/misfit explain build/labelling/batch --maps build/labelling/maps --out build/labelling/scores.jsonl --quiet --show 0
	$(SERVE)/misfit convert build/labelling/scores.jsonl --to fiftyone --maps build/labelling/maps --out build/labelling/fiftyone
	$(SERVE)/misfit convert build/labelling/scores.jsonl --to label-studio --root build/labelling --out build/labelling/tasks.json
	$(SERVE)/misfit convert build/labelling/scores.jsonl --to cvat --out build/labelling/annotations.xml
	.venv-labelling/bin/python tests/tools/labelling_tools.py build/labelling

remote: .venv-remote/installed  ## misfit scores images in a bucket of S3, and finds the file systems of gs://, az:// and hf://
	.venv-remote/bin/pytest -q tests/remote

open-inference: .venv/tools .venv-mlserver/installed .venv-kserve/installed  ## call the service with Triton's, KServe's and MLServer's clients and curl, and time them
	PYTHONPATH=.:tests/support $(SERVE)/python tests/tools/open_inference.py

faults: .venv/tools .venv-schemathesis/installed  ## processes killed, bad clients, spoiled inputs, schemathesis, overload: attacks: a table (some 20 minutes)
	$(SERVE)/pytest -q tests/faults --ignore=tests/faults/test_soak.py

overload: .venv/tools  ## five times the capacity for a minute, small requests beside a huge one
	$(SERVE)/pytest -q -s tests/faults/test_overload.py

soak: .venv/tools  ## ten minutes of everything at once: memory, descriptors and temporary files stay flat
	$(SERVE)/pytest -q -s -o faulthandler_timeout=7200 tests/faults/test_soak.py

fuzz: .venv/tools  ## 120,000 spoiled images, bodies, contexts and options (half an hour)
	$(SERVE)/pytest -q --hypothesis-profile=fuzz --show-capture=no -o faulthandler_timeout=7200 \
		tests/properties/test_reading_properties.py tests/properties/test_context_fuzz.py tests/properties/test_options_fuzz.py \
		tests/properties/test_open_inference_fuzz.py

sizing: .venv/tools  ## CPU and memory that an image takes, for the size of pods
	$(SERVE)/python tests/benchmarks/sizing.py $(if $(OUT),--out $(OUT))

benchmark: .venv/tools  ## throughput of /score against the same pipeline in process
	$(SERVE)/python tests/benchmarks/throughput.py

peers: .venv/tools $(PEERS:%=.venv-peers/%/installed)  ## CPU, images/s and waits beside other servers of the same encoder: a table (half an hour)
	PYTHONPATH=. $(SERVE)/python tests/benchmarks/peers/compare.py --in-process --peers $(PEERS) $(if $(OUT),--out $(OUT))

scale: .venv/tools  ## CPU, images/s and waits of one pod by its CPUs and its API workers: a table (some minutes, on an idle machine)
	PYTHONPATH=. $(SERVE)/python tests/benchmarks/peers/scale.py $(if $(OUT),--out $(OUT))

speed-tables: .venv/tools  ## the tables of docs/results.md, from what make peers and make scale wrote to tests/benchmarks/results
	$(SERVE)/python tests/benchmarks/peers/tables.py

train-benchmark: .venv-train/installed  ## images a second of the training loop against a plain eager float32 loop
	PYTHONPATH=. $(TRAIN)/python tests/benchmarks/training_speed.py

grpc-soak: .venv/tools  ## memory that a gRPC stream of 100,000 images takes (some minutes)
	$(SERVE)/python tests/benchmarks/grpc_soak.py $(if $(OUT),--out $(OUT))

learning: .venv-train/installed  ## memory and time of `misfit learn` by the number of photographs, to 100,000 (a quarter of an hour)
	PYTHONPATH=. $(TRAIN)/python tests/benchmarks/learning.py --small --images 2000 --images 100000 $(if $(OUT),--out $(OUT))

worst: .venv/tools  ## memory that the worst permitted request of every endpoint takes (half an hour)
	$(SERVE)/python tests/benchmarks/worst.py

example: .venv/tools  ## the pictures of README and quickstart, made by their commands, into train/results/example
	$(SERVE)/python tests/tools/example.py

data: $(DATA)  ## render 3D Shapes (all 480,000 images) to DATA

$(DATA): | .venv-train/installed
	$(TRAIN)/python -m train render shapes3d --out $@

train: .venv-train/installed $(DATA)  ## train, evaluate and draw the shipped preset (hours; interrupt and repeat freely)
	$(TRAIN)/python -m train run shapes3d_beta_tcvae --seed 2 --data $(DATA) --out $(RUN) --resume

seeds: .venv-train/installed $(DATA)  ## the shipped preset with every seed of SEEDS, each benchmarked: median and range (many hours)
	for seed in $(SEEDS); do \
		run=runs/shapes3d_seeds/$$seed && \
		$(TRAIN)/python -m train run shapes3d_beta_tcvae --seed $$seed --data $(DATA) --out $$run --resume && \
		$(TRAIN)/python -m export $$run --out $$run/bundle && \
		$(TRAIN)/python -m train benchmark $$run/bundle --data $(DATA) --out $$run/benchmark || exit 1; \
	done
	$(TRAIN)/python -m train seeds $(SEEDS:%=runs/shapes3d_seeds/%)

results: .venv-train/installed  ## keep the measured results and figures of RUN in train/results
	mkdir -p train/results/$(notdir $(RUN))
	cp $(RUN)/config.json $(RUN)/evaluation.json $(RUN)/metrics.jsonl $(RUN)/figures/*.png train/results/$(notdir $(RUN))
	$(TRAIN)/python -m train results $(RUN)
	$(TRAIN)/python -m train page

bundle: .venv-train/installed  ## export RUN as the bundle that ships
	$(TRAIN)/python -m export $(RUN) --out service/bundles/shapes3d
	$(TRAIN)/python -m export.screen service/bundles/shapes3d
	$(TRAIN)/python -m export.int8 service/bundles/shapes3d

distill: .venv-train/installed $(DATA)  ## train the shipped encoder on augmented images (an hour), measure it, and export it in place of the bundle
	$(TRAIN)/python -m train distill service/bundles/shapes3d --data $(DATA) --out $(DISTILLED) --resume
	$(TRAIN)/python -m train evaluate $(DISTILLED) --data $(DATA)
	$(TRAIN)/python -m export $(DISTILLED) --out service/bundles/shapes3d
	$(TRAIN)/python -m export.screen service/bundles/shapes3d
	$(TRAIN)/python -m export.int8 service/bundles/shapes3d

clean:  ## remove all environments and every cache
	rm -rf .venv .venv-train .venv-bentoml .venv-checkov .venv-clients .venv-docs .venv-kserve .venv-labelling .venv-mlserver .venv-peers .venv-ray .venv-remote .venv-schemathesis tests/pages/node_modules build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(SERVE)/python -m pip install --quiet --disable-pip-version-check pip==$(PIP_VERSION)
	$(SERVE)/python $(INSTALL) --editable .
	touch $@

.venv/tools: .venv/installed
	$(SERVE)/python $(INSTALL) --group dev
	command -v kubectl >/dev/null || $(SERVE)/python tests/tools/kubectl.py .venv/bin/kubectl
	touch $@

.venv-train/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-train
	$(TRAIN)/python -m pip install --quiet --disable-pip-version-check pip==$(PIP_VERSION)
	$(TRAIN)/python $(INSTALL) --editable ".[train]" --group dev
	touch $@

.venv-ray/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-ray
	.venv-ray/bin/python -m pip install --quiet --disable-pip-version-check pip==$(PIP_VERSION)
	.venv-ray/bin/python $(INSTALL) --editable ".[ray]" --group dev
	touch $@

.venv-remote/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-remote
	.venv-remote/bin/python -m pip install --quiet --disable-pip-version-check pip==$(PIP_VERSION)
	.venv-remote/bin/python $(INSTALL) --editable ".[remote]" --group dev --group remote-stores
	touch $@

.venv-labelling/installed: tests/tools/labelling.txt
	$(PYTHON) -m venv .venv-labelling
	.venv-labelling/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

.venv-checkov/installed: k8s/checkov.txt
	$(PYTHON) -m venv .venv-checkov
	.venv-checkov/bin/python -m pip install --quiet --disable-pip-version-check --requirement k8s/checkov.txt
	touch $@

.venv-docs/installed: docs/requirements.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --requirement docs/requirements.txt
	touch $@

.venv-clients/installed: tests/clients/requirements.txt tests/clients/package.json tests/clients/package-lock.json
	$(PYTHON) -m venv .venv-clients
	.venv-clients/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/clients/requirements.txt
	mkdir -p build/clients && cp tests/clients/package.json tests/clients/package-lock.json build/clients
	npm ci --silent --no-audit --no-fund --prefix build/clients
	touch $@

tests/pages/node_modules/.package-lock.json: tests/pages/package.json tests/pages/package-lock.json
	npm ci --silent --no-audit --no-fund --prefix tests/pages

.venv-mlserver/installed .venv-kserve/installed: .venv-%/installed: tests/clients/open_inference/%.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

.venv-peers/%/installed: tests/benchmarks/peers/apps/%/requirements.txt
	$(PYTHON) -m venv .venv-peers/$*
	.venv-peers/$*/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

.venv-schemathesis/installed: tests/faults/schemathesis.txt
	$(PYTHON) -m venv .venv-schemathesis
	.venv-schemathesis/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/faults/schemathesis.txt
	touch $@
