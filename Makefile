# `make demo` and `make test` need Python 3.11 or newer, make, and a network for the installation.
#
# VENV        folder of the environment (.venv)
# PYTHON      interpreter that makes it (the first of python3, python3.13, ... that is new enough)
# TORCH_ARGS  more arguments for the installation of torch, for example to choose a CPU-only build
# PYTEST_ARGS more arguments for pytest
# DOCS_ARGS   more arguments for sphinx-build; '-D disable_intersphinx=1' builds without a network

VENV ?= .venv
RESULTS ?= results/demo
TORCH_ARGS ?=
PYTEST_ARGS ?=
DOCS_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,$(shell $(p) $(NEW_ENOUGH) 2>/dev/null && echo $(p))))
TORCH := $(shell grep '^torch==' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help demo test coverage lint typing docs wheel-check clean

help:
	@echo "make demo    make an environment, install, infer the properties of 24 SDSS galaxies and of simulated images"
	@echo "make test    make an environment, install, check the style and run all tests"
	@echo "make lint    check the style only"
	@echo "make typing  check the type hints with mypy"
	@echo "make coverage     run all tests and list the lines that they do not reach"
	@echo "make wheel-check  build wheel and sdist, and run the quickstart from the wheel in an empty environment"
	@echo "make docs    build the documentation in docs/_build/html"
	@echo "make clean   remove what was built and the results of the demonstration, but not the environment ($(VENV))"

demo: $(VENV)/.installed-demo
	$(BIN)/python -m astrogenspec.demo --out $(RESULTS)

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

coverage: $(VENV)/.installed-test
	$(BIN)/python -m pytest --cov --cov-config=setup.cfg --cov-report=term $(PYTEST_ARGS)

typing: $(VENV)/.installed-test
	$(PIP) -c constraints.txt mypy
	$(BIN)/mypy

wheel-check: $(VENV)/.installed-test
	$(BIN)/python .ci/check_distribution.py

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

docs: $(VENV)/.installed-docs
	$(BIN)/sphinx-build -W --keep-going $(DOCS_ARGS) -b html docs docs/_build/html

clean:
	rm -rf build dist *.egg-info docs/_build docs/api docs/gallery docs/models docs/pictures $(RESULTS) .pytest_cache .mypy_cache .tox .tmp .ruff_cache .coverage htmlcov
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# One stamp for each step, so that a second call starts at once and an interrupted one goes on where it was.
$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found: name one, make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

# torch goes first: what depends on it then takes the build that is already there.
$(VENV)/.installed-torch: constraints.txt | $(VENV)/.created
	@echo "Installing $(TORCH) in $(VENV) ..."
	$(PIP) -c constraints.txt $(TORCH_ARGS) $(TORCH)
	touch $@

$(VENV)/.installed-demo: $(VENV)/.installed-torch pyproject.toml
	@echo "Installing the package and what it needs in $(VENV) ..."
	$(PIP) -c constraints.txt -e '.[plot]'
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed-torch pyproject.toml
	@echo "Installing the package and what it needs in $(VENV) ..."
	$(PIP) -c constraints.txt -e '.[test,plot,simulate,parquet]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed-torch pyproject.toml
	@echo "Installing the package and what it needs in $(VENV) ..."
	$(PIP) -c constraints.txt -e '.[docs,plot,simulate]'
	touch $@
