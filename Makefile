# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

.PHONY: demo test lint bench dist clean docs

demo: $(VENV)/installed ## segment a 3D volume and draw what was found
	$(BIN)/anystar-batch demo demo

test: $(VENV)/installed-dev ## the whole suite, three files at a time: a third of it waits
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations 25

lint: $(VENV)/installed-dev ## style, types, rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed-dev ## geometry against StarDist, one run
	$(BIN)/python -m bench.stars

dist: $(VENV)/installed-dev ## sdist, and of it the wheel, into dist/
	$(BIN)/python -m build --no-isolation --outdir dist .

clean: ## everything that these commands made
	rm -rf $(VENV) .bootstrap demo dist

# A Debian python3 may lack ensurepip; virtualenv brings its own.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV) 2>/dev/null || { \
	  rm -rf $(VENV); \
	  $(PYTHON) -m pip install --quiet --target .bootstrap virtualenv && \
	  PYTHONPATH=.bootstrap $(PYTHON) -m virtualenv --quiet $(VENV); }

$(VENV)/installed: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e '.[cpu]'
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(INSTALL) -e '.[cpu,cloud,dev]'
	touch $@

docs: $(VENV)/installed-dev ## the site, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
