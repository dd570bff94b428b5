.DEFAULT_GOAL := help
.PHONY: help env book test browser lint scoreboard serve watch epub linkcheck bench clean

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

env: $(READY)  ## make .venv with everything in it

book: $(READY)  ## execute the chapters that changed and build the book
	@$(BIN)/snakemake --snakefile workflow/Snakefile --cores $(CORES) --config scale=$(SCALE) \
		--keep-going --rerun-incomplete --show-failed-logs --quiet host reason
	@$(BIN)/reprise claims
	@echo "The book: file://$(CURDIR)/_build/html/index.html (make serve shows it at localhost:$(PORT))"

test: $(READY) lint  ## lint, tests, and every notebook through nbval
	$(BIN)/python -m pytest -q -n $(CORES) --dist loadfile --nbval-lax --nbval-current-env

browser: $(READY)  ## the built book in Chromium, page by page (skipped without a browser)
	$(BIN)/python -m pytest -q tests/test_browser.py -k "not tiny"

lint: $(READY)  ## ruff
	$(BIN)/ruff check .

scoreboard: $(READY)  ## the verdicts of the chapters executed last
	@$(BIN)/reprise claims

serve: $(READY)  ## show the built book at localhost
	$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

watch: $(READY)  ## run and render NAME=slug again whenever its notebook or the book's pages change
	$(BIN)/python workflow/watch.py $(NAME)

epub: $(READY)  ## the book as one file, _build/epub/reprise.epub, from the chapters executed last
	$(BIN)/python workflow/stage.py _build/stage
	$(BIN)/python workflow/render.py _build/stage _build/epub epub

linkcheck: $(READY)  ## follow every external link (needs a network)
	$(BIN)/python workflow/stage.py _build/stage
	$(BIN)/python workflow/render.py _build/stage _build/links linkcheck

bench: $(READY)  ## time the kernel beside a plain loop, vmap by hand and JAX (about half an hour)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[bench]" -c lock.txt
	env -u OMP_NUM_THREADS $(BIN)/python -m benchmarks $(BENCH)

clean:  ## remove everything built or cached, not the environment
	rm -rf _build .snakemake .pytest_cache .ruff_cache
