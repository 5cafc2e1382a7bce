PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --constraint constraints.txt --editable
OLDEST_TRITON := $(shell sed -n 's/.*"triton>=\([0-9]*\.[0-9]*\),.*/\1.0/p' pyproject.toml)
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Runs on any Python, so that an old one is told what is needed.
define SUPPORTED
import platform, sys
found = "Python %d.%d on %s %s" % (sys.version_info[0], sys.version_info[1], platform.system(), platform.machine())
builds = {("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64")}
if not (3, 11) <= sys.version_info[:2] <= (3, 14) or (platform.system(), platform.machine()) not in builds:
    sys.exit("error: needs Python 3.11 to 3.14 on Linux (x86_64, aarch64) or macOS (arm64), this is %s; "
             "name another interpreter: make run PYTHON=python3.12" % found)
endef
export SUPPORTED

.PHONY: help run demo test quick triton browser e2e lint constraints docs clean
.DEFAULT_GOAL := help

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/run  ## set up, run every stage that params.yaml asks for, and print the main figures
	$(BIN)/prunelib run

demo: .venv/run  ## set up, and prune the default model at 2:4 by three methods in a few minutes
	$(BIN)/prunelib demo

test: .venv/test lint  ## set up, and run all checks and tests but the end-to-end run
	$(BIN)/pytest -n 2 --dist loadfile -m "not e2e"

quick: .venv/test  ## the quick tests alone
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow and not e2e"

triton: .venv/triton-$(OLDEST_TRITON)  ## the tests of the Triton kernels on the oldest Triton; all others run on the newest
	PYTHONPATH=$(CURDIR)/$< $(BIN)/python -c "import triton as t; print('triton', t.__version__); assert t.__version__ == '$(OLDEST_TRITON)'"
	PYTHONPATH=$(CURDIR)/$< $(BIN)/pytest -n 2 --dist loadfile -m triton

browser:  ## Chromium, with which tests open the report; where apt-get is missing, those tests are skipped
	command -v chromium || ! command -v apt-get || (apt-get update -qq && apt-get install -qq --no-install-recommends chromium fonts-dejavu-core)

e2e: .venv/test  ## the real model end to end on a reduced grid, in a temporary folder
	$(BIN)/pytest -m e2e

lint: .venv/test  ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

constraints: .venv/test  ## pin what is new in pyproject.toml, for every platform; delete a line to renew its pin
	$(BIN)/uv pip compile --no-config --universal --python-version 3.11 --all-extras --no-annotate --no-header \
		--quiet --output-file constraints.txt pyproject.toml

docs: .venv/docs  ## the documentation, docs/site/index.html; offline, and links that lead nowhere fail
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --config-file docs/mkdocs.yml

clean:  ## remove the environment; artifacts and the DVC cache stay
	rm -rf .venv

.venv/run: pyproject.toml constraints.txt
	@$(PYTHON) -c "$$SUPPORTED"
	$(PYTHON) -m venv .venv
	$(INSTALL) ".[workflow,evaluate]"
	touch $@

.venv/test: .venv/run
	$(INSTALL) ".[workflow,evaluate,ray,test]"
	touch $@

.venv/docs: .venv/test
	$(INSTALL) ".[workflow,evaluate,ray,test,docs]"
	touch $@

.venv/triton-%: | .venv/test
	rm -rf $@.unfinished
	$(BIN)/pip install --no-deps --target $@.unfinished triton==$*
	mv $@.unfinished $@
