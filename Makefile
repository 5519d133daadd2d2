# `make demo` trains, evaluates and reports a small CLSP; `make test` runs the tests.
# `make serve`, after `make demo`, opens a page to try the model and to search its test set.
# `make release-check` builds sdist and wheel of the last commit, installs both into new environments
# of the Pythons that PYTHONS names, runs them there, and leaves them in dist.
# `make docs` builds the site of the documentation, docs/_build/html/index.html.
# All make .venv first if it is not there. None needs a GPU.

PYTHON ?= python3
PYTHONS ?= python3.10 python3.13
DATA := $(CURDIR)/data/mini_fcaps
RESULTS := $(CURDIR)/results/mini
RECIPE := recipes/FCaps/CLSP
BIN := $(CURDIR)/.venv/bin

.PHONY: demo serve test lint docs release-check clean

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --editable ".[mini,dev]"
	touch $@

# Two processes of one thread and half a batch each: here faster than one process of two threads.
demo: .venv/.installed
	cd $(RECIPE) && OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc_per_node=2 \
		train.py hparams/mini.yaml --data_folder=$(DATA) --output_folder=$(RESULTS) \
		--device=cpu --distributed_backend=gloo --batch_size=16 --num_threads=1

serve: .venv/.installed
	test -d $(RESULTS)/model || (echo "There is no model yet: run make demo first"; exit 1)
	test $(RESULTS)/index/index.json -nt $(RESULTS)/model/model.safetensors || ( \
		rm -rf $(RESULTS)/store $(RESULTS)/index && $(BIN)/clsp embed $(DATA)/test.arrow \
		--output $(RESULTS)/store --model $(RESULTS)/model \
		&& $(BIN)/clsp index $(RESULTS)/store --output $(RESULTS)/index)
	$(BIN)/clsp serve --model $(RESULTS)/model --index $(RESULTS)/index

test: .venv/.installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest --quiet --numprocesses=2 --dist=loadfile

lint: .venv/.installed
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

docs: .venv/.installed
	$(BIN)/python -m sphinx -c docs -b html -W --keep-going . docs/_build/html

release-check: .venv/.installed
	$(BIN)/python -m tests.consistency.release --pythons $(PYTHONS) --output dist

clean:
	rm -rf .venv data dist results docs/_build docs/api
