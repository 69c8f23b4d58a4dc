# Only Python 3.11 to 3.13, make and git are assumed; everything else comes from the locks, checked against their hashes.
# Programs are called as `python -m NAME`: their scripts hold the path of the environment, which breaks when the checkout moves.
.DEFAULT_GOAL := help

PY := .venv/bin/python
STAMP := .venv/.installed
LOCKED := .venv/.locked
INTERRUPTED := .venv/.installing
SUPPORTED := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
CANDIDATES = $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11)
INSTALL := -m pip install --disable-pip-version-check --no-build-isolation
PIP := $(PY) $(INSTALL)
COMPILE := $(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock"
BOARD := build/tensorboard
LAUNCHERS := build/launchers
# A process a core, four at most, as each holds a TensorFlow; a file's tests stay together and share what they made.
PYTEST := $(PY) -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
SWEEP := data=digits model=mlp,cnn epochs=2

define create_environment
for python in $(CANDIDATES) ""; do "$$python" -c '$(SUPPORTED)' 2>/dev/null && break; done; \
if [ -z "$$python" ]; then \
	echo 'No Python 3.11, 3.12 or 3.13 with its venv module found, tried: $(CANDIDATES). Install one, or name it: make install PYTHON=/path/to/python3.12' >&2; \
	exit 1; \
fi; \
rm -f $(PY) && rm -rf .venv && mkdir .venv && touch $(INTERRUPTED) && "$$python" -m venv .venv
endef

.PHONY: help install format check test test-long test-kill test-launchers test-fast train sweep ui tensorboard bench lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' Makefile

install: $(STAMP) ## create .venv with the exact locked versions (PYTHON= to choose the interpreter)

# The stamp holds its folder: a moved or copied checkout installs itself anew instead of running the old one.
ifneq "$(shell cat $(STAMP) 2>/dev/null)" "$(CURDIR)"
.PHONY: $(STAMP)
endif
$(STAMP): pyproject.toml $(LOCKED)
	$(PIP) --no-deps --editable .
	@pwd -P > $@

# An installation that was cut short left its mark: packages may be half written, so it starts from nothing.
# The build tools come first, for antlr4 is a source archive and would fetch unchecked ones otherwise.
$(LOCKED): requirements-build.lock requirements.lock
	@if [ -e $(INTERRUPTED) ] || ! $(PY) -c '$(SUPPORTED)' 2>/dev/null; then $(create_environment); fi
	@touch $(INTERRUPTED)
	$(PIP) --require-hashes -r requirements-build.lock
	$(PIP) --require-hashes -r requirements.lock
	@mv $(INTERRUPTED) $@

format: $(STAMP) ## format the code and mend what ruff can mend
	$(PY) -m ruff format
	$(PY) -m ruff check --fix

check: $(STAMP) ## lint, format check, strict types
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

test: $(STAMP) ## the tests, in a quarter of an hour (ARGS="-k word" to choose)
	$(PYTEST) -m "not long" $(ARGS)

test-long: $(STAMP) ## those that show in more places what `make test` shows
	$(PYTEST) -m long $(ARGS)

test-kill: $(STAMP) ## kill trainings 300 times at least, and compare (ARGS="--seed 7 --kills 1000")
	$(PY) -m tests.killing.every_point $(ARGS)

# Ray wants older versions of what the others share.
test-launchers: $(STAMP) ## one sweep through joblib, Ray and submitit each, in an environment of their own
	$(PY) -m venv $(LAUNCHERS)
	$(LAUNCHERS)/bin/python $(INSTALL) --require-hashes -r requirements-build.lock
	$(LAUNCHERS)/bin/python $(INSTALL) --require-hashes -r requirements-launchers.lock
	$(LAUNCHERS)/bin/python $(INSTALL) --no-deps --editable .
	$(LAUNCHERS)/bin/python -m pytest tests/sweeps/test_launchers.py $(ARGS)

test-fast: $(STAMP) ## the tests that take a few seconds at most
	$(PYTEST) -m "not slow and not long" $(ARGS)

train: $(STAMP) ## the main job on drawn cats and dogs (ARGS="epochs=1 loop=tape")
	$(PY) -m experiments.train experiment=cats_dogs_synthetic $(ARGS)

sweep: $(STAMP) ## one run for each combination (ARGS="data=digits model=mlp,cnn"; sweep.preview=true shows the plan first)
	$(PY) -m experiments.train -m $(or $(ARGS),$(SWEEP))

# The queue of jobs of MLflow's pages for language models takes half a minute of processor to start.
ui: $(STAMP) ## the MLflow page over this folder's runs (PORT=5000; MLFLOW_TRACKING_URI is honoured)
	@case "$${MLFLOW_TRACKING_URI:-}" in http*) echo "A server keeps these runs: open the address in MLFLOW_TRACKING_URI."; exit;; esac; \
	echo "MLflow: http://127.0.0.1:$(or $(PORT),5000)/#/experiments/1/runs?workflowType=machine_learning (Ctrl+C stops it)"; \
	exec env MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(PY) -m mlflow ui --workers 1 --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}" --port $(or $(PORT),5000)

# The profile page follows no links and takes one folder only: it gets real folders whose sessions are links, made at each start.
tensorboard: $(STAMP) ## TensorBoard over every run in outputs/ and multirun/ (PORT=6006)
	@rm -rf $(BOARD) && mkdir -p outputs multirun $(BOARD) && ln -s "$(CURDIR)/outputs" "$(CURDIR)/multirun" $(BOARD)
	@find outputs multirun -type d -path '*/plugins/profile' | while IFS= read -r folder; do \
		mkdir -p "$(BOARD)/profiles/$$folder" && ln -s "$(CURDIR)/$$folder"/* "$(BOARD)/profiles/$$folder"; \
	done
	@echo "TensorBoard: http://127.0.0.1:$(or $(PORT),6006) (Ctrl+C stops it)"; \
	exec $(PY) -m tensorboard.main --logdir $(BOARD) --port $(or $(PORT),6006)

bench: $(STAMP) ## what a run costs beside plain Keras: each script prints a ratio (benchmarks/ has more)
	@for name in startup first_step total_time loops tracking; do $(PY) benchmarks/$$name.py $(ARGS) || exit; done

lock: $(STAMP) ## resolve the exact versions again (ARGS=--upgrade for newer ones)
	$(COMPILE) --extra profile --extra joblib --group dev pyproject.toml --output-file requirements.lock $(ARGS)
	$(COMPILE) --extra joblib --extra ray --extra slurm --group dev pyproject.toml --output-file requirements-launchers.lock $(ARGS)
	$(COMPILE) --group build --constraints requirements.lock --output-file requirements-build.lock

clean: ## remove caches and build output; results, stores, data and .venv stay
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
