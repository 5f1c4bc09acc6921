# Needs Python 3.11 or newer, make and a package index. With npm the formulas are set when the book is built.
PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin
# Seconds for one cell: a reader waits for a slow machine, CI holds the budget.
NBVAL := --nbval-lax --nbval-current-env --nbval-cell-timeout=$(if $(CI),300,1800)
# One thread each: notebooks and tests run side by side, and threads that share a core wait.
THREADS := OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1}
PARTS := $(or $(filter notebooks,$(ONLY)),$(ONLY:%=tests/%),tests notebooks)
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Here a sentence of the text that its numbers contradict is an error (vdm_lite.text).
book test test-lowest: export VDM_LITE_STRICT = 1

# These look at the site, or through its tools, which only .venv has.
BOOKS_OWN := $(addprefix --ignore=tests/,site widgets/test_jupyterlab.py \
  widgets/test_training_panel.py widgets/test_widgets.py widgets/test_widget_denoiser.py)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: book serve lab test test-lowest mutate bench relink clean help

book: .venv/.ready node_modules/.ready ## build the site into _build/html (the first time runs every notebook)
	@TQDM_DISABLE=1 $(THREADS) $(BIN)/jupyter-book build -W -n --keep-going . || { \
	  rm -rf _build/.doctrees; \
	  echo "The build stopped at the warnings or failing cells above. Mend them, then: make book"; \
	  exit 1; }
	@echo "The book is ready: _build/html/index.html. To read it: make serve"

serve: book ## build, then show the site on this machine (PORT=8000)
	@$(BIN)/python tools/serve.py "$(PORT)"

lab: .venv/.ready ## open the chapters in JupyterLab
	@$(BIN)/jupyter lab notebooks

test: .venv/.referees book ## check the style, run all tests and every notebook (ONLY=widgets)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(THREADS) $(BIN)/python -m pytest -n auto --maxprocesses=4 --dist=loadfile $(NBVAL) $(PARTS)
	@echo "All tests passed. To compare the library with its peers: make bench"

test-lowest: .venv-lowest/library/.ready .venv-lowest/train/.ready ## try the lowest versions that we allow
	@$(THREADS) .venv-lowest/library/bin/python -m pytest $(NBVAL) notebooks
	@$(THREADS) .venv-lowest/train/bin/python -m pytest $(BOOKS_OWN) tests

mutate: .venv/.referees ## break the library on purpose: each equation's tests must notice (SAMPLE=4)
	@OMP_NUM_THREADS=1 $(BIN)/python tools/mutate.py $(if $(SAMPLE),--sample $(SAMPLE))

bench: book ## compare the library with its peers (speed, bits/dim) and time the widgets in Chromium
	@bash benchmarks/run.sh
	@$(BIN)/python benchmarks/widgets.py

relink: ## give the book its public address (REPO=https://github.com/org/name)
	@$(PYTHON) book/_ext/relink.py $(REPO)

clean: ## remove what the commands made, except the environments .venv and node_modules
	@rm -rf _build build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
	@echo "Clean. To build the book again: make book"

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) \
	  | awk -F'|' '{ printf "  %-16s %s\n", $$1, $$2 }'
	@echo "To start: make book"

.venv/.ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed: make book PYTHON=python3.12"; exit 1; }
	@echo "Installing the book's tools into .venv (once; some minutes, 2 GB)"
	@{ [ -e $(BIN)/activate ] && $(BIN)/python -m pip --version; } >/dev/null 2>&1 \
	  || $(PYTHON) -m venv --clear .venv # anew: venv writes activate last
	@$(BIN)/python -m pip install --progress-bar on -r requirements.txt
	@$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

# The lowest versions that pyproject.toml names and that have a wheel for this Python.
.venv-lowest/library/.ready: EXTRAS = test
.venv-lowest/train/.ready: EXTRAS = test train export
.venv-lowest/%/.ready: pyproject.toml
	@echo "Installing the lowest versions into $(@D) (some minutes, 5 to 9 GB)"
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet uv
	@$(@D)/bin/uv pip install --python $(@D)/bin/python --only-binary :all: \
	  --resolution lowest-direct -r pyproject.toml $(EXTRAS:%=--extra %)
	@$(@D)/bin/uv pip install --python $(@D)/bin/python --no-deps -e .
	@touch $@

.venv/.referees: .venv/.ready tests/requirements-referees.txt
	@echo "Installing the implementations that the tests compare with"
	@$(BIN)/python -m pip install --quiet --no-deps -r tests/requirements-referees.txt
	@touch $@

node_modules/.ready: package.json package-lock.json
	@if command -v npm >/dev/null; then \
	  echo "Fetching the browser files from npm"; \
	  npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && touch $@ || true; fi
