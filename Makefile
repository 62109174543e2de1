# make demo          set up, enhance and evaluate with the default model, train it some minutes
# make quick         set up, lint, and run the tests that take a minute
# make test          set up, lint, and run all tests and doctests
# make test-gpu      set up, and run the tests that need an NVIDIA GPU
# make test-wheel    set up, and install the wheel with its dependencies alone, and use it (5 GB)
# make test-browser  set up, install Chromium (Debian, Ubuntu: as root), test the pages in it
# make test-cluster  set up, and kill workers, nodes and jobs of a Ray cluster
# make docs-check    set up, run every command of the README and of docs/ (a quarter of an hour)
# make clean         remove the environment and all results

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := --numprocesses=auto --dist=loadfile
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: demo lint quick test test-gpu test-wheel test-browser test-cluster docs-check setup chromium clean

demo: setup
	$(BIN)/python examples/before_after.py results/demo
	$(BIN)/python train.py hparams/demo.yaml --test_only
	$(BIN)/python train.py hparams/demo.yaml

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

quick: lint
	$(BIN)/python -m pytest tests $(PYTEST) -m 'not (slow or cuda or clean_environment)'

test: lint
	$(BIN)/python -m pytest $(PYTEST) --durations=5

test-gpu: setup
	@$(BIN)/python -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "error: torch finds no GPU here")'
	$(BIN)/python -m pytest tests/test_cuda.py -m cuda

test-wheel: setup
	$(BIN)/python -m pytest tests/test_wheel.py -m clean_environment --timeout=1800

test-browser: setup chromium
	$(BIN)/python -m pytest tests/browser

test-cluster: setup
	$(BIN)/python -m pytest tests/kills

docs-check: setup
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	$(BIN)/python tests/docs_check.py

# The distribution's own packages: test tools download theirs, which closed networks refuse.
chromium:
	@command -v chromium > /dev/null && command -v chromedriver > /dev/null || { \
		command -v apt-get > /dev/null || { echo 'error: install chromium and chromedriver by your package manager' >&2; exit 1; }; \
		$(SUDO) apt-get update -qq && $(SUDO) apt-get install -qq --yes --no-install-recommends chromium chromium-driver; }

setup: $(VENV)/.installed

$(VENV)/.installed: setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else "error: Python 3.10 or newer is needed: make PYTHON=python3.12 ...")'
	@command -v cc > /dev/null || command -v gcc > /dev/null || { echo 'error: the package pesq is built from source: install a C compiler (Debian, Ubuntu: apt install gcc python3-dev)' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo 'Installing the pinned dependencies (5 GB with the CUDA libraries of torch; some minutes) ...'
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) results
