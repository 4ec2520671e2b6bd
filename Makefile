# `make` lists the targets. All of them take PYTHON=python3.12 (3.11 or newer) and work from a bare clone.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help venv lint test docs bench demo clean

VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= $(firstword $(wildcard $(BIN)/python) python3)
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# Installed once for each Python and each content of these files, so that a second run needs no network.
STAMP := $(VENV)/.installed-$(VERSION)-$(shell cat pyproject.toml constraints.txt | cksum | cut -d ' ' -f 1)

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP)  ## make .venv with cxr and the development tools

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'cxr needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=/path/to/python3'; exit 1; }
	@test -e $(BIN)/python$(VERSION) || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install -qq --editable '.[dev]' --constraint constraints.txt
	@rm -f $(VENV)/.installed-* && touch $@

lint: venv  ## ruff, mypy, and the command reference against the commands
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/cog --check docs/commands.md

test: lint  ## lint, then all tests but the slow ones
	$(BIN)/pytest -q -n 2 --dist loadgroup

docs: venv  ## write the commands' help into docs/commands.md
	$(BIN)/cog -r docs/commands.md

bench: venv  ## measure speed and memory (minutes)
	@for script in $(filter-out benchmarks/generate.py,$(wildcard benchmarks/*.py)); do \
	  echo "$$script"; $(BIN)/python "$$script"; done

demo: venv  ## mine and refine the example reports into demo/
	@mkdir -p demo
	@echo 'Reports become questions with reasoning chains, and every step of a chain is checked against its report.'
	@echo 'Two of the example rows are broken on purpose, and some reports are no chest X-rays: they are set aside.'
	$(BIN)/cxr mine examples/reports.csv --rejects demo/unread.jsonl \
	  | $(BIN)/cxr refine --rejects demo/rejected.jsonl > demo/chains.jsonl
	@echo 'Look at demo/chains.jsonl (one question with its chain a line), demo/unread.jsonl (rows and reports that'
	@echo 'were set aside) and demo/rejected.jsonl (chains that failed a check), each with its reasons.'

clean:  ## remove everything that make made
	rm -rf $(VENV) demo build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
