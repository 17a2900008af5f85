# Everything here works on a machine with only Python (>= 3.11) and make: each target first sets up
# a virtual environment of its own in $(VENV).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q install -c constraints.txt

# One test process for each core, at most WORKERS.
WORKERS ?= 8
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses $(WORKERS) --dist worksteal

.PHONY: demo test cover soak check lint types eval-nano clean
.DELETE_ON_ERROR:

# Edit a handful of drawn pictures with the checkpoint that comes with joyedit.
demo: $(VENV)/run.stamp
	$(BIN)/python tools/draw_demo.py demo
	$(BIN)/joyedit run demo/manifest.yaml --model nano --output demo/edited
	@echo "Before and after: demo/pictures and demo/edited; side by side: demo/overview.png"
	@$(BIN)/python tools/draw_demo.py demo --overview

test: $(VENV)/dev.stamp
	$(PYTEST)

# The tests, and how much of joyedit/ they run; the least share that passes stands in pyproject.toml.
cover: $(VENV)/dev.stamp
	$(PYTEST) --cov --cov-report term

# The exhaustive series: every kill, fault, mutation and example, where `make test` takes samples of them.
soak: $(VENV)/dev.stamp
	JOYEDIT_SOAK=10 $(PYTEST) --timeout 3600

check: lint types
	$(MAKE) cover

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.stamp
	$(BIN)/mypy -p joyedit -p nano
	$(BIN)/mypy $(wildcard tools/*.py)

# How well the shipped checkpoint edits, and what planted faults cost: the table of tools/nano/RESULTS.md.
eval-nano: $(VENV)/run.stamp
	$(BIN)/python tools/eval_nano.py

# torch first and alone: its pin then holds whatever the other packages would accept.
$(VENV)/run.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) "torch>=2.8"
	$(PIP) -e .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	$(PIP) -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) build dist demo .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.*
