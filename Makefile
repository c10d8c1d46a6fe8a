# Every verb makes its own set-up: .venv if it is missing, then the packages it needs, again only when pyproject.toml
# has changed. Nothing is written outside this folder except the cache of compiled kernels.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
PYTEST_ARGS ?=
ONE_IN ?= 40
GPU ?= gpu
BENCH_ARGS ?=
DEVICE_ARGS ?=
PEERS_ARGS ?=

# What nbflow is compared with, in an environment of its own. A CPU build of PyTorch is wanted; where the package index
# gives one with CUDA (gigabytes), name another: TORCH='torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu'.
TORCH ?= torch==2.13.0
JAX ?= jax
PEERS := $(VENV)-peers
# The lowest versions that pyproject.toml allows, and TBB.
FLOORS := $(VENV)-floors
# What builds the site; GALLERY=all runs every example, and otherwise a few of them.
DOCS := $(VENV)-docs
GALLERY ?= few

PY = $(VENV)/bin/python
CODE := $(wildcard nbflow tests scripts asv_benchmarks docs/conf.py docs/_extensions examples)
TYPED := $(wildcard nbflow scripts)

export MPLCONFIGDIR ?= $(abspath $(VENV))/matplotlib

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo results docs test test-matrix test-install test-sim test-gpu lint type bench bench-peers device

help: ## Print the verbs.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'Variables: PYTHON (makes .venv; now $(PYTHON)), WORKERS (test processes; now $(WORKERS), 0 for none),'
	@echo 'ONE_IN (test-matrix runs one test in $(ONE_IN)), GALLERY (all: docs runs every example), PYTEST_ARGS, BENCH_ARGS,'
	@echo 'PEERS_ARGS, DEVICE_ARGS (more arguments for pytest, asv run, bench_peers.py, bench_device.py), TORCH and JAX (what'
	@echo 'pip installs for bench-peers), GPU (gpu, or gpu-cu12 or gpu-cu13 to install a CUDA toolkit as well).'

demo: $(VENV)/.demo ## Train on temporal order and show what clipping and the flow penalty do.
	$(PY) scripts/demo.py

# Two threads a process, so that parallel kernels are tested as such on any machine.
test test-sim test-gpu: export NUMBA_NUM_THREADS ?= 2

test: $(VENV)/.test ## Run every test and docstring example that needs no GPU.
	$(PY) -m pytest -m 'not gpu' -n $(WORKERS) $(PYTEST_ARGS)

test-matrix: $(VENV)/.test $(FLOORS)/.floors ## Run a sample of the tests of numbers as others compute: processors, threading layers, lowest versions.
	$(PY) tests/matrix.py --one-in $(ONE_IN) --workers $(WORKERS) --floors $(FLOORS) $(PYTEST_ARGS)

test-install: $(VENV)/.ready ## Build archive and wheel, install them elsewhere, and run a sample of the tests on that.
	$(PY) tests/install.py $(PYTEST_ARGS)

test-sim: $(VENV)/.test ## Run the smallest tests on both backends without compiler or GPU: interpreter and CUDA simulator.
	NUMBA_DISABLE_JIT=1 NUMBA_ENABLE_CUDASIM=1 $(PY) -m pytest tests -m sim -n $(WORKERS) $(PYTEST_ARGS)

test-gpu: $(VENV)/.test-$(GPU) ## Run the tests that need a CUDA GPU.
	@$(PY) -c 'from numba import cuda; raise SystemExit(not cuda.is_available())' || \
		{ echo 'make test-gpu: numba finds no CUDA GPU here. `$(PY) -m numba -s` says why; GPU=gpu-cu12 or GPU=gpu-cu13 installs a CUDA toolkit.' >&2; exit 1; }
	$(PY) -m pytest tests -m gpu $(PYTEST_ARGS)

results: $(VENV)/.demo ## Make the tables and pictures of docs/results.md again, from results/, and train nothing.
	$(PY) scripts/results.py

docs: $(DOCS)/.docs ## Build the site in docs/_build/html; it opens from the file system.
	GALLERY=$(GALLERY) $(DOCS)/bin/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "$$PWD/docs/_build/html/index.html"

lint: $(VENV)/.dev ## Check style and formatting with ruff.
	$(PY) -m ruff check $(CODE)
	$(PY) -m ruff format --check $(CODE)

type: $(VENV)/.dev ## Check types with mypy.
	$(PY) -m mypy $(TYPED)

# asv keeps its description of the machine in the home folder, so it gets one of its own.
bench: asv_benchmarks/asv.conf.json $(VENV)/.bench ## Run the benchmarks on the present commit, and keep the results.
	mkdir -p asv_benchmarks/.home
	cd asv_benchmarks && HOME="$$PWD/.home" && export HOME && \
		'$(abspath $(PY))' -m asv machine --yes >/dev/null && \
		'$(abspath $(PY))' -m asv run --python=same --launch-method spawn --show-stderr \
			--set-commit-hash "$$(git rev-parse HEAD)" $(BENCH_ARGS)

device: $(VENV)/.test-$(GPU) ## See whether the GPU side is right and fast here, in eight minutes, and write docs/gpu.md.
	$(PY) scripts/bench/bench_device.py $(DEVICE_ARGS)

bench-peers: $(PEERS)/.peers ## Time whole updates beside PyTorch and JAX, in turns, and print the tables.
	$(PY) scripts/bench/bench_peers.py $(PEERS_ARGS)

asv_benchmarks/asv.conf.json:
	@echo 'make bench: $@ is missing; there are no benchmarks in this checkout.' >&2; exit 1

# Set-up. A stamp is touched once all that it stands for is installed.

$(VENV)/.demo: EXTRAS = scripts
$(VENV)/.test: EXTRAS = test,scripts,dask,parquet,notebooks,music
$(VENV)/.test-$(GPU): EXTRAS = test,scripts,dask,parquet,notebooks,music,$(GPU)
$(VENV)/.dev: EXTRAS = dev,scripts,dask
$(VENV)/.bench: EXTRAS = bench

$(VENV)/.demo $(VENV)/.test $(VENV)/.test-$(GPU) $(VENV)/.dev $(VENV)/.bench: pyproject.toml $(VENV)/.ready
	@echo 'Installing nbflow[$(EXTRAS)] into $(VENV)'
	@$(PY) -m pip install --quiet --no-cache-dir --disable-pip-version-check --editable '.[$(EXTRAS)]'
	@touch $@

# Everything about the peers happens in their environment, not in .venv.
bench-peers $(PEERS)/.peers $(PEERS)/.ready: override VENV := $(PEERS)

$(PEERS)/.peers: pyproject.toml $(PEERS)/.ready
	@echo 'Installing nbflow, $(TORCH) and $(JAX) into $(VENV)'
	@$(PY) -m pip install --quiet --no-cache-dir --disable-pip-version-check $(TORCH)
	@$(PY) -m pip install --quiet --no-cache-dir --disable-pip-version-check $(JAX) --editable .
	@touch $@

# Likewise the floors.
$(FLOORS)/.floors $(FLOORS)/.ready: override VENV := $(FLOORS)

$(FLOORS)/.floors: pyproject.toml $(FLOORS)/.ready
	@echo "Installing nbflow, $$($(PY) tests/floors.py) and TBB into $(VENV)"
	@$(PY) -m pip install --quiet --disable-pip-version-check $$($(PY) tests/floors.py) --editable '.[test]'
	@$(PY) -m pip install --quiet --disable-pip-version-check tbb || echo 'There is no TBB for this system.'
	@touch $@

# And the site.
$(DOCS)/.docs $(DOCS)/.ready: override VENV := $(DOCS)

$(DOCS)/.docs: pyproject.toml $(DOCS)/.ready
	@echo 'Installing nbflow[docs] into $(VENV)'
	@$(PY) -m pip install --quiet --no-cache-dir --disable-pip-version-check --editable '.[docs]'
	@touch $@

# An environment that works is kept, whoever made it; one that is missing or broken is made anew.
$(VENV)/.ready: $(shell test -x '$(VENV)/bin/python' || echo FORCE)
$(PEERS)/.ready: $(shell test -x '$(PEERS)/bin/python' || echo FORCE)
$(DOCS)/.ready: $(shell test -x '$(DOCS)/bin/python' || echo FORCE)
$(FLOORS)/.ready: $(shell test -x '$(FLOORS)/bin/python' || echo FORCE)
$(VENV)/.ready $(PEERS)/.ready $(FLOORS)/.ready $(DOCS)/.ready:
	@if ! $(PY) -c '' 2>/dev/null; then \
		command -v '$(PYTHON)' >/dev/null || \
			{ echo 'nbflow needs Python 3.10 or newer, and there is no $(PYTHON). Install it (Debian: apt install python3 python3-venv), or name another: make PYTHON=python3.12 ...' >&2; exit 1; }; \
		'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
			{ echo "nbflow needs Python 3.10 or newer, and $(PYTHON) is $$('$(PYTHON)' --version 2>&1). Name another: make PYTHON=python3.12 ..." >&2; exit 1; }; \
		'$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null || \
			{ echo '$(PYTHON) cannot make virtual environments. Install its venv module (Debian: apt install python3-venv) and try again.' >&2; exit 1; }; \
		echo "Making $(VENV) with $$('$(PYTHON)' --version)"; \
		if [ -e '$(VENV)/pyvenv.cfg' ]; then '$(PYTHON)' -m venv --clear '$(VENV)'; else '$(PYTHON)' -m venv '$(VENV)'; fi; \
	fi
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "nbflow needs Python 3.10 or newer, and $(VENV) has $$($(PY) --version). Remove it and try again." >&2; exit 1; }
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip --default-pip >/dev/null
	@touch $@

FORCE:
