# Two commands: `make run` and `make test`. Needs Python 3.11+ and make; everything else comes from requirements.lock.
PYTHON ?= python3
DATE ?= 2026-02-05
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# A clearing day starts some thirty processes: none of them shall compile Python's libraries anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run calibrate up test test-fast lint docs bench bench-day lock clean distclean

help: ## List all commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo "  .venv/bin/margin --help lists the commands of the pipeline itself"

$(READY): requirements.lock pyproject.toml
	@echo "making the environment in $(VENV) from requirements.lock"
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] < (3, 14) else "Python 3.11, 3.12 or 3.13 is needed: make run PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)
	@awk '/^uv==/ {on = 1} on {print} on && !/\\$$/ {exit}' requirements.lock > $(VENV)/installer.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/installer.txt
	@$(BIN)/uv pip sync --quiet --require-hashes --python $(BIN)/python requirements.lock \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --offline --python $(BIN)/python --editable .
	@touch $@

run: $(READY) ## Run the clearing day of the sample, from feeds to margin calls (DATE=2026-02-05)
	@$(BIN)/margin run --date $(DATE) --source sample

calibrate: $(READY) ## Calibrate on the sample's history, write the report, leave a proposal waiting (DATE=2026-02-05)
	@$(BIN)/margin calibrate --date $(DATE) --source sample

up: $(READY) ## Start Airflow with its pages on the same home
	@$(BIN)/margin up

# Published cases first, in one process, which keeps the record of them; what starts servers and whole days by itself.
test: $(READY) lint ## Run all checks and tests; those marked services start real servers
	@echo "published cases";  $(BIN)/python -m pytest tests/reference
	@echo "without servers";  $(BIN)/python -m pytest --ignore tests/reference -m "not services and not e2e" -n 2 --dist loadfile --no-loadscope-reorder
	@echo "with servers, and whole clearing days"; $(BIN)/python -m pytest tests/services tests/e2e -n 2 --dist loadfile --no-loadscope-reorder

test-fast: $(READY) ## Run the tests that need neither servers nor whole clearing days
	@$(BIN)/python -m pytest -m "not services and not e2e" -n 2 --dist loadfile

lint: $(READY) ## Check style, types, layers and SQL
	@echo "ruff";         $(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check .
	@echo "mypy";         $(BIN)/mypy --no-error-summary
	@echo "import-linter"; mkdir -p build; $(BIN)/lint-imports > build/imports.txt || { cat build/imports.txt; exit 1; }
	@mkdir -p build; echo "sqlfluff";     $(BIN)/sqlfluff lint --nocolor --disable-progress-bar dbt_project > build/sqlfluff.txt 2>&1 || { cat build/sqlfluff.txt; exit 1; }
	@echo "generated documents"; $(BIN)/python -m margin_tasks.contracts.generate --check

docs: $(READY) ## Write the generated documents: data dictionary and dbt sources
	@$(BIN)/python -m margin_tasks.contracts.generate

bench: $(READY) ## Measure pricing kernels and the risk step against their peers (writes build/bench.json)
	@$(BIN)/python -m benchmarks

bench-day: $(READY) ## Measure whole clearing days by part
	@$(BIN)/python -m benchmarks.clearing_day

lock: $(READY) ## Resolve the dependencies again and write requirements.lock
	@$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --quiet --upgrade --output-file requirements.lock

clean: ## Remove what tests and builds wrote; runs and reports stay
	@rm -rf build .mypy_cache .ruff_cache .hypothesis dbt_project/target dbt_project/logs

distclean: clean ## Remove the environment and the home with all runs, too
	@rm -rf $(VENV) var
