# make demo     run a whole shop behind the gateway, and say where it is; Ctrl-C ends it
# make test     everything: format, lint, types, all tests, docs drift, the wheel
# make check    the quick part of it, for every few minutes
# make bench    Headgate beside nginx, Envoy, HAProxy and Caddy; writes docs/benchmarks.md
# make chaos    instances killed, frozen, slow, lying, under load; writes docs/images/weather.svg
# make bench-toolkit   limiter, breaker, retries, cache beside the libraries that people use
# make docs     write the generated pages again (docs-check: fail when they differ)
# make fuzz     feed random bytes to every parser, FUZZ_SECONDS each (default 60)
# make format   let ruff format and fix what it can
#
# Set-up needs Python 3.11 or newer, make and a package registry, and is done by itself: packages
# go into .venv, programs of the system through tools/bootstrap.py, which says what it cannot do.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
# The first Python that runs and is new enough; 3.11 first, because constraints.txt is made with it.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python3.14; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	then echo $$p; break; fi; done)
FUZZ_SECONDS ?= 60

.DEFAULT_GOAL := help
.PHONY: help venv os-test os-bench demo test check bench chaos bench-toolkit docs docs-check fuzz format clean

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

# ---- set-up, once: the stamps are files, so the second run is quick

venv: $(VENV)/.ready
$(VENV)/.ready: pyproject.toml constraints.txt tools/bootstrap.py
	@if [ -z "$(PYTHON)" ]; then echo "Python 3.11 or newer is needed: apt-get install python3 python3-venv" >&2; exit 1; fi
	$(PYTHON) tools/bootstrap.py venv $(VENV)
	@touch $@

# What the shop needs, for those who want to see it first.
$(VENV)/.demo: pyproject.toml constraints.txt tools/bootstrap.py
	@if [ -z "$(PYTHON)" ]; then echo "Python 3.11 or newer is needed: apt-get install python3 python3-venv" >&2; exit 1; fi
	$(PYTHON) tools/bootstrap.py venv $(VENV) demo
	@touch $@

os-test: $(VENV)/.os-test
os-bench: $(VENV)/.os-bench
$(VENV)/.os-%: tools/bootstrap.py $(VENV)/.ready
	$(BIN)/python tools/bootstrap.py programs $*
	@touch $@

# ---- what people run

demo: $(VENV)/.demo
	@$(BIN)/python -m headgate demo

test: venv os-test
	@$(BIN)/python tools/suite.py test

check: venv
	@$(BIN)/python tools/suite.py check

bench: venv os-bench
	$(BIN)/python -m benchmarks

chaos: venv os-bench
	$(BIN)/python -m benchmarks.weather

bench-toolkit: venv os-bench
	$(BIN)/python -m benchmarks.toolkit

docs: venv
	$(BIN)/python tools/docs.py

docs-check: venv
	$(BIN)/python tools/docs.py --check

fuzz: venv
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

format: venv
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
