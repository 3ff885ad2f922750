# The two commands are `make run` and `make test`; both build the environment first.
VENV := .venv
BIN := $(VENV)/bin
# Which Python the environment is made of; a name given here makes it again where it was made of another.
READY := $(VENV)/.ready$(if $(PYTHON),-$(notdir $(PYTHON)))
# Extras of pyproject.toml; CUDA's libraries come along where there is an NVIDIA GPU.
EXTRAS ?= dev$(if $(wildcard /dev/nvidia[0-9]*), gpu)
TARGET ?= cpu
JOBS ?= 2
PROGRAM := $(shell sed -n 's/^NAME = "\(.*\)"/\1/p' pipeline/product.py)
IMAGE ?= $(PROGRAM)-tfx:$(TARGET)

.DEFAULT_GOAL := setup
.DELETE_ON_ERROR:
.PHONY: setup data run serve check coverage test test-flink test-fresh lint bench bench-smoke conformance oracle image test-image test-cluster lock clean help

setup: $(READY)  ## build .venv: the locked packages, byte-compiled

$(READY): setup/venv.py setup/find_python.sh setup/tools.txt pyproject.toml uv.lock
	@python=$$(setup/find_python.sh $(PYTHON)) && "$$python" setup/venv.py $(VENV) $(addprefix --extra ,$(EXTRAS))
	@touch $@

data: $(READY)  ## fetch and verify MNIST into var/data
	@$(BIN)/$(PROGRAM) data fetch

run: $(READY)  ## the main job: MNIST through the whole pipeline to a pushed model
	@$(BIN)/$(PROGRAM) run

serve: $(READY)  ## TF Serving's API on the pushed model, and a page to draw digits on: http://127.0.0.1:8501
	@$(BIN)/$(PROGRAM) serve

check: lint  ## what to run before each commit: lint, and the unit tests that need no data
	@$(BIN)/pytest --numprocesses $(JOBS) --dist loadfile -m 'not (slow or data)' tests/unit

coverage: data  ## the lines that the unit tests run
	@mkdir -p .cache
	@$(BIN)/pytest --numprocesses $(JOBS) --dist loadfile --cov tests/unit

# In the order of the folders, e2e first: a long file that is left for the end would run alone.
test: data  ## all tests, whole pipeline runs included, two files at a time: JOBS=2
	@$(BIN)/pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

test-flink: data  ## the pipeline on Flink, against the run on this machine; needs Java 17 and Maven
	@setup/flink/job_server.sh
	@FLINK_JOB_SERVER_JAR=.cache/flink/job-server.jar $(BIN)/pytest -m flink tests/flink

test-fresh:  ## set-up and a run in a Debian 13 made from nothing; needs root and debootstrap; CACHE=a uv cache to use
	@setup/test_fresh.sh $(CACHE)

lint: $(READY)  ## format, lint, types, contracts between the rooms, declared packages
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo --cache-dir .cache/import-linter
	@$(BIN)/deptry --no-ansi .

bench: data  ## seconds per node, and the whole against a bare Keras script
	@$(BIN)/python -m bench.run

bench-smoke: data  ## two minutes of benchmarks: start-up, a whole run, the server
	@$(BIN)/python -m bench.imports --times 1
	@$(BIN)/python -m bench.run
	@if command -v wrk && command -v h2load; then $(BIN)/python -m bench.serving --seconds 2; fi

conformance: $(READY)  ## the server's conformance suite against a TF Serving: make conformance HOST=…
	@CONFORMANCE_HOST=$(HOST) $(BIN)/pytest tests/integration/serving/test_conformance.py

oracle: $(READY)  ## model functions against the real tf.estimator 2.15, which it installs: make oracle ORACLE_PYTHON=python3.11
	@TF_CPP_MIN_LOG_LEVEL=2 $(BIN)/python -m tests.oracle.compare $(or $(ORACLE_PYTHON),python3.11)

image: $(READY)  ## the image of the Kubeflow steps, or of the server: TARGET=cpu|gpu|serving IMAGE=name BASE=image
	@ENGINE=$(ENGINE) BASE=$(BASE) setup/build_image.sh $(TARGET) $(IMAGE)

test-image: data image  ## build the image and run a step of the compiled pipeline in it
	@TEST_IMAGE=$(IMAGE) TEST_ENGINE=$(or $(ENGINE),$$(setup/find_engine.sh)) TEST_RUN_ARGS="$(RUN_ARGS)" $(BIN)/pytest -m image tests/integration/kubeflow/test_image.py

test-cluster: data  ## the pipeline on a Kubeflow Pipelines: MNIST_KFP_HOST=… MNIST_IMAGE=… make test-cluster (docs/kind.md)
	@test -n "$$MNIST_KFP_HOST" -a -n "$$MNIST_IMAGE" || { echo "which cluster? MNIST_KFP_HOST=http://localhost:8080 MNIST_IMAGE=NAME make test-cluster"; exit 2; }
	@$(BIN)/pytest -m cluster tests/integration/kubeflow/test_cluster.py

lock: $(READY)  ## write uv.lock again from pyproject.toml
	@$(BIN)/python -m setup.lock

clean:  ## remove the environment and all that runs have written
	rm -rf $(VENV) .cache var .mypy_cache .ruff_cache .pytest_cache .hypothesis

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
