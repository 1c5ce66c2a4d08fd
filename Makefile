# Every target works in a fresh clone: the first one used makes .venv and installs the core and all plugins.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PLUGINS := $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml))
# SpikingJelly 2.0 needs Python 3.11; without it, its plugin is left out and its tests are not collected.
ifneq ($(shell $(PYTHON) -c 'import sys; print(sys.version_info >= (3, 11))'),True)
PLUGINS := $(filter-out plugins/spikingjelly,$(PLUGINS))
endif
INSTALLED := $(VENV)/.installed
WORKERS ?= 2
export OMP_NUM_THREADS ?= 1
export NUMBA_NUM_THREADS ?= 1
unexport PYTHONDONTWRITEBYTECODE # sources are compiled, and asserts rewritten, once and not in each process

.PHONY: help demo test slow lint types bench reproduce tables tutorials docs wheels release-check clean

help:
	@echo "make demo | test | slow | lint | types | bench | reproduce | tutorials | docs | wheels | release-check | clean"

# The core first, then all together: pip must see the core and its plugins at once, since a plugin requires `delaykit` from
# this tree, and what builds them is there by then, in place of an environment made for each. Modules are compiled when
# they are first imported, which most of those that are installed never are.
PIP_INSTALL := -m pip install --disable-pip-version-check --no-compile -c constraints.txt -e '.[all,dev,docs]'
$(INSTALLED): pyproject.toml constraints.txt $(wildcard plugins/*/pyproject.toml)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL)
	$(BIN)/python $(PIP_INSTALL) --no-build-isolation $(addprefix -e ./,$(PLUGINS))
	touch $@

demo: $(INSTALLED)
	$(BIN)/delaykit demo $(DEMO_ARGS)

# Exit status 5 of pytest means that no test was found; here that is a failure like any other. The root's conftest.py
# puts the longest files first.
PYTEST := $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
test: $(INSTALLED)
	$(PYTEST) $(PYTEST_ARGS)

# Tests of more than about ten seconds: the laws at length, two processes, the fuzzers' long runs.
slow: $(INSTALLED)
	$(PYTEST) -m slow $(PYTEST_ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(INSTALLED)
	$(BIN)/mypy -p delaykit $(patsubst %,-p delaykit_%,$(notdir $(PLUGINS)))

bench: $(INSTALLED)
	for script in $(wildcard benchmarks/bench_*.py); do echo "== $$script"; $(BIN)/python "$$script"; done

# make reproduce [PAPER=delrec|spatial|hetsyn|motifs|timing] [SCALE=cpu|full] [DATA=folder]; see results/README.md
reproduce: $(INSTALLED)
	$(BIN)/delaykit reproduce $(PAPER) --scale $(or $(SCALE),cpu) $(if $(DATA),--data $(DATA))

tables: $(INSTALLED)
	$(BIN)/delaykit reproduce --tables

tutorials: $(INSTALLED)
ifeq ($(wildcard tutorials/*.ipynb),)
	@echo "no tutorials yet"
else
	$(BIN)/pytest -n $(WORKERS) --dist worksteal --nbmake --nbmake-timeout=300 $(wildcard tutorials/*.ipynb)
endif

docs: $(INSTALLED)
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

# Wheels in a clean environment: the core with nothing else, then each plugin alone beside it. HOME_PAGE=https://...
# is the repository's address, to which links of the descriptions then lead.
wheels: $(INSTALLED)
	rm -rf dist build/wheels build/sources
	$(BIN)/python tests/packaging/release_sources.py build/sources $(HOME_PAGE)
	for source in build/sources/*; do $(BIN)/python -m build --no-isolation --outdir dist "$$source"; done
	$(BIN)/python tests/packaging/check_wheels.py dist build/wheels $(PYTHONS)

# What a release has to pass: everything is built, its descriptions render, and each wheel works in a clean environment
# of every supported Python that is on the path.
release-check: PYTHONS ?= python3.10 python3.11 python3.12 python3.13
release-check: wheels
	$(BIN)/twine check --strict dist/*

clean:
	rm -rf $(VENV) build dist docs/_build runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .import_linter_cache
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
