# Two commands set up a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: quickstart test test-long lint bench schema profiles clean

quickstart: $(STAMP)          ## create .venv, install, run the whole method on real digits
	$(BIN)/cafe run quickstart

test: lint                    ## lint, types, walls, all tests; the hundreds of processes share compiled modules
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n 3 --dist worksteal

test-long: $(STAMP)           ## what takes an hour: 100 kills, 10,000 runs, 20,000 random inputs; `make test` leaves it out
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -m long -n 2 --dist worksteal -rP

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)               ## all benchmarks in full, written to docs/benchmarks.md
	$(BIN)/python benchmarks/run_all.py

schema: $(STAMP)              ## JSON Schema of profiles for editors, the reference of their keys, the tables of the README
	$(BIN)/python -m engine.contract.profile.schema > profiles/profile.schema.json
	$(BIN)/python docs/make_reference.py

profiles: $(STAMP)            ## the grids of profiles/standard and profiles/paper
	$(BIN)/python docs/make_profiles.py

clean:
	rm -rf $(VENV)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
