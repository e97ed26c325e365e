# `make` lists the targets. Each makes what it needs first: .venv from the lock file, and Debian packages where root.

SHELL := /bin/bash
BIN := .venv/bin
TOPOLOGY ?= topologies/two-nodes.yaml
COMPARISON ?= loadtests/hostnetwork-vs-overlay.yaml

.DEFAULT_GOAL := help
.PHONY: help setup compare test test-full check bench conformance images up down clean

help:  ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

setup:  ## make .venv, and install missing Debian packages (as root) or say which
	@PYTHON="$(PYTHON)" .ci/setup

compare: setup  ## what the overlay costs: bring clusters up, measure, print, write a report, remove everything
	$(BIN)/testbed compare $(COMPARISON)

test: setup  ## every test that this machine can run, those of whole clusters included
	tests/run

test-full: setup  ## the same with every proxy mode, long churns, and a virtual machine for what this kernel lacks
	TESTBED_FULL=1 tests/run

check: setup  ## format, lint, types, imports and the quick tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest tests/unit

bench: setup  ## figures beside their targets, into build/bench.json; one of them: make bench NAME=up
	$(BIN)/python -m tests.benchmarks $(NAME)

conformance: setup  ## what Kubernetes promises, row by row, into build/conformance.json
	$(BIN)/python -m tests.conformance $(NAME)

images: setup  ## build the container images (needs a Docker engine)
	$(BIN)/testbed images

up: setup  ## bring a topology up: make up TOPOLOGY=topologies/three-nodes.yaml
	$(BIN)/testbed up $(TOPOLOGY)

down: setup  ## remove every cluster of this user, and prove that nothing is left
	$(BIN)/testbed down --all

clean:  ## remove every cluster, .venv and all caches
	@if [ -x $(BIN)/testbed ]; then $(BIN)/testbed down --all; fi
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
