# Two commands do all set-up on a fresh machine: `make sweep` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: setup sweep test test-slow soak check report dashboard clean
.DEFAULT_GOAL := setup

setup: $(STAMP) ## make .venv and install everything into it

$(STAMP): pyproject.toml constraints.txt .ci/setup
	PYTHON="$(PYTHON)" VENV="$(VENV)" bash .ci/setup
	@touch $(STAMP)

sweep: $(STAMP) ## the paper's grid on the bundled corpus, report at the end
	$(BIN)/python -m orchestrator sweep paper_grid

# A file of tests at a time on each core; more threads in each would only be in each other's way.
test: $(STAMP) ## every test but the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 4 --dist loadfile $(PYTEST_ARGS)

test-slow: $(STAMP) ## minutes-long tests
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

soak: $(STAMP) ## a sweep whose processes are killed 30 times: nothing may be lost, run twice, or wrong
	$(BIN)/python -m tests.faults.soak --kills 30 $(SOAK_ARGS)

check: $(STAMP) ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

report: $(STAMP) ## write the report of the last paper grid again
	$(BIN)/python -m orchestrator report runs/paper_grid

dashboard: $(STAMP) ## MLflow's pages on the results
	$(BIN)/python -m orchestrator dashboard

clean: ## remove the environment and tool caches; results in runs/ stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
