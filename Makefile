# The two commands: "make demo" and "make test". Both set up everything they need.

PYTHON ?= $(shell scripts/find-python)
VENV = .venv
BIN = $(VENV)/bin
# As pip does for what it copies; where PYTHONDONTWRITEBYTECODE is set nobody else would.
COMPILE = $(BIN)/python -m compileall -q redock
SOURCES = setup.py pyproject.toml requirements.txt
# There are also "cluster" and "provision", which take longer.
BENCHMARKS = start list reach

.PHONY: demo test check lint types unit integration examples docs sessions benchmark clean help

help:
	@echo "make demo        set up this machine, start a container, run a command in it over ssh"
	@echo "make test        set up this machine, run every check and test"
	@echo "make benchmark   measure starts, lists and sessions against the engine's own floor"

demo: $(VENV)/.runtime
	@scripts/prepare-host
	@scripts/with-engine scripts/demo $(BIN)

test: $(VENV)/.development
	@scripts/prepare-host --tests
	@$(MAKE) --no-print-directory check

# Everything "make test" checks, on a machine that is set up.
check: lint types unit docs integration examples

lint: $(VENV)/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.development
	$(BIN)/mypy

unit: $(VENV)/.development
	$(BIN)/pytest tests/unit

integration: $(VENV)/.development
	scripts/with-engine tests/with-home $(BIN)/pytest tests/integration

# The suites that show what clusters are for; most of the time they wait for the services in them.
# That for pytest-testinfra is run by the integration tests, on nodes.
examples: $(VENV)/.development
	scripts/with-engine tests/with-home $(BIN)/pytest examples --ignore=examples/testinfra_nodes

docs: $(VENV)/.development
	$(BIN)/sphinx-build -q -W -n -b html docs docs/_build/html

# Types what is in docs/sessions again, and writes down what is printed now.
sessions: $(VENV)/.development
	scripts/with-engine tests/with-home $(BIN)/python docs/record.py

# Measured as installed, not from the checkout: that is what a user starts.
benchmark:
	@scripts/prepare-host --tests
	$(PYTHON) -m venv --clear --upgrade-deps docs/_build/benchmark
	docs/_build/benchmark/bin/pip install --quiet ".[templates]"
	for each in $(BENCHMARKS); do \
		PATH="$(CURDIR)/docs/_build/benchmark/bin:$$PATH" scripts/with-engine tests/with-home \
			docs/_build/benchmark/bin/python benchmarks/$$each.py || exit; \
	done

$(VENV)/bin/pip:
	@scripts/prepare-host --python
	$(PYTHON) -m venv --upgrade-deps $(VENV)

$(VENV)/.runtime: $(VENV)/bin/pip $(SOURCES)
	$(BIN)/pip install --quiet --use-pep517 --editable .
	@$(COMPILE)
	@touch $@

$(VENV)/.development: $(VENV)/bin/pip $(SOURCES)
	$(BIN)/pip install --quiet --use-pep517 --editable ".[dev]"
	@$(COMPILE)
	@touch $@ $(VENV)/.runtime

clean:
	rm -rf $(VENV) build docs/_build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
