PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help run test quick e2e lint clean
.DEFAULT_GOAL := help

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/run  ## set up, and run the main job: every stage that params.yaml asks for
	$(BIN)/dvc repro

test: .venv/test lint  ## set up, and run all checks and tests but the end-to-end run
	$(BIN)/pytest -n 2 --dist loadfile -m "not e2e"

quick: .venv/test  ## the quick tests alone
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow and not e2e"

# All other tests run on the newest, which constraints.txt pins.
OLDEST_TRITON := $(shell sed -n 's/.*"triton>=\([0-9]*\.[0-9]*\),.*/\1.0/p' pyproject.toml)
.PHONY: triton
triton: .venv/triton-$(OLDEST_TRITON)  ## the interpreter's tests of the Triton kernels on the other end of the supported range of versions
	PYTHONPATH=$(CURDIR)/$< $(BIN)/python -c "import triton as t; print('triton', t.__version__); assert t.__version__ == '$(OLDEST_TRITON)'"
	PYTHONPATH=$(CURDIR)/$< $(BIN)/pytest -n 2 --dist loadfile -m triton

e2e: .venv/test  ## the real model end to end on a reduced grid, in a temporary folder
	$(BIN)/pytest -m e2e

lint: .venv/test  ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:  ## remove the environment; artifacts and the DVC cache stay
	rm -rf .venv

.venv/run: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/test: .venv/run
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[test,ray]"
	touch $@

.venv/triton-%: | .venv/test
	rm -rf $@.unfinished
	$(BIN)/pip install --quiet --no-deps --target $@.unfinished triton==$*
	mv $@.unfinished $@
