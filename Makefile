# Everything runs from a virtual environment in .venv, made on first use from constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
LEDGER ?= demo.db

.PHONY: help demo test test-all lint docs bench clean

help:            ## what there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 12

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[browse,dev]'
	@touch $(READY)

demo: $(READY)   ## set up, run 8 trials of airbench-cpu, verify the ledger, say what to look at next
	$(BIN)/labtrail run airbench-cpu --trials 8 --ledger $(LEDGER)
	$(BIN)/audit verify $(LEDGER)
	@echo
	@echo "Look at it next:"
	@echo "  $(BIN)/labtrail browse --ledger $(LEDGER)                          every trial in a browser"
	@echo "  $(BIN)/labtrail lineage --ledger $(LEDGER)                         the tree of trials"
	@echo "  $(BIN)/labtrail sql 'FROM failures' --ledger $(LEDGER)             what failed, and why"
	@echo "  $(BIN)/labtrail run airbench-cpu --trials 16 --ledger $(LEDGER)    go on from here"

test: $(READY)   ## set up and run the tests that are fast
	$(BIN)/python -m pytest -n 2 -m 'not slow and not browser and not ray and not gpu'

test-all: $(READY)   ## every test that this machine can run
	$(BIN)/python -m pytest -m 'not gpu'

lint: $(READY)   ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)   ## rewrite the generated parts of the documentation
	$(BIN)/python -m docs.generate

bench: $(READY)   ## performance, as ratios against a peer in the same run
	$(BIN)/python -m benchmarks

clean:           ## remove the environment and the demo's ledger
	rm -rf .venv $(LEDGER) $(LEDGER)-* $(LEDGER).* *.egg-info build
