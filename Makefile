# Both commands set up everything they need in .venv.
#   make run              play the embedded course for 20 minutes; make run BUDGET=8h for a night
#   make test             every check; AGENTGOLF_REQUIRE_DOCKER=1 also installs and starts Docker (root, Debian)
#   make image            build the Docker image of the embedded course
BUDGET ?= 20m
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test image clean

# Exit code 3 says that no improvement was found: an answer, not a failure.
run: $(VENV)/.ready-run
	$(BIN)/agentgolf run --budget $(BUDGET) $(ARGS) || [ $$? -eq 3 ]

test: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check agentgolf tests benchmarks
	$(BIN)/mypy
	@if [ "$$AGENTGOLF_REQUIRE_DOCKER" = 1 ]; then scripts/docker.sh engine image; fi
	$(BIN)/pytest

image: $(VENV)/.ready-run
	scripts/docker.sh image

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready-run: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.ready-test: $(VENV)/.ready-run
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
