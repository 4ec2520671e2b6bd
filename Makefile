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
STAMP := $(VENV)/.installed-$(VERSION)-$(shell cat pyproject.toml constraints.txt tools/install_models.py tools/torchvision_on_cpu.py | cksum | cut -d ' ' -f 1)

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP)  ## make .venv with cxr and the development tools

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'cxr needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=/path/to/python3'; exit 1; }
	@test -e $(BIN)/python$(VERSION) || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install -qq --editable '.[dev]' --constraint constraints.txt
	$(BIN)/python tools/install_models.py
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
	@for script in $(filter-out benchmarks/generate.py benchmarks/learning.py,$(wildcard benchmarks/*.py)); do \
	  echo "$$script"; $(BIN)/python "$$script"; done

demo: venv  ## mine and refine the example reports into demo/
	@mkdir -p demo
	@echo '1. cxr mine: examples/reports.csv becomes questions with reasoning chains. Two of its rows are broken on'
	@echo '   purpose and some reports are no English chest X-rays: they are named below and set aside. The table tells'
	@echo '   how many reports call each finding present, absent, uncertain, say nothing of it or contradict themselves.'
	$(BIN)/cxr mine examples/reports.csv --rejects demo/unread.jsonl -o demo/questions.jsonl --force
	@echo
	@echo '2. cxr refine: every claim of every chain is held against its report; what does not hold is mended or rejected.'
	$(BIN)/cxr refine demo/questions.jsonl --rejects demo/rejected.jsonl -o demo/chains.jsonl --force
	@echo
	@echo '3. The same as one pipe, which gives the same bytes.'
	$(BIN)/cxr mine -q examples/reports.csv | $(BIN)/cxr refine -q | cmp - demo/chains.jsonl
	@echo
	@echo 'One chain, and where to look:'
	@$(BIN)/python -c 'import json; chain = json.loads(open("demo/chains.jsonl", encoding="utf-8").readline()); \
	  print(" ", chain["question"], chain["options"]); [print("  -", step["text"]) for step in chain["steps"]]'
	@echo '  demo/chains.jsonl    one question with its verified chain a line'
	@echo '  demo/unread.jsonl    rows that could not be read and reports that were set aside, each with its reasons'
	@echo '  demo/rejected.jsonl  chains that failed a check, each with its reasons (empty if all held)'

clean:  ## remove everything that make made
	rm -rf $(VENV) demo build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
