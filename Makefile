# Every target does the set-up that it needs and can be run again at any time. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PROFILE ?= desk
# ONLY=NAME runs one notebook, UPDATE=1 replaces committed files by new results, RECOMPUTE=1 computes all tables again.
ONLY ?=
UPDATE ?=
RECOMPUTE ?=

export MEM2GEN_RECOMPUTE := $(RECOMPUTE)

ENV := source tools/env.sh
STAGE := tools/stage.sh

.PHONY: help setup system python kernel build test reproduce notebooks lab gallery docs latency bench-peers bench-train bench-lpips bench-landscape bench-classify torture gpu-report dist dist-check doctor check check-cuda check-slurm clippy rust-tests fuzz harness-tests kernels-check kernels-ptx clean distclean

help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' Makefile | expand -t 18

setup: ## Install all that the other targets need: packages, Python, notebook kernel, KaTeX, data
	@tools/setup.sh all

system:
	@tools/setup.sh system

python:
	@tools/setup.sh system python

kernel:
	@tools/setup.sh system python tools kernel

build: system ## Build the program, the library and the library that notebooks load
	@tools/setup.sh kernel

test: ## Run every test, cheapest first
	@tools/test.sh

reproduce: ## Set up, fetch data, execute every notebook in profile desk, build the gallery (RECOMPUTE=1: all tables again)
	@$(STAGE) setup tools/setup.sh all
	$(STAGE) notebooks $(MAKE) notebooks PROFILE=desk
	$(STAGE) gallery $(MAKE) gallery PROFILE=desk

notebooks: kernel ## Execute the notebooks without a browser (PROFILE=smoke|desk|paper, ONLY=NAME, UPDATE=1)
	@$(ENV)
	"$$MEM2GEN_PYTHON" tools/run_notebooks.py --profile $(PROFILE) $(if $(ONLY),--only $(ONLY)) $(if $(filter 1,$(UPDATE)),--update)

lab: kernel ## Start JupyterLab with the notebook kernel, to run notebooks cell by cell
	@$(ENV)
	export MEM2GEN_INTERACTIVE=1 MEM2GEN_PROFILE="$(PROFILE)"
	exec "$$MEM2GEN_PYTHON" -m jupyterlab --notebook-dir=notebooks $(if $(filter 0,$(shell id -u)),--allow-root)

gallery: python ## Make static pages of the executed notebooks and an index of figures in out/PROFILE/gallery
	@tools/setup.sh katex
	$(ENV)
	"$$MEM2GEN_PYTHON" tools/gallery.py --profile $(PROFILE)

docs: system ## Build the documentation of the crate with rendered equations
	@tools/setup.sh katex
	tools/docs.sh

latency: kernel ## Measure waiting times in a notebook
	@$(ENV)
	"$$MEM2GEN_PYTHON" tools/latency.py --fused

bench-peers: build ## Time operations of mem2gen and other libraries, on a quiet machine (UPDATE=1 writes docs/peers.md)
	@tools/setup.sh peers
	$(ENV)
	"$$MEM2GEN_HOME/peers/bin/python" tools/peers.py $(if $(filter 1,$(UPDATE)),--update)

bench-train: build ## Time training and sampling of mem2gen and PyTorch, on a quiet machine (UPDATE=1 writes docs/training.md)
	@tools/setup.sh peers
	$(ENV)
	"$$MEM2GEN_HOME/peers/bin/python" tools/train_peers.py $(if $(filter 1,$(UPDATE)),--update)

bench-lpips: build ## Time LPIPS of mem2gen and the lpips package, on a quiet machine (UPDATE=1 writes docs/lpips.md)
	@tools/setup.sh peers
	$(ENV)
	"$$MEM2GEN_HOME/peers/bin/python" tools/lpips_peers.py $(if $(filter 1,$(UPDATE)),--update)

bench-landscape: build python ## Measure the share of time in the network of basin, curvature and potential (UPDATE=1 writes docs/landscape.md)
	@$(ENV)
	"$$MEM2GEN_PYTHON" tools/landscape_share.py $(if $(filter 1,$(UPDATE)),--update)

bench-classify: build ## Measure recall and false discoveries of classify and other rules with planted copies (SEEDS=200, MOVED_SEEDS=20, LPIPS_SEEDS=0, COLOUR=FOLDER, UPDATE=1 writes docs/classify-benchmark.md)
	@$(ENV)
	cargo run --release --locked --quiet --bin timings -- planted --seeds $(or $(SEEDS),200) --moved-seeds $(or $(MOVED_SEEDS),20) --lpips-seeds $(or $(LPIPS_SEEDS),0) $(if $(COLOUR),--colour '$(COLOUR)') $(if $(filter 1,$(UPDATE)),--page docs/classify-benchmark.md)

torture: build python ## Attack the built program: kills, full disks, damaged files (SECONDS=300, SEED=N, GROUPS=a,b, UPDATE=1 writes docs/reliability.md)
	@$(ENV)
	"$$MEM2GEN_PYTHON" tools/torture.py $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) $(if $(GROUPS),--groups $(GROUPS)) $(if $(filter 1,$(UPDATE)),--update)

gpu-report: system ## On a machine with a GPU: check and time every kernel and compare it with the limits of the GPU
	@$(ENV)
	cargo run --release --locked --quiet -- gpu-report --json out/gpu-report.json
	cargo test --release --locked --features gpu-tests --test kernels_gpu -- --nocapture

dist: system ## Pack the program and its libraries into one archive for machines without a toolchain
	@tools/dist.sh

dist-check: dist ## Run the archive in a root folder with glibc only; needs root or user namespaces
	@tools/dist_check.sh

doctor: ## List what is present, what is missing and the command that installs it
	@$(ENV)
	if [ -x "$$CARGO_TARGET_DIR/release/mem2gen" ]; then exec "$$CARGO_TARGET_DIR/release/mem2gen" doctor; fi
	echo "mem2gen is not built: run \`make build\`" >&2
	exit 1

check: python ## Check format, dependency features, table of figures, links, floors, stale notebooks: under a minute
	@$(ENV)
	cargo fmt --check
	tools/features.sh
	"$$MEM2GEN_PYTHON" tools/figures_table.py --check
	"$$MEM2GEN_PYTHON" -m unittest tests/notebooks/test_house.py tests/notebooks/test_docs.py tests/notebooks/test_torture.py
	"$$MEM2GEN_PYTHON" tools/house.py --check
	"$$MEM2GEN_PYTHON" tools/run_notebooks.py --check

check-cuda: system ## Type-check the features `cuda` and `cudnn` without a CUDA toolkit, and list what stays unchecked: minutes
	@tools/check_cuda.sh

check-slurm: system ## Run the array job of a sweep on a real SLURM of one node, if slurm-wlm is installed; needs root
	@$(ENV)
	cargo build --release --locked --quiet --bin mem2gen
	tools/slurm_check.sh

clippy: system ## Lint all targets, with warnings as errors
	@$(ENV)
	cargo clippy --release --locked --quiet --all-targets -- -D warnings

rust-tests: system ## Run all Rust tests
	@$(ENV)
	cargo test --release --locked

fuzz: system ## Fuzz every reader for SECONDS=60 each (TARGET=npy for one of them, SEED and CASE to run a case again)
	@$(ENV)
	export MEM2GEN_FUZZ_SECONDS=$(or $(SECONDS),60) MEM2GEN_FUZZ_SEED=$(SEED) MEM2GEN_FUZZ_CASE=$(CASE)
	cargo --config profile.release.package.mem2gen.overflow-checks=true test --release --locked --quiet --test data \
	  fuzz::$(TARGET) -- $(if $(TARGET),--exact) --nocapture --test-threads=1

harness-tests: kernel ## Run the tests of the notebook runner
	@$(ENV)
	"$$MEM2GEN_PYTHON" -m unittest tests/notebooks/test_runner.py

kernels-check: ## Compile the CUDA kernels for sm_80 and sm_90 and compare them with kernels/limits.toml; needs no GPU
	@tools/setup.sh system cuda
	.mem2gen/cuda/bin/python tools/kernels.py

kernels-ptx: ## Write kernels/ptx, which the tests and machines without NVRTC use, and kernels/report.md
	@tools/setup.sh system cuda
	.mem2gen/cuda/bin/python tools/kernels.py --write

clean: ## Remove the results of runs: out/ and Jupyter's runtime files
	@rm -rf out .mem2gen/jupyter-runtime

distclean: clean ## Also remove installed tools, fetched data and compiled code
	@$(ENV)
	rm -rf .mem2gen data/cache "$$CARGO_TARGET_DIR"
