# `make demo` and `make test` set up everything they need, from a bare Python 3.11 or newer.
# The first Python of this list that is new enough; `make install PYTHON=/path/to/python3.11` chooses.
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,$(shell command -v $(p) >/dev/null 2>&1 && $(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p))) python3)
BIN := .venv/bin
SLOWEST := --durations=10 --durations-min=1
# One worker more than there are cores, since tests of processes wait for much of their time; each takes a GiB.
WORKERS := $(shell $(PYTHON) -c 'import os; print(min(len(os.sched_getaffinity(0)), 8) + 1)' 2>/dev/null || echo auto)
ONE_RUN = $(BIN)/python -m pytest $(SLOWEST) -q
# Container images often set it: every process of a test would compile again what it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo test quick fast lint docs format unit fuzz processes ray e2e slow clean

help:  ## Show these commands
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install:  ## Set up .venv (BUILD=cpu or BUILD=gpu decides instead of nvidia-smi)
	@$(PYTHON) requirements/install.py

demo: install  ## The whole system on this machine in some five minutes on two quiet cores, fifteen on busy ones
	@$(BIN)/airls-ray demo

test: install  ## Everything that CI runs; goes on after a failure
	@$(MAKE) --no-print-directory --keep-going fast slow

quick: install  ## For the work in between: lint, types (what is unchanged is known) and tests/unit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy & types=$$!; $(BIN)/python -m pytest -q -n auto --dist loadfile tests/unit && wait $$types

# One run of all three: a worker imports PyTorch once, and none waits for the last file of each folder.
# mypy, which computes in one thread for minutes where nothing is known yet, runs beside it.
fast: install  ## lint, tests/unit, tests/fuzz and tests/processes
	@mkdir -p build; $(MAKE) --no-print-directory lint > build/lint.log 2>&1 & lint=$$!; \
	$(BIN)/python -m pytest $(SLOWEST) -q -n $(WORKERS) --dist loadfile tests/unit tests/fuzz tests/processes; tests=$$?; \
	wait $$lint; lint=$$?; cat build/lint.log; exit $$((lint | tests))

lint: install docs  ## ruff, mypy and the documentation's links
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install  ## The documentation as a site in build/site; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

format: install  ## Let ruff format and fix what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

unit: install  ## Tests inside one process, one to three minutes
	$(BIN)/python -m pytest $(SLOWEST) -q -n auto --dist loadfile tests/unit

fuzz: install  ## Random input by hypothesis: whatever comes in is used or refused with a sentence
	$(BIN)/python -m pytest $(SLOWEST) -q -n auto --dist loadfile tests/fuzz

processes: install  ## Tests of graders, sandboxes and commands in processes of their own
	$(BIN)/python -m pytest $(SLOWEST) -q -n auto --dist loadfile tests/processes

ray: install  ## Tests on a local Ray cluster
	$(ONE_RUN) tests/ray

e2e: install  ## Tests with the real engines, minutes
	$(ONE_RUN) -m one_run tests/e2e & of_one_run=$$!; \
	$(ONE_RUN) -m "not one_run" tests/e2e; others=$$?; \
	wait $$of_one_run && exit $$others

# The halves of tests/e2e side by side; the shorter one has tests/ray behind it, which mostly waits.
slow: install  ## tests/ray and tests/e2e in two processes, the most of `make test`
	( $(ONE_RUN) -m one_run tests/e2e; half=$$?; $(ONE_RUN) tests/ray && exit $$half ) & first=$$!; \
	$(ONE_RUN) -m "not one_run" tests/e2e; second=$$?; \
	wait $$first && exit $$second

clean:  ## Remove .venv and caches (runs stay)
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
