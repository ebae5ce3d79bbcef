# `make help` says what there is. Every target sets up .venv first, which takes a moment once it is there.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export PYTHON

BIN := .venv/bin
CODE := __init__.py py.typed shm runtime actors cli bench

.PHONY: help demo demo-page test test-long coverage check bench clean clean-venv setup setup-dev names

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

demo: setup ## a chat model over TLS, its words streaming (PORT=8443)
	@$(BIN)/python examples/demo_chat.py

demo-page: setup ## read a page of text with a graph of actors, step by step
	@$(BIN)/python examples/demo_page.py

test: setup-dev ## the test suite, files side by side (some ten minutes)
	@$(BIN)/python -m pytest -m "not long" -n auto --maxprocesses 4 --dist loadfile

test-long: setup-dev ## the tests that take longer: kills at random moments, long runs
	@$(BIN)/python -m pytest -m long

coverage: setup-dev ## branch coverage of the suite by folder, subprocesses counted (TESTS=tests/shm; all: 45 minutes)
	@rm -rf build/coverage && mkdir -p build/coverage
	@status=0; $(BIN)/coverage run -m pytest -m "not long" -o timeout=600 $(TESTS) || status=$$?; \
	$(BIN)/coverage combine --quiet && $(BIN)/coverage json -q -o build/coverage/report.json && \
	$(BIN)/python tools/coverage_by_folder.py build/coverage/report.json; exit $$status

check: setup-dev names ## formatting, lint, types, and which floor imports what
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy -p slabwire | sed 's#build/import/slabwire/##'
	@$(BIN)/mypy examples tests
	@PYTHONPATH=build/import $(BIN)/lint-imports
	@$(BIN)/python tools/circles.py
	@$(BIN)/python tools/sizes.py

bench: setup-dev ## every benchmark, one after the other (minutes each)
	@for each in all placement read-page chat stalls fidelity footprint; do $(BIN)/slabwire bench "$$each"; done

clean: ## remove what builds, checks and tests leave behind
	@rm -rf build dist slabwire.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf

clean-venv: ## remove .venv
	@rm -rf .venv

setup:
	@.ci/setup

setup-dev:
	@.ci/setup dev

# The root folder is the package and may have any name; here tools find the package under its own.
names:
	@mkdir -p build/import/slabwire
	@for each in $(CODE); do ln -sfn "../../../$$each" "build/import/slabwire/$$each"; done
