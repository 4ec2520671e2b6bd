# `make` lists the targets. All of them take PYTHON=python3.12 (3.11 or newer) and work from a bare clone.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help venv lint test lowest slurm audit docs bench demo clean
empty :=
comma := ,

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

lint: venv  ## ruff, mypy, and the command reference and man pages against the commands
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/cog --check docs/commands.md
	$(BIN)/python tools/man_pages.py --check

test: lint  ## lint, then all tests but the slow ones and those of Slurm
	$(BIN)/pytest -q -n 2 --dist loadgroup

# Of the extras, those without torch: the training stack fits together in the versions of constraints.txt alone.
OLD := build/lowest
OLD_EXTRAS := arrow dicom endpoint metrics score
WITH_TORCH := credit infer llm process_reward rl sft slurm tiny
CLOCKED := infer sft rl
lowest: venv  ## the tests that need no model, with the oldest versions that pyproject.toml allows
	$(BIN)/python -m venv --clear $(OLD)
	$(BIN)/python tools/lowest.py $(OLD_EXTRAS) > $(OLD)/oldest.txt
	sed -n '/^# .dev./,$$p' constraints.txt >> $(OLD)/oldest.txt
	$(OLD)/bin/python -m pip install --quiet --upgrade pip
	$(OLD)/bin/python -m pip install -qq --editable '.[$(subst $(empty) ,$(comma),$(OLD_EXTRAS))]' --constraint $(OLD)/oldest.txt \
	  build cogapp hypothesis playwright pydicom-data pytest pytest-xdist setuptools
	$(OLD)/bin/python -m pytest -q -W default -n 2 --dist loadgroup -m 'not vllm and not slow and not gpu and not slurm' \
	  $(WITH_TORCH:%=--ignore tests/test_%.py) --ignore tests/test_packaging.py --ignore tests/test_doctor.py \
	  --deselect tests/test_arrow.py::test_datasets_reads_every_output_and_we_read_what_it_saves \
	  --deselect 'tests/test_outputs.py::test_no_output_is_an_input[a mix]' \
	  $(CLOCKED:%=--deselect 'tests/test_faults.py::test_a_clock_that_jumps_changes_nothing[%]')

SLURM := /tmp/slurm-here
slurm: venv  ## examples/slurm on a real Slurm of this machine (as root, with Debian's slurmctld, slurmd, slurm-client, munge)
	trap 'tools/slurm_here.sh stop $(SLURM)' EXIT; tools/slurm_here.sh start $(SLURM); \
	  SLURM_CONF=$(SLURM)/slurm.conf $(BIN)/pytest -q -m slurm tests/test_slurm.py

AUDIT := build/audit
audit: venv  ## known vulnerabilities and the licences of all that is installed (asks PyPI's advisories)
	$(BIN)/python -m venv --clear $(AUDIT)
	$(AUDIT)/bin/pip install -qq pip-audit pip-licenses
	$(AUDIT)/bin/pip-licenses --python $(BIN)/python --from=mixed --summary
	$(BIN)/python -m pip list --format freeze --exclude-editable | sed 's/+.*//' > $(AUDIT)/installed.txt
	$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip --requirement $(AUDIT)/installed.txt

docs: venv  ## write the commands' help into docs/commands.md and docs/man
	$(BIN)/cog -r docs/commands.md
	$(BIN)/python tools/man_pages.py

BENCH := 'mine --peer medspacy' formats 'layouts --rows 100000' score films metrics robustness phantoms \
  'reading --items 5000 50000' 'infer --untrained build/untrained --run-batch' \
  'infer --untrained build/untrained --run-batch --tokens 256' 'infer --untrained build/untrained --memory 500,20000' \
  'steps --stage sft' 'steps --stage rl' faults fuzz 'learning --work build/learning'
bench: venv  ## measure speed and memory, learning, faults and fuzzing, into BENCHMARKS.md and docs (four hours)
	@failed=; run() { echo "benchmarks/$$1.py $${*:2}"; \
	  $(BIN)/python "benchmarks/$$1.py" "$${@:2}" --write || failed="$$failed $$1"; }; \
	for line in $(BENCH); do run $$line; done; \
	if command -v slurmctld > /dev/null; then \
	  trap 'tools/slurm_here.sh stop $(SLURM)' EXIT; tools/slurm_here.sh start $(SLURM); \
	  export SLURM_CONF=$(SLURM)/slurm.conf; run arrays; \
	else echo 'benchmarks/arrays.py is left out: there is no Slurm'; fi; \
	if [ -n "$$failed" ]; then echo "failed:$$failed"; exit 1; fi

DEMO_STUDIES := 1200
demo: venv  ## films, chains, training, answers and scores, into demo/ (minutes)
	@mkdir -p demo
	@echo '1. cxr demo draws $(DEMO_STUDIES) studies whose findings are known, and writes a report on each.'
	$(BIN)/cxr demo -o demo --studies $(DEMO_STUDIES)
	@echo
	@echo '2. cxr mine turns the reports into questions with chains of reasoning; cxr refine holds every claim of every'
	@echo '   chain against its report, mends what it can and rejects the rest.'
	$(BIN)/cxr mine demo/reports.jsonl --tasks binary,anomaly -q | $(BIN)/cxr refine -o demo/chains.jsonl --force
	$(BIN)/cxr mine demo/reports.jsonl --tasks binary,anomaly --split test -q | $(BIN)/cxr refine -q -o demo/test.jsonl --force
	@echo
	@echo '3. cxr sft trains the tiny model that comes with the package on the chains, some minutes; patients of the test'
	@echo '   split stay out.'
	$(BIN)/cxr sft demo/chains.jsonl --model tiny --recipe tiny -o demo/sft --force \
	  --eval-items 20 --eval-every 200 --set eval_tokens=200 --set num_train_epochs=4
	@echo
	@echo '4. cxr rl goes on from there: the model answers each question eight times, and what is right, and borne out by'
	@echo '   the report step by step, is made likelier. A few steps, to see it work; more take longer.'
	$(BIN)/cxr rl --ckpt demo/sft --recipe tiny -o demo/rl --force --max-steps 25 --lr 3e-5 --max-tokens 160 --eval-every 0
	@echo
	@echo '5. cxr infer answers the questions of the test split with both models, from the films alone, and cxr score tells'
	@echo '   how well they answer and reason. The floors are what two models get that never look.'
	@for model in sft rl; do echo "cxr infer demo/test.jsonl --ckpt demo/$$model … -o demo/predictions-$$model.jsonl"; \
	  $(BIN)/cxr infer demo/test.jsonl --ckpt demo/$$model --engine transformers --max-tokens 200 \
	    -o demo/predictions-$$model.jsonl --force; done
	$(BIN)/cxr score demo/predictions-rl.jsonl --against demo/predictions-sft.jsonl --html demo/report.html \
	  --films thumbnail --force
	@echo
	@echo 'Two minutes of training teach the form, and some of the reading. Answers stay near chance, and a minute of'
	@echo 'reinforcement may cost some of them: a model of this size takes longer to learn which letter stands for what.'
	@echo 'What longer training teaches is in BENCHMARKS.md.'
	@echo
	@echo 'Where to look:'
	@echo '  demo/report.html          every question with its film, the chain and what is true of it: open it in a browser'
	@echo '  demo/chains.jsonl         a question with its verified chain a line'
	@echo '  demo/sft/training.svg     how training went, and demo/rl/training.svg'
	@echo '  demo/predictions-*.jsonl  what the models wrote'

clean:  ## remove everything that make made
	rm -rf $(VENV) demo build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
