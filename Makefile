# make demo: trains the small model on drawn shapes and writes a report. make test: the test suite. Both install first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
THREADS := 2
DEMO_CONFIG := config/toy_rec_llava.py
DEMO_DIR := work_dirs/demo

.PHONY: demo test test-slow lint clean
.DELETE_ON_ERROR:

demo: $(VENV)/.ok
	OMP_NUM_THREADS=$(THREADS) $(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no \
		--dynamo_backend no --cpu --quiet mllm/pipeline/finetune.py $(DEMO_CONFIG) \
		--output_dir $(DEMO_DIR) --overwrite_output_dir

test: $(VENV)/.ok
	$(BIN)/python -m pytest

test-slow: $(VENV)/.ok
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.ok
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(VENV)/.ok: requirements.txt setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "mllm needs Python 3.10 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "$(PYTHON) has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
