# Needs make and Python 3.11 or later; everything else is installed into .venv, pinned by requirements*.txt.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

unexport PYTHONDONTWRITEBYTECODE # compiled once, not by each of the thousand processes that tests start

.PHONY: help setup test check up down stack-status docs demo simulate bench clean

help: ## explain the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/make \1	\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

setup: $(VENV)/.dev ## make .venv with everything pinned (all other targets do it by themselves)

test: $(VENV)/.dev ## run all tests, on the servers that can be started; what lacks its server is skipped and listed
	-@$(RUN) -m compose up
	$(RUN) -m pytest -n auto --maxprocesses 8 --dist worksteal

check: $(VENV)/.dev ## ruff, mypy strict, pyright strict, the import order
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(VENV)/bin/lint-imports
	$(RUN) -m mypy & mypy=$$!; $(RUN) -m pyright; pyright=$$?; wait $$mypy && exit $$pyright

up: $(VENV)/.dev ## start the servers [S=postgres,redis, default all] [STACK=docker or native, default docker where it answers]
	@$(RUN) -m compose up $(S)

down: $(VENV)/.dev ## stop the servers, keep their data [S=postgres,redis, default all] [DATA=remove]
	@$(RUN) -m compose down $(S) $(if $(DATA),--data)

stack-status: $(VENV)/.dev ## which servers run, their versions, memory and URLs
	@$(RUN) -m compose status $(S)

docs: $(VENV)/.dev ## build the site of the documents in build/docs; what leads nowhere fails
	$(RUN) -m sphinx --quiet --keep-going --fail-on-warning -c docs/site -d build/doctrees . build/docs
	@echo build/docs/index.html

demo: $(VENV)/.run ## an agent that remembers a conversation [INPUT=file] [DATA=directory] [STORE=sqlite] [PROFILE=full: make up] [LLM=url]
	PYTHONPATH=examples $(RUN) -m agent $(if $(INPUT),--input "$(INPUT)") $(if $(DATA),--data "$(DATA)") \
		$(if $(STORE),--store "$(STORE)") $(if $(PROFILE),--config compose/$(PROFILE:full=polystore).toml) $(if $(LLM),--llm "$(LLM)") $(if $(MODEL),--model "$(MODEL)")

simulate: $(VENV)/.dev ## run the simulation [SEEDS=how many, default 1000] [FIRST=first seed, default 0]
	$(RUN) -m polystore.testing.simulate --seeds $(or $(SEEDS),1000) --first $(or $(FIRST),0)

bench: $(VENV)/.dev ## measure and print the table of ratios
	$(RUN) -m benchmarks

clean: ## remove .venv, built files and caches; data directories stay
	rm -f $(VENV)/.run $(VENV)/.dev
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Two stamps, so that the demo does not wait for the tools of development.
$(VENV)/.run: requirements.txt pyproject.toml
	@$(PYTHON) .ci/install.py $@ requirements.txt

$(VENV)/.dev: requirements.txt requirements-dev.txt pyproject.toml
	@$(PYTHON) .ci/install.py $@ requirements-dev.txt
