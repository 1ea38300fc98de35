# `make demo` and `make test` require Python 3.11 or newer, make, and a network connection for the installation.
#
# VENV        folder of the environment (.venv)
# PYTHON      interpreter of the environment (by default the first suitable one of python3, python3.13, ...)
# TORCH_ARGS  additional arguments for the installation of torch
# CPU_INDEX   index of CPU builds of torch that `make demo` tries first (that of the README; empty: do not try)
# PYTEST_ARGS additional arguments for pytest
# FUZZ_CASES  number of random inputs of `make fuzz` for each public entry (20000)
# DOCS_ARGS   additional arguments for sphinx-build; '-D disable_intersphinx=1' builds without a network connection

VENV ?= .venv
RESULTS ?= results/demo
TORCH_ARGS ?=
PYTEST_ARGS ?=
DOCS_ARGS ?=
FUZZ_CASES ?= 20000

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,$(shell $(p) $(NEW_ENOUGH) 2>/dev/null && echo $(p))))
TORCH := $(shell grep '^torch==' constraints.txt)
CPU_INDEX ?= $(shell sed -n 's/.*--index-url \(https:[^ ]*\).*/\1/p' README.rst | head -n 1)

.DEFAULT_GOAL := help
.PHONY: help demo test fuzz coverage lint typing docs wheel-check clean

help:
	@echo "make demo         install and infer the properties of 24 SDSS galaxies and of simulated images"
	@echo "make test         install, check the style and run all tests"
	@echo "make fuzz         try 20,000 random inputs for each public entry (hours; FUZZ_CASES=1000: fewer)"
	@echo "make lint         check the style only"
	@echo "make typing       check the type hints with mypy"
	@echo "make coverage     run all tests and report the lines that are not covered"
	@echo "make wheel-check  build wheel and sdist, and run the quickstart from the wheel in an empty environment"
	@echo "make docs         build the documentation in docs/_build/html"
	@echo "make clean        remove build products and results of the demonstration, but keep the environment ($(VENV))"

# Only the demonstration tries the index of CPU builds; see the rule of .installed-torch.
demo: TRY_CPU_INDEX := $(CPU_INDEX)
demo: $(VENV)/.installed-demo
	$(BIN)/python -m astrogenspec.demo --out $(RESULTS)

# Threads of the small products of numpy wait for one another on a busy machine.
test: lint
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

fuzz: $(VENV)/.installed-test
	ASTROGENSPEC_FUZZ_CASES=$(FUZZ_CASES) $(BIN)/python -m pytest -p no:cacheprovider tests/test_fuzz.py $(PYTEST_ARGS)

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

# One marker file for each step: a second call starts at once, and an interrupted installation is resumed.
$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found; specify it with make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

# torch is installed first, so that packages which depend on it use this build. The CPU build, which is much smaller, is
# taken if its index answers within seconds; otherwise the default build is installed.
$(VENV)/.installed-torch: constraints.txt | $(VENV)/.created
	@echo "Installing $(TORCH) in $(VENV) ..."
	@if [ -n "$(TRY_CPU_INDEX)" ]; then \
	    $(PIP) --retries 0 --timeout 5 --no-deps --index-url "$(TRY_CPU_INDEX)" "$(TORCH)" 2>/dev/null \
	    || echo "The CPU build is not available from $(TRY_CPU_INDEX); installing the default build."; \
	fi
	$(PIP) -c constraints.txt $(TORCH_ARGS) $(TORCH)
	touch $@

$(VENV)/.installed-demo: $(VENV)/.installed-torch pyproject.toml
	@echo "Installing the package and its dependencies in $(VENV) ..."
	$(PIP) -c constraints.txt -e '.[plot]'
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed-torch pyproject.toml
	@echo "Installing the package and its dependencies in $(VENV) ..."
	$(PIP) -c constraints.txt -e '.[test,plot,simulate,parquet,survey,rail,view]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed-torch pyproject.toml
	@echo "Installing the package and its dependencies in $(VENV) ..."
	$(PIP) -c constraints.txt -e '.[docs,plot,simulate,survey,view]'
	touch $@
