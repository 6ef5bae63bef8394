# make demo and make test do everything, set-up included. PYTHON: the interpreter to use; SOURCE: where Detectron2 comes from (see
# tools/install_detectron2.py --help); VENV: the folder of the environment.
PYTHON ?= python3
SOURCE ?= auto
VENV ?= .venv
RUN = $(VENV)/bin/python

.PHONY: help setup demo test test-long test-gpu lint format clean

help:
	@echo "make demo       set up, train the demo detector, evaluate it, draw its predictions (output/demo)"
	@echo "make test       set up, lint, check the import contract, run the tests"
	@echo "make test-long  the tests that take long"
	@echo "make test-gpu   the tests that need a GPU"
	@echo "make setup      the environment alone ($(VENV))"
	@echo "make format     let ruff format the code"

setup:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "setup: $(PYTHON) is `$(PYTHON) --version 2>&1`: Python 3.11 or later is needed. Say which: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) tools/setup_env.py --venv $(VENV) --source "$(SOURCE)"

demo: setup
	$(RUN) tools/train_net.py --config-file configs/demo/mask_rcnn_R_18_FPN.yaml --overwrite
	@rm -rf output/demo/predictions
	$(RUN) tools/visualize.py --config-file output/demo/config.yaml --results output/demo/inference/coco_instances_results.json \
	  --output output/demo/predictions --num-images 16
	@echo "Results: output/demo/results.json. Pictures, ground truth beside predictions: output/demo/predictions/"

test: setup lint
	-@$(PYTHON) tools/install_chromium.py
	$(RUN) -m pytest -n 2 --dist worksteal -m "not long"

test-long: setup
	$(RUN) -m pytest -m long

test-gpu: setup
	$(RUN) -m pytest tests/gpu -m gpu

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(VENV)/bin/lint-imports

format: setup
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf output build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache
