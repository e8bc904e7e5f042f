# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
RUN ?= runs/demo
# Builds from source obey the constraints, too: Flower's iterators needs a setuptools before 81.
# Bytecode is compiled on first import, only for what is imported: a quarter off the time to the first number.
PIP := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile

.PHONY: demo test test-all check docs clean

demo: $(VENV)/.demo
	$(VENV)/bin/planish demo --run $(RUN)

test: $(VENV)/.dev check
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -n $(JOBS) --dist loadgroup -m "not long"

test-all: $(VENV)/.dev check
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -n $(JOBS) --dist loadgroup

check: $(VENV)/.dev docs
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/basedpyright

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) site

$(VENV)/.pip:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.demo: $(VENV)/.pip pyproject.toml constraints.txt
	@echo "installing Planish and its engines (about a minute)"
	$(PIP) --editable '.[cpu,zoo,report]'
	$(VENV)/bin/python -m planish.models.data
	touch $@

$(VENV)/.dev: $(VENV)/.pip pyproject.toml constraints.txt
	@echo "installing Planish, its engines and its tools (about two minutes)"
	$(PIP) --editable '.[cpu,gpu,fpga,zoo,search,federated,launch,report,families,peers,tables,docs,dev]'
	$(VENV)/bin/python -m planish.models.data
	touch $@
