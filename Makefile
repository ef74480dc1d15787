# Every verb does the set-up that it needs, and each is safe to run again. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PROFILE ?= desk
# ONLY=NAME runs one notebook, UPDATE=1 commits what a desk run gave, RECOMPUTE=1 makes tables from nothing.
ONLY ?=
UPDATE ?=
RECOMPUTE ?=

export MEM2GEN_RECOMPUTE := $(RECOMPUTE)

ENV := source tools/env.sh
STAGE := tools/stage.sh

.PHONY: help setup system python kernel build test reproduce notebooks lab gallery docs latency bench-peers bench-train bench-lpips bench-landscape bench-classify gpu-report dist dist-check doctor check check-cuda check-slurm clippy rust-tests harness-tests kernels-check kernels-ptx clean distclean

help: ## This list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' Makefile | expand -t 18

setup: ## Everything that the other verbs need: packages, Python, kernel, KaTeX, data
	@tools/setup.sh all

system:
	@tools/setup.sh system

python:
	@tools/setup.sh system python

kernel:
	@tools/setup.sh system python tools kernel

build: system ## Program, library and the library that notebooks load
	@tools/setup.sh kernel

test: ## Every test, cheapest first
	@tools/test.sh

reproduce: ## Set-up, data, every notebook in profile desk (RECOMPUTE=1: tables from nothing), gallery
	@$(STAGE) setup tools/setup.sh all
	$(STAGE) notebooks $(MAKE) notebooks PROFILE=desk
	$(STAGE) gallery $(MAKE) gallery PROFILE=desk

notebooks: kernel ## Executes the notebooks headless (PROFILE=smoke|desk|paper, ONLY=NAME, UPDATE=1)
	@$(ENV)
	"$$MEM2GEN_PYTHON" tools/run_notebooks.py --profile $(PROFILE) $(if $(ONLY),--only $(ONLY)) $(if $(filter 1,$(UPDATE)),--update)

lab: kernel ## JupyterLab with the kernel, to step through cell by cell
	@$(ENV)
	export MEM2GEN_INTERACTIVE=1 MEM2GEN_PROFILE="$(PROFILE)"
	exec "$$MEM2GEN_PYTHON" -m jupyterlab --notebook-dir=notebooks $(if $(filter 0,$(shell id -u)),--allow-root)

gallery: python ## Static pages of the executed notebooks and an index of figures, in out/PROFILE/gallery
	@tools/setup.sh katex
	$(ENV)
	"$$MEM2GEN_PYTHON" tools/gallery.py --profile $(PROFILE)

docs: system ## Documentation of the crate with rendered equations
	@tools/setup.sh katex
	tools/docs.sh

latency: kernel ## What a person at a notebook waits for, beside the bars
	@$(ENV)
	"$$MEM2GEN_PYTHON" tools/latency.py --fused

bench-peers: build ## Ratios to other libraries for the same work, on a quiet machine (UPDATE=1 writes docs/peers.md)
	@tools/setup.sh peers
	$(ENV)
	"$$MEM2GEN_HOME/peers/bin/python" tools/peers.py $(if $(filter 1,$(UPDATE)),--update)

bench-train: build ## Training and sampling steps beside PyTorch, on a quiet machine (UPDATE=1 writes docs/training.md)
	@tools/setup.sh peers
	$(ENV)
	"$$MEM2GEN_HOME/peers/bin/python" tools/train_peers.py $(if $(filter 1,$(UPDATE)),--update)

bench-lpips: build ## LPIPS of all pairs beside the lpips package, on a quiet machine (UPDATE=1 writes docs/lpips.md)
	@tools/setup.sh peers
	$(ENV)
	"$$MEM2GEN_HOME/peers/bin/python" tools/lpips_peers.py $(if $(filter 1,$(UPDATE)),--update)

bench-landscape: build python ## Share of time in the network of basin, curvature and potential (UPDATE=1 writes docs/landscape.md)
	@$(ENV)
	"$$MEM2GEN_PYTHON" tools/landscape_share.py $(if $(filter 1,$(UPDATE)),--update)

bench-classify: build ## Recall and false discoveries of classify and other rules with planted copies (SEEDS=200, UPDATE=1 writes docs/classify-benchmark.md)
	@$(ENV)
	cargo run --release --locked --quiet --bin timings -- planted --seeds $(or $(SEEDS),200) $(if $(filter 1,$(UPDATE)),--page docs/classify-benchmark.md)

gpu-report: system ## On a machine with a GPU: checks and times every kernel against the card's limits
	@$(ENV)
	cargo run --release --locked --quiet -- gpu-report --json out/gpu-report.json
	cargo test --release --locked --features gpu-tests --test kernels_gpu -- --nocapture

dist: system ## The program and its libraries in one archive, for machines without a toolchain
	@tools/dist.sh

dist-check: dist ## Runs the archive where only glibc is installed; needs root or user namespaces
	@tools/dist_check.sh

doctor: ## What is present, what is missing and which command brings it
	@$(ENV)
	if [ -x "$$CARGO_TARGET_DIR/release/mem2gen" ]; then exec "$$CARGO_TARGET_DIR/release/mem2gen" doctor; fi
	echo "mem2gen is not built: run \`make build\`" >&2
	exit 1

check: python ## Format, dependency features, README table, floors, stale notebooks: seconds
	@$(ENV)
	cargo fmt --check
	tools/features.sh
	"$$MEM2GEN_PYTHON" tools/figures_table.py --check
	"$$MEM2GEN_PYTHON" -m unittest tests/notebooks/test_house.py tests/notebooks/test_docs.py
	"$$MEM2GEN_PYTHON" tools/house.py --check
	"$$MEM2GEN_PYTHON" tools/run_notebooks.py --check

check-cuda: system ## Type-checks the feature `cuda` without a toolkit, and says what that leaves open: minutes
	@tools/check_cuda.sh

check-slurm: system ## The array job of a sweep on a real SLURM of one node, where slurm-wlm is installed; needs root
	@$(ENV)
	cargo build --release --locked --quiet --bin mem2gen
	tools/slurm_check.sh

clippy: system ## Lints of all targets, warnings as errors
	@$(ENV)
	cargo clippy --release --locked --quiet --all-targets -- -D warnings

rust-tests: system ## All Rust tests
	@$(ENV)
	cargo test --release --locked

harness-tests: kernel ## The tests of the notebook runner
	@$(ENV)
	"$$MEM2GEN_PYTHON" -m unittest tests/notebooks/test_runner.py

kernels-check: ## CUDA kernels compiled for sm_80 and sm_90 and held against kernels/limits.toml; no device needed
	@tools/setup.sh system cuda
	.mem2gen/cuda/bin/python tools/kernels.py

kernels-ptx: ## Makes kernels/ptx, which is run where NVRTC is missing and in the tests, and kernels/report.md
	@tools/setup.sh system cuda
	.mem2gen/cuda/bin/python tools/kernels.py --write

clean: ## Removes what runs left: out/ and scratch
	@rm -rf out .mem2gen/jupyter-runtime

distclean: clean ## Removes all that is not committed, data and compiled code included
	@$(ENV)
	rm -rf .mem2gen data/cache "$$CARGO_TARGET_DIR"
