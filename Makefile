# The short list of habits; `make help` prints it. Every target installs what it needs first (scripts/bootstrap.sh).
ARGS ?= serve smollm2
FUZZ_SECONDS ?= 60
CTEST_ARGS ?=
BENCH_ARGS ?=
CUDA_ARCHITECTURES ?= 80-real;90a-real

.PHONY: run test test-protocol test-arm cuda gpu-check gpu-kit format lint asan tsan fuzz bench sim docs clean help
.DEFAULT_GOAL := help

run: ## build and start: make run, or make run ARGS='run smollm2 "Why is the sky blue?"'
	@scripts/bootstrap.sh build
	@scripts/build.sh release mlx-serving
	@exec build/mlx-serving $(ARGS)

test: ## unit, parity and end-to-end tests; the last line counts them (CTEST_ARGS='-R e2e' picks some)
	@scripts/bootstrap.sh build test
	@scripts/venv.sh
	@[ "$$(uname -sm)" != "Linux x86_64" ] || scripts/cuda_toolkit.sh
	@scripts/build.sh release
	@scripts/promtool.sh
	@python3 scripts/run_tests.py build $(CTEST_ARGS)

test-protocol: ## HTTP/2 as h2spec wants it, in the clear and over TLS; schemathesis; the built-in page in Chromium; OTLP into a real collector, every dashboard panel in a real Prometheus
	@scripts/bootstrap.sh build protocol
	@scripts/build.sh release mlx-serving
	@scripts/h2spec.sh build
	@scripts/schemathesis.sh
	@scripts/test_page.sh
	@scripts/test_telemetry.sh build

test-arm: ## the kernel tests built for 64-bit Arm, run by qemu-user (Linux)
	@scripts/bootstrap.sh build arm
	@scripts/test_arm.sh

cuda: ## compile the CUDA backend, on machines without a GPU too (CUDA_ARCHITECTURES='80-real;89-real;90a-real;100-real;120' for all)
	@scripts/bootstrap.sh build
	@scripts/cuda_toolkit.sh
	@cmake --preset release -B build-cuda -DMLXS_CUDA=ON -DMLXS_TESTS=OFF -DMLXS_CUDA_ARCHITECTURES='$(CUDA_ARCHITECTURES)'
	@ninja -C build-cuda mlxs_backend

gpu-check: ## on a machine with an NVIDIA GPU: the kernel tests there and the tables of docs/cuda.md (GPU_PARTS='tests memcheck racecheck figures')
	@scripts/bootstrap.sh build test
	@scripts/build.sh release
	@scripts/gpu_check.sh $(GPU_PARTS)

gpu-kit: ## for a GPU machine that builds nothing: what gpu-check runs, in build-cuda/kit (CUDA_ARCHITECTURES=90a-real)
	@scripts/bootstrap.sh build test
	@scripts/gpu_kit.sh '$(CUDA_ARCHITECTURES)'

lint: ## clang-format, clang-tidy on changed files, include arrows, cargo fmt and clippy, ruff
	@scripts/bootstrap.sh build test lint
	@scripts/build.sh release
	@scripts/venv.sh
	@scripts/lint.sh

format: ## rewrite our files the way lint wants them
	@scripts/bootstrap.sh build lint
	@scripts/venv.sh
	@scripts/lint.sh --fix

asan: ## the tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@scripts/bootstrap.sh build test
	@scripts/build.sh asan
	@scripts/venv.sh
	@python3 scripts/run_tests.py build-asan $(CTEST_ARGS)

tsan: ## the tests under ThreadSanitizer
	@scripts/bootstrap.sh build test
	@scripts/build.sh tsan
	@scripts/venv.sh
	@python3 scripts/run_tests.py build-tsan $(CTEST_ARGS)

fuzz: ## every parser of untrusted bytes under libFuzzer, FUZZ_SECONDS each
	@scripts/bootstrap.sh build fuzz
	@scripts/build.sh fuzz fuzzers
	@scripts/fuzz.sh build-fuzz $(FUZZ_SECONDS)

bench: ## beside llama.cpp on this machine, as ratios (BENCH_ARGS='--rounds 3 --only prefill'), the server alone (BENCH_ARGS=transport), the scheduler alone (scheduler), the server beside llama.cpp's (serve); results in bench/results
	@scripts/bootstrap.sh build bench
	@scripts/build.sh release mlx-serving
	@scripts/bench.sh $(BENCH_ARGS)

sim: ## the scheduler's promises in simulated days, and the figures of docs/scheduling.md (SIM_ARGS='--days 1 --only overload')
	@scripts/bootstrap.sh build
	@scripts/build.sh release mlx-serving
	@python3 scripts/sim.py build/mlx-serving --figures docs/img $(SIM_ARGS)

docs: ## rewrite docs/cli.md, docs/config.md, docs/metrics.md, docs/http-api.md, docs/cpp-api.md and config/runtime.yaml from program and headers, check every link
	@scripts/bootstrap.sh build
	@scripts/build.sh release mlx-serving
	@python3 scripts/docs.py build/mlx-serving

clean: ## remove every build folder and the tests' virtual environment (pulled models stay)
	rm -rf build build-* .venv-test .venv-protocol rust/target

help:
	@sed -n 's/^\([a-z-]*\): ## /  make \1 — /p' Makefile
