# Needs a Python of 3.11 or newer with venv, and make; everything else is installed into .venv.
#   make setup PYTHON=python3.12 PIP_ARGS="--index-url URL"

PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
PEERS := .venv-peers
STAMP := $(VENV)/.installed
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: setup demo test tests-here tests-on-ray lint types bench peers clean help

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' Makefile

setup: $(STAMP) ## .venv with the pinned packages and this package, editable

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Python 3.11 or newer is needed, %s is %d.%d: make setup PYTHON=python3.11" % (sys.executable, *v[:2]))'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt -e ".[dev,report]"
	@touch $@

demo: $(STAMP) ## the whole chain on the embedded synthetic table
	$(BIN)/python jobs/ctr_distill.py --run demo --root artifacts

lint: $(STAMP) ## style, format and the floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP) ## mypy --strict
	$(BIN)/mypy

test: lint types ## lint, types and all tests but those that need a GPU
	$(MAKE) -j 2 tests-here tests-on-ray

# Ray waits for processes to start half of the time, which the other tests can use; but they give way to it, and its
# workers, which have a niceness of 15 by themselves, would wait for all of them.
tests-here: $(STAMP)
	nice -n 5 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not ray and not gpu and not forks"
	nice -n 5 $(BIN)/python -m pytest -m "forks and not ray and not gpu"

tests-on-ray: $(STAMP)
	@echo "tests on Ray run beside; what they say comes when they are over"
	@RAY_worker_niceness=0 $(BIN)/python -m pytest -m "ray and not gpu" > .tests-on-ray.log 2>&1; status=$$?; cat .tests-on-ray.log; rm -f .tests-on-ray.log; exit $$status

bench: $(STAMP) ## the quick figures of speed in one table (ten minutes at most)
	$(BIN)/python benchmarks/quick.py

peers: $(PEERS)/.installed ## .venv-peers with the libraries that the full benchmarks measure against

$(PEERS)/.installed: benchmarks/requirements.txt constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install $(PIP_ARGS) -r benchmarks/requirements.txt
	@touch $@

clean: ## remove .venv, .venv-peers and caches; artifacts stay
	rm -rf $(VENV) $(PEERS) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
