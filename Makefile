PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test check fix proto coverage soak bench wheel clean

help:  ## show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# One virtual environment for everything; made again when the project's dependencies change.
$(VENV)/.run: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("RestPipe needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else None'
	@echo "Installing RestPipe into $(VENV) (about a minute the first time) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $@

demo: $(VENV)/.run  ## run a server and a client here, joined by mTLS, and print curl lines to try
	@exec $(BIN)/restpipe demo

test: $(VENV)/.dev  ## run every test
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

check: $(VENV)/.dev  ## lint, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

fix: $(VENV)/.dev  ## format, and repair what the linter can
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

proto: $(VENV)/.dev  ## generate gen/ from protos/
	@rm -f gen/restpipe_pb/v1/pipe_pb2*
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc --proto_path=protos \
		--python_out=gen --mypy_out=gen --grpc_python_out=gen protos/restpipe_pb/v1/pipe.proto
	@touch gen/restpipe_pb/__init__.py gen/restpipe_pb/v1/__init__.py gen/restpipe_pb/py.typed

coverage: $(VENV)/.dev  ## branch coverage of the protocol core
	@$(BIN)/coverage run -m pytest -q tests/protocol
	@$(BIN)/coverage report --include 'restpipe/protocol/*' --fail-under 100

soak: $(VENV)/.dev  ## hurt twenty nodes under load for five minutes; SEED= repeats a run, DURATION= is in seconds
	@$(BIN)/python -m pytest -q -rP --long -m long tests/faults
	@PYTHONPATH=tests/e2e $(BIN)/python tests/faults/soak.py $(if $(SEED),--seed $(SEED)) $(if $(DURATION),--duration $(DURATION))

$(VENV)/.bench: $(VENV)/.dev
	@$(BIN)/python -m pip install --quiet --group bench
	@touch $@

bench: $(VENV)/.bench  ## measure it beside other tools; ONLY="small bulk" for some, QUICK=1 for a try
	@PYTHONPATH=tests/e2e $(BIN)/python tests/bench/run.py $(ONLY) $(if $(QUICK),--quick)

wheel: $(VENV)/.dev  ## build the wheel and the source archive into dist/
	@$(BIN)/python -m build --outdir dist .

clean:  ## remove everything that was built
	@rm -rf $(VENV) build dist .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .schemathesis
