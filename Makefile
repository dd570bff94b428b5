.DEFAULT_GOAL := help
.PHONY: help book test lint scoreboard serve clean

PYTHON ?= python3
CORES ?= 2
SCALE ?= quick
PORT ?= 8000

BIN := .venv/bin
READY := .venv/.ready

# One thread a process: chapters and tests run side by side. A set MPLBACKEND would hide notebook figures.
export OMP_NUM_THREADS ?= 1
export REPRISE_CACHE ?= $(CURDIR)/_build/cache
unexport MPLBACKEND

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*##\(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-20s%s\n", $$1, $$2}'
	@echo "Settings: CORES=$(CORES) SCALE=$(SCALE) (quick or full) PORT=$(PORT)"

$(READY): requirements.txt lock.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -c lock.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

book: $(READY)  ## execute the chapters that changed and build the book
	@$(BIN)/snakemake --snakefile workflow/Snakefile --cores $(CORES) --config scale=$(SCALE) \
		--keep-going --rerun-incomplete --show-failed-logs --quiet host reason
	@$(BIN)/reprise claims
	@echo "The book: file://$(CURDIR)/_build/html/index.html (make serve shows it at localhost:$(PORT))"

test: $(READY) lint  ## lint, tests, and every notebook through nbval
	$(BIN)/python -m pytest -q -n $(CORES) --dist loadfile --nbval-lax --nbval-current-env

lint: $(READY)  ## ruff
	$(BIN)/ruff check .

scoreboard: $(READY)  ## the verdicts of the chapters executed last
	@$(BIN)/reprise claims

serve: $(READY)  ## show the built book at localhost
	$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

clean:  ## remove everything built or cached, not the environment
	rm -rf _build .snakemake .pytest_cache .ruff_cache
