# `make demo` trains, evaluates and reports a small CLSP; `make test` runs the tests.
# Both make .venv first if it is not there. Neither needs a GPU.

PYTHON ?= python3
DATA := $(CURDIR)/data/mini_fcaps
RESULTS := $(CURDIR)/results/mini
RECIPE := recipes/FCaps/CLSP
BIN := $(CURDIR)/.venv/bin

.PHONY: demo test lint clean

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --editable ".[mini,dev]"
	touch $@

# Two processes of one thread and half a batch each: here faster than one process of two threads.
demo: .venv/.installed
	cd $(RECIPE) && OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc_per_node=2 \
		train.py hparams/mini.yaml --data_folder=$(DATA) --output_folder=$(RESULTS) \
		--device=cpu --distributed_backend=gloo --batch_size=16 --num_threads=1

test: .venv/.installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest --quiet --numprocesses=2 --dist=loadfile

lint: .venv/.installed
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean:
	rm -rf .venv data results
