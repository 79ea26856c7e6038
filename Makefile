# One-word commands. `make help` lists them.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

SAMPLE := data/sample
RUN := runs/sample
IMAGE ?= minimind
SEED ?= 1
MINUTES ?= 5
PEERS := build/peers
DEVCLUSTER := $(BIN)/python slurm/devcluster
# Half of a test is waiting for a process to start or to stop: four at once for two processors.
PARALLEL := -n $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN) * 2 ))) --maxprocesses 8 --dist worksteal
# Hundreds of Pythons are started here, and each would compile the sources and the tests again.
unexport PYTHONDONTWRITEBYTECODE
# A GPU takes more steps in the same two minutes.
STEPS := $(if $(wildcard /dev/nvidia0),3000,300)

.DEFAULT_GOAL := help
.PHONY: help setup train test pytest lint format types unit integration e2e e2e-clusters e2e-slurms e2e-containers e2e-runtimes audit fuzz fuzz-guided chaos test-transformers \
	lock docs clean slurm-up slurm-down slurm-status build-image image-test push-image bench report-look

help: ## list the commands
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The lock pins every version; the editable install finds the code here.
$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint requirements.lock --editable '.[train,data,export,tensorboard,dev]'
	@touch $@

setup: $(STAMP) ## make .venv with everything that the project needs

train: $(STAMP) ## pretrain a small MiniMind on this machine about two minutes, then let it write
	$(BIN)/minimind data sample --out $(SAMPLE)
	$(BIN)/minimind pretrain --config configs/sample.toml --save_dir $(RUN)/out \
		--checkpoint_dir $(RUN)/checkpoints --max_steps $(STEPS) $(TRAIN_FLAGS)
	@echo
	$(BIN)/minimind generate --weight $(RUN)/out/pretrain_256.pth --max_new_tokens 40 --seed 1 \
		--prompt "The function returns" --prompt "A list is" --prompt "If the file"
	@echo
	@echo "Next, the whole of it on your own text:"
	@echo "  $(BIN)/minimind pretrain --data_path your.jsonl --epochs 1 --recipe fast"

# One session for all tests: each process of it takes seconds to start. Types need one processor.
test: lint ## lint, types, unit and integration tests
	$(MAKE) --no-print-directory --jobs 2 types pytest

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python -m tools.check_layers
	$(BIN)/python -m tools.check_devices
	git ls-files '*.sh' '*.sbatch' .ci/run | xargs --no-run-if-empty $(BIN)/shellcheck
	$(BIN)/hadolint docker/Dockerfile

types: $(STAMP)
	$(BIN)/mypy

pytest: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) tests/unit tests/fuzz tests/integration

unit: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) tests/unit tests/fuzz

integration: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) tests/integration

slurm-up: $(STAMP) ## a real Slurm of two nodes on this machine; SLURM_FLAGS='--nodes 4 --netns'
	$(DEVCLUSTER) up $(SLURM_FLAGS)

slurm-down: $(STAMP) ## stop that cluster and remove all of it
	$(DEVCLUSTER) down

slurm-status: $(STAMP) ## say what of that cluster runs
	$(DEVCLUSTER) status

build-image: ## build the container image; docs/docker.md has the variables
	docker/build.sh $(IMAGE)

image-test: $(STAMP) ## test the image that build-image built
	MINIMIND_TEST_IMAGE=$(IMAGE) $(BIN)/python -m pytest tests/e2e/docker/test_image.py

push-image: ## push the image; REGISTRY=registry.example.org/team
	@test -n "$(REGISTRY)" || { echo "REGISTRY= is empty; say where to push" >&2; exit 2; }
	docker tag $(IMAGE) $(REGISTRY)/$(IMAGE)
	docker push $(REGISTRY)/$(IMAGE)

e2e: $(STAMP) ## tests on a real Slurm cluster and a real Docker engine, on this machine
	$(MAKE) --no-print-directory --jobs 2 e2e-clusters e2e-containers

# Most of the time these wait for Slurm, and do so side by side: a cluster of its own for each file.
e2e-clusters: $(STAMP)
	$(BIN)/python -m pytest --timeout 1500 -n 3 --dist loadfile --ignore tests/e2e/docker tests/e2e

# Other releases than this machine's, and other sites: Debian's packages in chroots. Outside CI.
SITES := '--release trixie' '--release trixie --stepmgr' '--release trixie --accounting' \
	'--release sid' '--release sid --stepmgr' '--release sid --accounting --expedite'

e2e-slurms: $(STAMP) ## the survival tests on Slurm 24.11 and 26.05 in chroots, as root: two to three hours
	for site in $(SITES); do echo "== $$site"; \
		MINIMIND_E2E_SITE="$$site" $(BIN)/python -m pytest --timeout 1500 \
			tests/e2e/test_survival.py tests/e2e/test_queue.py tests/e2e/test_site.py \
			tests/e2e/test_node_loss.py || exit 1; \
	done

e2e-containers: $(STAMP)
	$(BIN)/python -m pytest --timeout 1500 --ignore tests/e2e/docker/runtimes tests/e2e/docker

# The runtimes of other releases than this machine's: Debian's packages in roots. Outside CI.
e2e-runtimes: $(STAMP) ## a run in podman, apptainer and charliecloud of trixie and sid, as root
	$(BIN)/python -m pytest --timeout 3600 -s tests/e2e/docker/runtimes

chaos: $(STAMP) ## interfere with runs at random moments; SEED=7 MINUTES=10 CHAOS_FLAGS='--layer slurm'
	$(BIN)/python -m tests.chaos --seed $(SEED) --minutes $(MINUTES) $(CHAOS_FLAGS)

audit: $(STAMP) ## ask for known vulnerabilities of the pinned dependencies (needs a network)
	$(BIN)/python .ci/audit.py

fuzz: $(STAMP) ## damage all that the programs read, with new examples each time; MINUTES=15
	end=$$(( $$(date +%s) + 60 * $(MINUTES) )); while [ $$(date +%s) -lt $$end ]; do \
		FUZZ_EXAMPLES=$(or $(EXAMPLES),300) $(BIN)/python -m pytest -q --exitfirst --timeout 1800 tests/fuzz || exit 1; \
	done

fuzz-guided: $(STAMP) ## the same, guided by what each input reaches (libFuzzer); MINUTES=15
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'atheris>=3,<4'
	$(BIN)/python -m tests.fuzz.guided --minutes $(MINUTES)

# What only the peers need, apart from .venv: it would change how our trainer starts.
$(PEERS)/.installed: benchmarks/peers/requirements.txt $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --no-deps \
		--target $(PEERS) --requirement $<
	@touch $@

bench: $(STAMP) $(PEERS)/.installed ## a short look at all benchmarks; BENCH=throughput ARGS='--help': one
	$(BIN)/python -m benchmarks$(if $(BENCH),.$(BENCH)) $(ARGS)

docs: $(STAMP) ## write docs/reference.md from the code
	$(BIN)/python docs/make_reference.py

format: $(STAMP) ## format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

test-transformers: $(STAMP) ## transformers' own common model tests, run on MiniMind (downloads its sources)
	$(BIN)/python tests/hf_common/run.py

report-look: $(STAMP) ## pictures of a report in a real Chromium, light, dark and on a phone; RUN=runs/my-run
	$(BIN)/python -m tests.look.report $(RUN)

lock: $(STAMP) ## pin the newest versions again (needs uv on the path)
	echo 'torch==2.13.0' | uv pip compile --universal --python-version 3.10 --extra train --extra data --extra export --extra tensorboard \
		--extra dev --no-header --no-annotate --constraint - pyproject.toml --output-file requirements.lock

clean: ## remove the environment, caches and what `make train` left
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis $(RUN) $(SAMPLE)
