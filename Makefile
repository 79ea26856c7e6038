# One-word commands. `make help` lists them.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

SAMPLE := data/sample
RUN := runs/sample

.DEFAULT_GOAL := help
.PHONY: help setup train test lint format types unit integration e2e lock clean

help: ## list the commands
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The lock pins every version; the editable install finds the code here.
$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint requirements.lock --editable '.[train,dev]'
	@touch $@

setup: $(STAMP) ## make .venv with everything that the project needs

train: $(STAMP) ## pretrain a small MiniMind on this machine for about two minutes, and let it write
	$(BIN)/minimind data sample --out $(SAMPLE)
	$(BIN)/minimind pretrain --config configs/sample.toml --save_dir $(RUN)/out \
		--checkpoint_dir $(RUN)/checkpoints $(TRAIN_FLAGS)
	@echo
	$(BIN)/minimind generate --weight $(RUN)/out/pretrain_256.pth --max_new_tokens 40 --seed 1 \
		--prompt "The function returns" --prompt "A list is" --prompt "If the file"
	@echo
	@echo "Next: go on where it stopped, for another epoch:"
	@echo "  make train TRAIN_FLAGS='--from_resume 1 --epochs 2 --max_minutes 4'"

test: lint types unit integration ## lint, types, unit and integration tests

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	git ls-files '*.sh' '*.sbatch' .ci/run | xargs --no-run-if-empty $(BIN)/shellcheck

types: $(STAMP)
	$(BIN)/mypy

unit: $(STAMP)
	$(BIN)/python -m pytest tests/unit

integration: $(STAMP)
	$(BIN)/python -m pytest tests/integration

e2e: $(STAMP) ## tests on a real Slurm cluster and a real Docker engine, on this machine
	$(BIN)/python -m pytest tests/e2e

format: $(STAMP) ## format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

test-transformers: $(STAMP) ## transformers' own common model tests, run on MiniMind (downloads its sources)
	$(BIN)/python tests/hf_common/run.py

lock: $(STAMP) ## pin the newest versions again (needs uv on the path)
	echo 'torch==2.13.0' | uv pip compile --universal --python-version 3.10 --extra train --extra dev \
		--no-header --no-annotate --constraint - pyproject.toml --output-file requirements.lock

clean: ## remove the environment, caches and what `make train` left
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis $(RUN) $(SAMPLE)
