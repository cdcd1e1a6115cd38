# make setup | demo | test | lint | lock | clean
# Everything runs in .venv, which whatever needs it first makes from a bare python3 (3.11 or newer).
PYTHON ?= python3
THREADS ?= 1
WORKERS ?= 2
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup demo test lint lock clean

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.version_info < (3, 11) and sys.exit(\
	    f"Python 3.11 or newer is needed, and $(PYTHON) is {v}. Name another: make setup PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@# uv, since it takes a CUDA or CPU build of torch and the torchvision that fits it from one place
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.7"
	$(BIN)/uv pip sync --quiet --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: setup
	$(BIN)/python jobs/demo.py

# Two processes side by side, since tests that start Ray wait for it more than they work. Threads beside processes on
# shared cores make them slower, not faster. A single test with a debugger: .venv/bin/python -m pytest tests/...
test: setup
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadgroup

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Keeps the versions that are locked; delete requirements.lock first to take the newest.
lock:
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --generate-hashes \
	    --no-header --no-annotate --output-file requirements.lock pyproject.toml

clean:
	rm -rf build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
