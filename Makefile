# Rondel's commands. Each does its own set-up in a private virtual environment.
#
#   PYTHON   the interpreter to build for (default: python3), any CPython from 3.11 on
#   VENV     the virtual environment (default: .venv); keep one per PYTHON
#   INSTALL  what `test` and `lint` install first: dev (quick build) or build (release wheel)

PYTHON ?= python3
VENV ?= .venv
INSTALL ?= dev
BIN := $(VENV)/bin
# cargo's build scripts and maturin find the venv's interpreter by these.
export PYO3_PYTHON := $(abspath $(BIN))/python
export VIRTUAL_ENV := $(abspath $(VENV))
export PIP_DISABLE_PIP_VERSION_CHECK := 1
PIP := $(BIN)/python -m pip

.DEFAULT_GOAL := help
.PHONY: help tools build build-without dev demo test test-rust test-python test-django test-all bench \
        bench-django bench-net bench-server bench-inspect lint lint-rust lint-python conformance conformance-tasks \
        conformance-cpython conformance-all upstream upstream-quick compat test-debug \
        test-valgrind soak soak-net fuzz clean

help: ## this list
	@printf 'usage: make TARGET [PYTHON=python3] [VENV=.venv]\n\n'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-19s %s\n", $$1, $$2 }'

# A venv belongs to one interpreter; a PYTHON that was asked for must be the one it has.
tools:
	@scripts/check-tools.sh "$(PYTHON)"
ifneq ($(origin PYTHON),file)
	@scripts/check-venv.sh "$(PYTHON)" "$(VENV)"
endif

$(VENV)/.ready: pyproject.toml | tools
	@test -x $(BIN)/python || { echo "making the virtual environment $(VENV)"; \
	    "$(PYTHON)" -m venv $(VENV); }
	@$(PIP) install --quiet --upgrade 'pip>=25.1'
	@$(PIP) install --quiet --group build
	@touch $@

$(VENV)/.test-ready: $(VENV)/.ready
	@echo "installing what the tests need"
	@$(PIP) install --quiet --group test
	@touch $@

$(VENV)/.lint-ready: $(VENV)/.ready
	@echo "installing what the checks need"
	@$(PIP) install --quiet --group lint
	@touch $@

build: $(VENV)/.ready ## the release wheel in dist/, installed in .venv
	@echo "building the release wheel: the first time takes 2 to 4 minutes on two cores"
	@rm -rf $(VENV)/dist
	@$(BIN)/maturin build --release --interpreter $(BIN)/python --out $(VENV)/dist
	@mkdir -p dist && cp $(VENV)/dist/*.whl dist/
	@$(PIP) install --quiet --force-reinstall --no-deps $(VENV)/dist/*.whl
	@echo "built: dist/$$(basename $(VENV)/dist/*.whl)"

dev: $(VENV)/.ready ## a quick build, Python sources in place (edit and run)
	@echo "building the quick profile: the first time takes a minute or two on two cores"
	@$(BIN)/maturin develop --profile dev-fast

# The flags of .cargo/config.toml have to hold here too, or the two builds differ in how their code is
# aligned. A variable of the target's name is added to them; RUSTFLAGS would replace them.
WITHOUT_FLAGS = CARGO_TARGET_$(shell rustc -vV | sed -n 's/^host: //p' | tr a-z- A-Z_)_RUSTFLAGS
build-without: $(VENV)/.ready ## a wheel that counts nothing, for bench-inspect, in .venv/without
	@rm -rf $(VENV)/without
	@$(WITHOUT_FLAGS)="--cfg rondel_no_counters" CARGO_TARGET_DIR=target/without \
	    $(BIN)/maturin build --release --interpreter $(BIN)/python --out $(VENV)/without

demo: build ## serve the example Django project on http://127.0.0.1:8000
	@scripts/demo.sh $(BIN)

test: test-rust test-python ## all tests, of the crates and of the package

test-rust: $(VENV)/.ready ## tests of the crates that know no Python
	@scripts/test-rust.sh

test-python: $(INSTALL) $(VENV)/.test-ready ## the pytest suite (TESTS="tests/cli -k serve")
	@RONDEL_WHEEL=$(if $(filter build,$(INSTALL)),$$(ls $(VENV)/dist/*.whl)) \
	    $(BIN)/python -m pytest $(TESTS)

# With DJANGO= (4.2, 5.2, 6.0, 6.1, all) all of tests/django, with ASGIREF=oldest, newest or a release.
test-django: $(INSTALL) $(VENV)/.test-ready ## Django's rules on uvicorn, then on Rondel (ARGS="-k threads" DJANGO=4.2)
ifdef DJANGO
	@$(BIN)/python -m tests.django $(addprefix --django ,$(DJANGO)) $(addprefix --asgiref ,$(ASGIREF)) -- $(ARGS)
else
	@$(BIN)/python -m pytest tests/django/rules --server uvicorn $(ARGS)
	@$(BIN)/python -m pytest tests/django/rules --server rondel $(ARGS)
endif

test-all: ## the tests on every CPython found here (3.11, 3.12, 3.13)
	@scripts/pythons.sh 3.11 3.12 3.13 | while read -r version python; do \
	    echo "== CPython $$version"; \
	    $(MAKE) --no-print-directory test PYTHON="$$python" VENV=".venv-$$version" || exit 1; \
	done

# A debug build of CPython (Debian: python3-dbg) checks its own invariants and counts all references.
# With an ordinary one (PYTHON_DEBUG=python3) it is the debug allocator and asyncio's debug mode.
PYTHON_DEBUG ?= python3-dbg
DEBUG_TESTS ?= tests/runtime tests/net tests/property tests/safety

test-debug: ## the tests of the object and task layer on a debug build of CPython (python3-dbg)
	@$(MAKE) --no-print-directory test-python PYTHON="$(PYTHON_DEBUG)" VENV=.venv-debug \
	    RONDEL_TREES=1000 PYTHONMALLOC=debug TESTS="$(DEBUG_TESTS)"
	@$(MAKE) --no-print-directory test-python PYTHON="$(PYTHON_DEBUG)" VENV=.venv-debug INSTALL= \
	    RONDEL_TREES=1000 PYTHONDEVMODE=1 TESTS="$(DEBUG_TESTS)"

test-valgrind: $(VENV)/.test-ready ## every type slot under valgrind, without recycled memory (minutes)
	@scripts/valgrind.sh $(BIN)/python

soak: $(INSTALL) $(VENV)/.test-ready ## a million operations of each primitive; memory must not grow
	@$(BIN)/python -m tests.safety soak $(ARGS)

SECONDS ?= 300
soak-net: $(INSTALL) $(VENV)/.test-ready ## mixed traffic on one loop for SECONDS=300, with resets, cancels, timeouts
	@$(BIN)/python -m tests.soak --seconds $(SECONDS) $(ARGS)

fuzz: ## what parses bytes, by libFuzzer, each target for SECONDS=60 (ARGS="http1" for one)
	@scripts/fuzz.sh $(or $(ARGS),all) $(if $(filter command line environment,$(origin SECONDS)),$(SECONDS),60)

lint: lint-rust lint-python ## formatting, clippy, ruff, mypy, stubtest

lint-rust: $(VENV)/.ready
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets -- -D warnings
	@cargo metadata --locked --manifest-path fuzz/Cargo.toml --format-version 1 >/dev/null || { \
	    echo "fuzz/Cargo.lock is not current: cargo update --workspace --manifest-path fuzz/Cargo.toml"; \
	    exit 1; }

lint-python: $(INSTALL) $(VENV)/.lint-ready
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/python scripts/stubtest.py

# Has an environment and a build of its own, for an optimised interpreter. ARGS="--quick" and so on.
bench: tools ## side by side with peers from PyPI; tables in benchmarks/results/
	@env -u VIRTUAL_ENV -u PYO3_PYTHON "$(PYTHON)" benchmarks/run.py $(ARGS)

bench-django: tools ## Django under Rondel, uvicorn, granian, gunicorn; SQLite, PostgreSQL (ARGS="--help")
	@env -u VIRTUAL_ENV -u PYO3_PYTHON "$(PYTHON)" benchmarks/run_django.py $(ARGS)

bench-net: tools ## protocols, streams, sock_*, TLS, threads ... under every loop (ARGS="--help")
	@env -u VIRTUAL_ENV -u PYO3_PYTHON "$(PYTHON)" benchmarks/run_net.py $(ARGS)

bench-inspect: tools ## what the inspector costs: off, counters, recording, and without (ARGS="--help")
	@env -u VIRTUAL_ENV -u PYO3_PYTHON "$(PYTHON)" benchmarks/run_inspect.py $(ARGS)

bench-server: tools ## CPU, latency, memory of the server beside its peers (ARGS="--help")
	@env -u VIRTUAL_ENV -u PYO3_PYTHON "$(PYTHON)" benchmarks/run_server.py $(ARGS)

conformance: $(INSTALL) $(VENV)/.test-ready ## CPython's own asyncio tests, and anyio's, on Rondel (ARGS="--help")
	@$(BIN)/python -m tests.conformance $(ARGS)

conformance-tasks: $(INSTALL) $(VENV)/.test-ready ## CPython's tests of tasks, locks, queues ... on Rondel
	@$(BIN)/python -m tests.conformance --task-layer $(ARGS)

conformance-cpython: $(INSTALL) $(VENV)/.test-ready ## all of CPython's asyncio tests on Rondel: what CI runs
	@$(BIN)/python -m tests.conformance cpython cpython-primitives $(ARGS)

conformance-all: ## conformance-cpython on every CPython found here (3.11, 3.12, 3.13)
	@scripts/pythons.sh 3.11 3.12 3.13 | { failed=0; while read -r version python; do \
	    echo "== CPython $$version"; \
	    $(MAKE) --no-print-directory conformance-cpython PYTHON="$$python" \
	        VENV=".venv-$$version" || failed=1; \
	done; exit $$failed; }

upstream: $(INSTALL) $(VENV)/.test-ready ## asgiref's, Django's and Channels' tests with rondel.install() (ARGS="--help")
	@$(BIN)/python -m tests.upstream $(ARGS)

upstream-quick: $(INSTALL) $(VENV)/.test-ready ## asgiref's oldest and newest, Django's core labels (a minute)
	@$(BIN)/python -m tests.upstream --quick $(ARGS)

compat: $(INSTALL) $(VENV)/.test-ready ## aiohttp, uvicorn, asyncpg, redis, grpc ... on Rondel's loop (ARGS="--help")
	@$(BIN)/python -m tests.compat $(ARGS)

clean: ## remove everything that was built, environments too
	@rm -rf target dist .venv .venv-* .cache .pytest_cache .mypy_cache .ruff_cache
	@rm -f python/rondel/_rondel*.so
