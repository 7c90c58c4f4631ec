# `make demo`, `make test`, `make lint` (style and types) and `make docs`. Each sets everything up in .venv first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JOBS ?= 2

.PHONY: demo test proofs setup lint docs lock clean
.DEFAULT_GOAL := setup

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || \
		{ echo "unbraid needs Python 3.11 or 3.12; $(PYTHON) is another. Say which: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (the first time takes a few minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup
	@$(BIN)/unbraid demo --out demo-out

test: setup
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

# The long proofs: kills, lost servers and schedulers, deployments on real servers, whole trainings.
proofs: setup
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m proof

lint: setup
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy

# The documentation as a site in site/; a broken link, page or API name is an error.
docs: setup
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

# Fix the versions anew from what pyproject.toml allows.
lock:
	@rm -rf $(VENV).lock && $(PYTHON) -m venv $(VENV).lock
	@$(VENV).lock/bin/python -m pip install --quiet torch==2.13.0
	@$(VENV).lock/bin/python -m pip install --quiet setuptools wheel -e '.[dev]'
	@$(VENV).lock/bin/python -m pip freeze --all --exclude-editable --exclude pip | sed 's/+cpu$$//' > requirements.lock
	@rm -rf $(VENV).lock

clean:
	rm -rf $(VENV) demo-out site *.egg-info
