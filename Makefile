# Needs make and Python 3.11 or later; everything else is installed into .venv, pinned by requirements*.txt.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
SIMULATION = -m polystore.testing.simulate --seeds $(or $(SEEDS),1000) --first $(or $(FIRST),0)

.PHONY: help setup test check demo simulate bench clean

help: ## explain the targets
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/make \1	\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

setup: $(VENV)/.dev ## make .venv with everything pinned (all other targets do it by themselves)

test: $(VENV)/.dev ## run all tests
	$(RUN) -m pytest -n auto --maxprocesses 8 --dist worksteal

check: $(VENV)/.dev ## ruff, mypy strict, pyright strict, the import order
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m pyright
	$(VENV)/bin/lint-imports

demo: $(VENV)/.run ## an agent that remembers a conversation [INPUT=file] [DATA=directory, default .polystore]
	PYTHONPATH=examples $(RUN) -m agent $(if $(INPUT),--input "$(INPUT)") --data "$(or $(DATA),.polystore)"

simulate: $(VENV)/.dev ## run the simulation [SEEDS=how many, default 1000] [FIRST=first seed, default 0]
	$(RUN) $(SIMULATION)

bench: $(VENV)/.run ## measure and print the table of ratios
	$(RUN) -m benchmarks

clean: ## remove .venv, built files and caches; data directories stay
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Two steps, so that the demo does not wait for the tools of development.
# .unfinished: what an interrupted installation left behind looks complete to pip, so it is thrown away.
$(VENV)/.run: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "polystore needs Python 3.11 or later, this is " + sys.version.split()[0] + ": make PYTHON=python3.x")'
	@if test -e $(VENV)/.unfinished || ! $(RUN) -m pip --version >/dev/null 2>&1; then rm -rf $(VENV); fi
	@mkdir -p $(VENV) && touch $(VENV)/.unfinished
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@rm $(VENV)/.unfinished && touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.txt
	@touch $(VENV)/.unfinished
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@rm $(VENV)/.unfinished && touch $@
