# SPDX-License-Identifier: Apache-2.0
# A thin layer over Meson: the programs land in build/bin. `make demo` and `make check` start from a bare Debian 12.
BUILD ?= build
ASAN ?= build-asan
TSAN ?= build-tsan
PREFIX ?= /usr/local
JOBS ?= $(shell nproc)

.PHONY: all deps demo check check-long unit unit-asan unit-tsan conformance stress e2e fuzz bench format check-format check-rooms install clean

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD) -j $(JOBS) --quiet
	@tools/collect-bin $(BUILD)

deps:
	@tools/install-deps build run
	@tools/needs-machine || tools/install-deps machine

$(BUILD)/build.ninja:
	@tools/install-deps build
	@meson setup $(BUILD) --prefix $(PREFIX) >/dev/null

$(ASAN)/build.ninja:
	@tools/install-deps build
	@meson setup $(ASAN) -Doptimization=g -Dc_args=-g1 -Db_sanitize=address,undefined -Db_lundef=false >/dev/null

# Installs, builds, makes an image out of the distribution's packages, loads and runs it.
demo:
	@tools/demo

# Everything, with counts scaled down; ends with totals.
check:
	@tools/check

# The full counts, suite by suite, resumable; writes docs/RESULTS.md.
check-long:
	@tools/check --long

unit: all
	@meson test -C $(BUILD) --no-rebuild --no-suite conformance --print-errorlogs

unit-asan: $(ASAN)/build.ninja
	@ninja -C $(ASAN) -j $(JOBS)
	@meson test -C $(ASAN) --no-rebuild --no-suite conformance --print-errorlogs

# What has threads, under ThreadSanitizer.
unit-tsan:
	@tools/unit-tsan $(TSAN)

# The file server against ext4, by the conformance program.
conformance: all
	@tests/conformance/run

# Random operations, an adversary, fio, SQLite and git on mounts of the file server.
stress: all
	@tests/conformance/stress

e2e: all
	@tests/e2e/run

fuzz:
	@tools/fuzz

bench: all
	@tests/bench/run

format:
	@clang-format -i $$(git ls-files '*.c' '*.h')

check-format:
	@clang-format --dry-run -Werror $$(git ls-files '*.c' '*.h')

check-rooms:
	@tools/check-rooms

install: all
	@meson install -C $(BUILD) --no-rebuild $(if $(DESTDIR),--destdir $(abspath $(DESTDIR)))

clean:
	@rm -rf $(BUILD) $(ASAN) $(TSAN) build-fuzz
