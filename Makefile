# The two commands are `make run` and `make test`; both build the environment first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Extras of pyproject.toml; CUDA's libraries come along where there is an NVIDIA GPU.
EXTRAS ?= dev$(if $(wildcard /dev/nvidia[0-9]*), gpu)

.DEFAULT_GOAL := setup
.DELETE_ON_ERROR:
.PHONY: setup data run test lint bench lock clean help

setup: $(READY)  ## build .venv: the locked packages, byte-compiled

$(READY): setup/venv.py setup/tools.txt pyproject.toml uv.lock
	@command -v $(PYTHON) >/dev/null || { echo "setup: $(PYTHON) not found: install Python 3.11 or run make PYTHON=…" >&2; exit 2; }
	@$(PYTHON) setup/venv.py $(VENV) $(addprefix --extra ,$(EXTRAS))
	@touch $@

data: $(READY)  ## fetch and verify MNIST into var/data
	@$(BIN)/mnist data fetch

run: $(READY)  ## the main job: MNIST through the whole pipeline to a pushed model
	@$(BIN)/mnist run

test: data  ## all tests, whole pipeline runs included
	@$(BIN)/pytest

lint: $(READY)  ## ruff format and check, mypy
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

bench: data  ## seconds per node, and the whole against a bare Keras script
	@$(BIN)/python -m bench.run

lock: $(READY)  ## write uv.lock anew from pyproject.toml
	@$(BIN)/python -m setup.lock

clean:  ## remove the environment and all that runs have written
	rm -rf $(VENV) .cache var .mypy_cache .ruff_cache .pytest_cache .hypothesis

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10
