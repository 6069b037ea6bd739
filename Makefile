# Everything a developer or CI does. `make demo` and `make test` are enough on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

DOCS := $(VENV)/.docs

.PHONY: install demo test test-all mutants check format golden bench docs clean

install: $(INSTALLED)

# Made again whenever the pins or the dependencies change; an interrupted install leaves no mark and starts over.
$(INSTALLED): constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("deeplabv3 needs Python 3.10 to 3.14, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/deeplabv3 demo --out demo

test: check
	$(BIN)/python -m pytest -q -n auto --dist worksteal

test-all: check
	$(BIN)/python -m pytest -q -n auto --dist worksteal -m 'slow or not slow'

# Every fault that can be put into the guards, one at a time: an hour or more. test-all tries a sample of them.
mutants: $(INSTALLED)
	$(BIN)/python -m tests.mutants

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Accept what the golden tests see now; look at the difference before committing it.
golden: $(INSTALLED)
	GOLDEN_ACCEPT=1 $(BIN)/python -m pytest -q -k 'golden or keys or flags'
	git diff --stat tests/golden

# Every benchmark in a short form, some minutes: that they run, and which way each ratio points.
bench: $(INSTALLED)
	PYTHON=$(BIN)/python benchmarks/short.sh

# The documentation as a site, in site/. Its tools are installed for this target alone; they need Python 3.11.
docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(DOCS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $(DOCS)

clean:
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
