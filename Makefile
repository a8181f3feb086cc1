# Everything a developer runs. `make check` is what CI runs.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# The first that runs and is a version we support.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
# pytest workers; each of them computes with one thread.
JOBS   ?= 2
# What the protos must stay compatible with; see protos/check.py.
BASE   ?=

# Not among them: what needs official code or other servers, and the soaks.
BENCHMARKS := questions fcclip regionclip lseg evaluation feature_cache scheduling served scaled_decode

ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.PHONY: help install demo test test-all check lint format types layers check-protos protos buf lock bench clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## everything into .venv, at the locked versions; does nothing if it is there already

# `--require-hashes` has no room for a local project, so ours comes second, without dependencies.
# pip is the second choice: unlike uv it reads pip.conf, where a machine may name its own mirror.
$(STAMP): requirements.lock pyproject.toml
	@test -x $(BIN)/python || { $(create_venv); }
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@echo "installing the locked packages into $(VENV)"
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements.lock \
	  || $(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# Debian keeps `ensurepip` in a package of its own; without it a pip or uv that is there already will do.
define create_venv
set -e; \
test -n "$(PYTHON)" || { echo "no Python 3.11 to 3.13 found; if it is not on the PATH: make install PYTHON=/path/to/python3.11" >&2; exit 1; }; \
if "$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null; then "$(PYTHON)" -m venv $(VENV); \
elif command -v uv >/dev/null; then uv venv --quiet --seed --python "$(PYTHON)" $(VENV); \
elif "$(PYTHON)" -m pip --version >/dev/null 2>&1; then \
  "$(PYTHON)" -m venv --without-pip $(VENV); "$(PYTHON)" -m pip --python $(BIN)/python install --quiet pip uv; \
else echo "$(PYTHON) cannot make a virtual environment. On Debian: apt-get install python3-venv" >&2; exit 1; fi
endef

demo: $(STAMP) ## server, client and picture, with nothing to download
	$(BIN)/ovp demo

test: $(STAMP) ## the default tests: offline, on the CPU
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(JOBS)

test-all: $(STAMP) ## the slow ones too
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(JOBS) -m ""

check: lint types layers check-protos test ## everything CI runs

lint: $(STAMP) ## style and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(STAMP) ## rewrite to the style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(STAMP) ## mypy, strict, over the four packages
	$(BIN)/mypy

layers: $(STAMP) ## ovperception <- heads <- serving | eval
	$(BIN)/lint-imports

check-protos: $(STAMP) ## naming, compatibility, and that the generated code is up to date
	$(BIN)/python protos/check.py --base "$(strip $(BASE))"

# The oldest protoc that pyproject.toml supports: its code runs with every later protobuf.
protos: $(STAMP) ## generate ovperception/v1 (fetches that protoc)
	$(BIN)/uv run --no-project --with grpcio-tools==1.80.0 --with googleapis-common-protos \
	  python protos/generate.py

buf: ## lint the protos with buf itself (needs node, and fetches it)
	cd protos && npx --yes @bufbuild/buf@1.75.0 dep update && npx --yes @bufbuild/buf@1.75.0 lint

lock: ## compile requirements.lock; `make lock UPGRADE=--upgrade` for the newest versions
	$(BIN)/uv pip compile pyproject.toml --no-config --quiet --universal --python-version 3.11 --extra all --group dev \
	  --generate-hashes --no-header --no-annotate $(UPGRADE) --output-file requirements.lock
	@if grep -nE '(https?|file)://|^-' requirements.lock; then echo "requirements.lock names a host or a path" >&2; exit 1; fi

bench: $(STAMP) ## the benchmarks that need nothing else; they take long
	@set -e; for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python -m benchmarks.$$name; done

clean: ## what tools left behind; .venv stays
	rm -rf build dist out .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage htmlcov
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
