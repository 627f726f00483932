# SPDX-License-Identifier: Apache-2.0
# Makefile - every command that a visitor or a developer needs; `make` alone explains them.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done

# The daemon with its request path compiled (setup.py); what starts a daemon puts it first.
COMPILED := build/compiled
COMPILED_STAMP := $(COMPILED)/.done
# The library for programs that cannot be changed, where 'binderctl run' finds it.
PRELOAD := client/binderclient/libbinderd-preload.so
# What 'binderctl stress' starts.
STRESS_WORKER := client/binderclient/binderd-stress-worker
# What the benchmark compares with, beside what is installed.
BROKER := build/bench/dbus-broker
# What is installed: a wheel for Debian's Python, and manual pages and completion (docs/manual).
export PREFIX ?= /usr/local
export DESTDIR ?=
export MANUAL := build/manual
WHEEL_STAMP := build/wheel/.done
SOURCES := $(wildcard daemon/binderd/*.py daemon/binderd/*/*.[cp]* protocol/binderwire/*.[cp]*)
FAST := PYTHONPATH=$(abspath $(COMPILED))
COMPILED_TESTS := tests/conformance tests/inprocess tests/linux tests/channel/test_device.py \
	tests/integration/client/test_demo.py tests/integration/client/test_examples.py \
	tests/stress/test_run.py::test_with_accidents

RIGHTS_TESTS := $(addprefix tests/,channel/test_lifecycle.py channel/test_watchdog.py \
	integration/test_binderfs.py integration/test_cuse.py integration/test_logs.py \
	descriptors/test_injection.py conformance/test_priority.py conformance/test_files.py)

# What the targets start. Arguments are passed on with ARGS: make bench ARGS="--rounds 3".
DEMO ?= $(BIN)/python -m binderclient.demo
RUN ?= $(BIN)/python -m binderclient.demo --serve
BENCH ?= $(BIN)/python tests/bench/run.py
BUDGET ?= $(BIN)/python tests/budget/run.py
HOSTILE ?= $(BIN)/python tests/hostile/run.py
PYTEST ?= $(BIN)/python tests/again.py
VM := PYTHONPATH=tests $(BIN)/python -m vm
ARGS ?=

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup compile preload stress-worker demo run test test-vm test-kernel test-systemd fuzz-vm soak-restarts vm parity limits wrap \
	check site bench budget hostile bench-python bench-descriptors clean packages vm-packages fuse wheel sdist dist deb install uninstall \
	test-wheel test-install

help: ## this text
	@echo "binderd: Android's Binder IPC on any Linux, in user space."
	@echo
	@echo "New here? As root, 'make demo' sets everything up and shows a call from end to end;"
	@echo "'make run' keeps a device for your own programs. Changed something? 'make test'."
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "ARGS=\"...\" is passed on to demo, run, test (pytest), bench, budget and hostile, e.g. make bench ARGS=--help"

setup: packages $(STAMP) ## install what is missing: Debian packages, then Python's into .venv

compile: packages $(STAMP) $(COMPILED_STAMP) ## compile the daemon's request path (others call it)

preload: packages $(STAMP) $(PRELOAD) ## compile the library of 'binderctl run' (others call it)

stress-worker: packages $(STAMP) $(STRESS_WORKER) ## compile the worker of 'binderctl stress' (others call it)

demo: fuse packages $(STAMP) $(COMPILED_STAMP) ## show binder at work for ten seconds (/dev/fuse; root or fusermount3)
	$(FAST) $(DEMO) $(ARGS)

run: fuse packages $(STAMP) $(COMPILED_STAMP) ## start a device and keep it until Ctrl-C (/dev/fuse; root or fusermount3)
	$(FAST) $(RUN) $(ARGS)

# Twice: everything as the plain Python it is, then what behaviour rests on as it is shipped, compiled.
# Daemons have the rights of the systemd unit; what rights matter to runs with a container's as well.
# With CI set, some scenarios only are played with private pages and through lanes, fewer compiled.
test: check $(COMPILED_STAMP) $(PRELOAD) $(STRESS_WORKER) $(BROKER) ## 'make check', then all tests (those that mount: root, /dev/fuse)
	@tests/setup.sh fuse "make test" || echo "make test: the tests that mount will be skipped"
	$(if $(CI),BINDERD_EVERY="private=3 bare=3 lane=2") $(PYTEST) $(ARGS)
ifdef CI
	BINDERD_BACKENDS="engine fuse" $(FAST) $(PYTEST) $(COMPILED_TESTS)
	BINDERD_BACKENDS="private bare lane" BINDERD_EVERY=6 $(FAST) $(PYTEST) tests/conformance
else
	$(FAST) $(PYTEST) $(COMPILED_TESTS)
endif
	BINDERD_RIGHTS=container BINDERD_BACKENDS=fuse $(FAST) $(PYTEST) $(RIGHTS_TESTS)
	$(if $(ARGS),,$(BIN)/python tests/parity.py --verify --complete engine)

# With PART, what pytest is given inside; it is the shell's to split: PART="tests/x -k 'a or b'".
# Without: what only that kernel can tell, in a machine for each of its two kinds of device. The test
# of the driver's logs comes first, as its counts begin at the boot; then all scenarios, each of
# which must end as docs/parity.json says; then what needs CUSE, and the preload library. With CI set,
# every sixth scenario is played behind CUSE: their clients are slow in there, and the daemon is the one
# that plays all of them behind FUSE.
VM_FOLDER := $(abspath build/vm)
VM_LIBRARY := $(addprefix tests/preload/test_,service_manager.py programs.py descriptors.py)
VM_STRESS := tests/stress/test_run.py::test_with_accidents
VM_KERNEL := tests/introspect/test_life.py tests/integration/test_file_requests.py tests/vm tests/conformance \
	$(VM_LIBRARY) $(VM_STRESS)
VM_CUSE := tests/conformance $(addprefix tests/integration/test_,cuse.py fallback.py) $(VM_LIBRARY) \
	$(VM_STRESS)
CUSE_EVERY := $(if $(CI),6,1)
in_vm = VM_RESULTS=$(VM_FOLDER) VM_TIMEOUT=$${VM_TIMEOUT:-2400} $(VM) run "BINDERD_BACKENDS=$(1) \
	BINDERD_EVERY=$(3) \
	BINDERD_PARITY_RESULTS=$(VM_FOLDER)/$(1).json CI=$(CI) $(BIN)/python tests/again.py $(2)"
test-vm: vm-packages packages $(STAMP) $(PRELOAD) $(STRESS_WORKER) ## tests on a kernel with its own driver, in QEMU; then test-systemd
ifdef PART
	$(VM) run "$(BIN)/python -m pytest $$PART"
else ifdef KERNEL
	@$(MAKE) --no-print-directory test-kernel
else
	BINDERD_VM=host $(PYTEST) tests/vm --ignore tests/vm/test_systemd.py
	@rm -f $(VM_FOLDER)/*.json
	$(call in_vm,kernel,$(VM_KERNEL),1)
	$(BIN)/python tests/parity.py --verify --complete kernel $(VM_FOLDER)/kernel.json
	$(call in_vm,cuse,$(VM_CUSE),$(CUSE_EVERY))
	$(BIN)/python tests/parity.py --verify $(if $(CI),,--complete cuse) $(VM_FOLDER)/cuse.json
	@$(MAKE) --no-print-directory test-systemd
endif

# What works on another kernel: each way of ours to deliver that it has. Its own driver is asked nothing.
KERNEL_FILES := $(addprefix tests/,channel/test_private_pages.py channel/test_extension.py channel/test_opens.py \
	channel/test_threads.py integration/client/test_with.py integration/test_rootless.py integration/test_containers.py \
	integration/test_transports.py service/test_check.py conformance)
in_kernel = VM_MEMORY=2G VM_TIMEOUT=$${VM_TIMEOUT:-7200} $(VM) run "BINDERD_BACKENDS='$(1)' \
	BINDERD_EVERY=$(2) $(BIN)/python tests/again.py -o faulthandler_timeout=600 $(3)"
test-kernel: export KERNEL ?= 6.1
test-kernel: vm-packages packages $(STAMP) $(PRELOAD) ## KERNEL=6.1: what of ours works on another kernel (an hour)
	VM_TIMEOUT=120 $(VM) run "$(BIN)/python -m binderd --check"
	$(call in_kernel,bare private,1,$(KERNEL_FILES))
	$(call in_kernel,cuse,6,tests/conformance tests/integration/test_cuse.py tests/integration/test_fallback.py)

test-systemd: vm-packages packages $(STAMP) deb ## the package under a real systemd: installed, restarted, purged
	@tests/setup.sh packages install
	BINDERD_VM=host $(PYTEST) tests/vm/test_systemd.py $(ARGS)

fuzz-vm: export CASES ?= 500
fuzz-vm: export SEED ?= 1
fuzz-vm: vm-packages packages $(STAMP) ## CASES=500 random scripts, from SEED=1 on, here and there
	PYTHONPATH=tests $(BIN)/python -m oracle --cases "$$CASES" --seed "$$SEED" $(ARGS)

soak-restarts: fuse packages $(STAMP) ## a hundred restarts of the daemon below its clients
	BINDERD_RESTARTS=100 $(PYTEST) tests/integration/client -k many_restarts $(ARGS)

vm: vm-packages packages $(STAMP) ## run CMD="..." in that machine, KERNEL=6.1 on another kernel; alone, it explains itself
	@$(VM) $(if $(CMD),run "$$CMD",usage)

wrap: $(STAMP) ## wrap the long lines of the documents
	$(BIN)/python docs/manual/wrap.py

limits: $(STAMP) ## docs/LIMITS.md from the tables in the code
	$(BIN)/python docs/manual/limits.py > docs/LIMITS.md.new && mv docs/LIMITS.md.new docs/LIMITS.md

install: wheel ## install below PREFIX (/usr/local) for Debian's Python; DESTDIR for packagers
	systemd/install.sh all build/wheel/*.whl

uninstall: ## remove what 'make install' has installed, with the same PREFIX
	systemd/install.sh uninstall

wheel: packages $(STAMP) $(WHEEL_STAMP) ## dist/*.whl, compiled, for this machine and this Python
	@mkdir -p dist && cp build/wheel/*.whl dist/ && ls build/wheel/*.whl

sdist: packages $(STAMP) ## dist/*.tar.gz, with all that is here
	$(BIN)/python -m build --sdist --outdir dist

dist: sdist wheel ## both

deb: ## dist/*.deb, with Debian's own tools, for this Debian
	@tests/setup.sh packages deb
	@mkdir -p dist && debian/build.sh dist

test-wheel: fuse wheel ## the wheel in a bare virtual environment, and one from the sdist
	tests/install/run.sh wheel $(BIN)/python

test-install: fuse packages $(STAMP) ## deb, pip, make in clean systems: SUITES="bookworm trixie" (long; root)
	@tests/setup.sh packages install
	tests/install/run.sh same $(BIN)/python
	tests/install/run.sh all $(SUITES)

parity: $(STAMP) ## make docs/PARITY.md from the results that the latest tests have left
	$(BIN)/python tests/parity.py --write $(ARGS)

check: packages $(STAMP) ## lint, formatting, types, import contracts, the site
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=tests $(BIN)/mypy -m bench.run -m bench.python
	$(BIN)/mypy tests/budget/run.py
	$(BIN)/mypy docs/manual
	MYPYPATH=docs/manual $(BIN)/mypy docs/site
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory site

# The notice is about a later version of mkdocs, which pyproject.toml excludes.
site: $(STAMP) ## the documents as a site in build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: fuse packages $(STAMP) $(COMPILED_STAMP) $(BROKER) ## compare with message buses, a socket, bare FUSE (root, /dev/fuse)
	PYTHONPATH=$(abspath $(COMPILED)):tests $(BENCH) $(ARGS)

budget: packages $(STAMP) $(COMPILED_STAMP) ## count the instructions of a call: 5 % above the budget fails (root; a minute)
	@tests/setup.sh packages budget
	$(FAST) $(BUDGET) $(ARGS)

hostile: fuse packages $(STAMP) $(COMPILED_STAMP) ## attacks by one user, seen by another (root; 15 minutes)
	PYTHONPATH=$(abspath $(COMPILED)):tests $(HOSTILE) $(ARGS)

bench-python: fuse packages $(STAMP) $(COMPILED_STAMP) ## Python to Python, beside D-Bus libraries (root, /dev/fuse, PyPI)
	PYTHONPATH=$(abspath $(COMPILED)):tests $(BIN)/python tests/bench/python.py $(ARGS)

bench-descriptors: fuse packages $(STAMP) $(COMPILED_STAMP) $(PRELOAD)
	$(FAST) $(BIN)/python tests/bench/descriptors.py $(ARGS)

clean: ## remove what these targets made: .venv, build, caches
	rm -rf $(VENV) build dist *.egg-info .coverage .hypothesis .import_linter_cache
	rm -rf $(PRELOAD) $(STRESS_WORKER) .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A look at the package database (some 20 ms) each time, so that a cached .venv cannot hide a gap.
packages:
	@tests/setup.sh packages

vm-packages:
	@tests/setup.sh packages vm

# The stamp makes the slow part of the setup happen once per change of what it depends on.
$(STAMP): pyproject.toml Makefile tests/setup.sh
	@tests/setup.sh venv $(VENV)
	@touch $@

$(COMPILED_STAMP): setup.py pyproject.toml $(STAMP) $(SOURCES)
	@rm -rf $(COMPILED) && mkdir -p build
	@tests/setup.sh progress "compiling the daemon's request path (one to three minutes)" sh -c \
		'BINDERD_COMPILE=1 $(BIN)/python setup.py -q build --build-lib $(COMPILED) \
		> build/compile.log 2>&1' || { cat build/compile.log; exit 1; }
	@rm -rf $(COMPILED)/binderclient
	@touch $@

$(WHEEL_STAMP): setup.py pyproject.toml $(STAMP) $(SOURCES) $(wildcard client/*/*.[chp]* client/*/*/*.py docs/manual/*)
	@echo "building the wheel (a minute)"
	@rm -rf build/wheel build/manual build/lib.* build/bdist.*
	@$(BIN)/python -m pip --quiet wheel --no-deps --wheel-dir build/wheel .
	@$(BIN)/python docs/manual build/manual
	@touch $@

$(PRELOAD): setup.py $(wildcard client/preload/*.[ch] client/stress/*.[ch] client/include/*.h) $(STAMP)
	@echo "compiling what is in C beside it"
	@CFLAGS=-Werror $(BIN)/python -W ignore setup.py -q build_programs --inplace

$(STRESS_WORKER): $(PRELOAD)
	@test -e $@ && touch $@

$(BROKER): packages
	@test -e $@ || tests/setup.sh broker $@

fuse:
	@tests/setup.sh fuse "make $(firstword $(MAKECMDGOALS))"
