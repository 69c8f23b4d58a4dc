# Requires only Python 3.11 to 3.13, make and git; packages are installed from the lock files and checked against their hashes.
# Programs are called as `python -m NAME`: installed scripts contain the absolute path of .venv and fail after the checkout is moved.
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
SERVERS := build/servers
# One process per core, at most four because each loads TensorFlow. Tests of one file run in one process and share its fixtures.
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

.PHONY: help install format check test test-long test-kill test-launchers test-servers test-fast train sweep ui tensorboard bench docs notebook lock audit clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' Makefile

install: $(STAMP) ## create .venv with the exact locked versions (PYTHON= to choose the interpreter)

# The stamp contains the path of its checkout, so that a moved or copied checkout is installed again.
ifneq "$(shell cat $(STAMP) 2>/dev/null)" "$(CURDIR)"
.PHONY: $(STAMP)
endif
$(STAMP): pyproject.toml $(LOCKED)
	$(PIP) --no-deps --editable .
	@pwd -P > $@

# The file INTERRUPTED exists during an installation. If it is found here, packages may be incomplete and .venv is created again.
# Build tools are installed first: antlr4 is a source archive, and pip would download unchecked build tools for it otherwise.
$(LOCKED): requirements-build.lock requirements.lock
	@if [ -e $(INTERRUPTED) ] || ! $(PY) -c '$(SUPPORTED)' 2>/dev/null; then $(create_environment); fi
	@touch $(INTERRUPTED)
	$(PIP) --require-hashes -r requirements-build.lock
	$(PIP) --require-hashes -r requirements.lock
	@mv $(INTERRUPTED) $@

format: $(STAMP) ## format the code and apply the fixes of ruff
	$(PY) -m ruff format
	$(PY) -m ruff check --fix

check: $(STAMP) ## lint, format check, strict types
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

test: $(STAMP) ## run the tests, about 15 minutes (ARGS="-k NAME" to select)
	$(PYTEST) -m "not long" $(ARGS)

test-long: $(STAMP) ## run the long tests that `make test` leaves out
	$(PYTEST) -m long $(ARGS)

test-kill: $(STAMP) ## kill trainings at least 300 times and compare the results (ARGS="--seed 7 --kills 1000")
	$(PY) -m tests.killing.every_point $(ARGS)

# Ray requires older versions of packages that the other launchers share.
test-launchers: $(STAMP) ## run sweeps with joblib, Ray and submitit, also on clusters, in a separate environment
	$(PY) -m venv $(LAUNCHERS)
	$(LAUNCHERS)/bin/python $(INSTALL) --require-hashes -r requirements-build.lock
	$(LAUNCHERS)/bin/python $(INSTALL) --require-hashes -r requirements-launchers.lock
	$(LAUNCHERS)/bin/python $(INSTALL) --no-deps --editable .
	$(LAUNCHERS)/bin/python -m pytest -m "" tests/sweeps/test_launchers.py tests/sweeps/test_clusters.py $(ARGS)

# PostgreSQL is a package of the system, such as Debian's postgresql; the other servers are Python packages.
test-servers: $(STAMP) ## run trainings with PostgreSQL, S3 and an MLflow server with accounts, in a separate environment
	$(PY) -m venv $(SERVERS)
	$(SERVERS)/bin/python $(INSTALL) --require-hashes -r requirements-build.lock
	$(SERVERS)/bin/python $(INSTALL) --require-hashes -r requirements-servers.lock
	$(SERVERS)/bin/python $(INSTALL) --no-deps --editable .
	$(SERVERS)/bin/python -m pytest -m "" tests/servers tests/sweeps/test_shared_queue.py tests/sweeps/test_other_machines.py tests/sweeps/test_lost_database.py $(ARGS)

test-fast: $(STAMP) ## run only the tests that take at most a few seconds
	$(PYTEST) -m "not slow and not long" $(ARGS)

train: $(STAMP) ## train MobileNetV2 on drawn cats and dogs (ARGS="epochs=1 loop=tape")
	$(PY) -m experiments.train experiment=cats_dogs_synthetic $(ARGS)

sweep: $(STAMP) ## train one run per combination (ARGS="data=digits model=mlp,cnn"; sweep.preview=true shows the plan)
	$(PY) -m experiments.train -m $(or $(ARGS),$(SWEEP))

# MLflow's job execution serves its pages for language models only, and takes half a minute of CPU time to start.
ui: $(STAMP) ## start the MLflow UI for the runs of this folder (PORT=5000; MLFLOW_TRACKING_URI is used if set)
	@case "$${MLFLOW_TRACKING_URI:-}" in http*) echo "These runs are on a server: open the address in MLFLOW_TRACKING_URI."; exit;; esac; \
	echo "MLflow: http://127.0.0.1:$(or $(PORT),5000)/#/experiments/1/runs?workflowType=machine_learning (Ctrl+C stops it)"; \
	exec env MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(PY) -m mlflow ui --workers 1 --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}" --port $(or $(PORT),5000)

# TensorBoard's profile page does not follow links to folders. It gets real folders that contain links to the profile sessions,
# created at each start.
tensorboard: $(STAMP) ## start TensorBoard for all runs in outputs/ and multirun/ (PORT=6006)
	@rm -rf $(BOARD) && mkdir -p outputs multirun $(BOARD) && ln -s "$(CURDIR)/outputs" "$(CURDIR)/multirun" $(BOARD)
	@find outputs multirun -type d -path '*/plugins/profile' | while IFS= read -r folder; do \
		mkdir -p "$(BOARD)/profiles/$$folder" && ln -s "$(CURDIR)/$$folder"/* "$(BOARD)/profiles/$$folder"; \
	done
	@echo "TensorBoard: http://127.0.0.1:$(or $(PORT),6006) (Ctrl+C stops it)"; \
	exec $(PY) -m tensorboard.main --logdir $(BOARD) --port $(or $(PORT),6006)

bench: $(STAMP) ## compare a run with plain Keras; each script prints a ratio (benchmarks/ has more)
	@for name in startup first_step total_time loops tracking; do $(PY) benchmarks/$$name.py $(ARGS) || exit; done

# The variable turns off a notice of MkDocs Material about its end of life in May 2027. With --quiet, --strict has no effect.
docs: $(STAMP) ## build the documentation site into build/docs; broken links are errors
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict
	@echo "Documentation: build/docs/index.html"
	@echo "Its search needs a server: python -m http.server -d build/docs"

notebook: $(STAMP) ## execute the notebook of the documentation again
	$(PY) docs/execute_notebook.py

lock: $(STAMP) ## resolve the exact versions again (ARGS=--upgrade for newer versions)
	$(COMPILE) --extra profile --extra joblib --group dev pyproject.toml --output-file requirements.lock $(ARGS)
	$(COMPILE) --extra joblib --extra ray --extra slurm --group dev pyproject.toml --output-file requirements-launchers.lock $(ARGS)
	$(COMPILE) --extra s3 --extra postgres --group servers --group dev pyproject.toml --output-file requirements-servers.lock $(ARGS)
	$(COMPILE) --group build --constraints requirements.lock --output-file requirements-build.lock

# Without --strict, packages that the advisory service does not know would count as audited.
audit: $(STAMP) ## look up the locked versions in the database of known vulnerabilities (needs network access)
	$(PY) -m pip_audit --strict --disable-pip --require-hashes --progress-spinner off --requirement requirements.lock $(ARGS)

clean: ## remove caches and build output; keeps results, stores, data and .venv
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
