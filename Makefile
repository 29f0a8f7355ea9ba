# SPDX-License-Identifier: MIT
# AeroFS. `make help` lists the targets; V=1 shows the commands.
#
# Plain and not recursive: the sources of a folder are what lies in it, its objects go to
# build/VARIANT/FOLDER, and each floor becomes a static library. A test links only the floors at or below the
# one it tests, so a call upwards fails to link. Variants never share objects: `obj` is the release build,
# `asan`, `tsan` and `clang` exist for checking.

VARIANT ?= obj
PREFIX ?= /usr/local
DESTDIR ?=
# mount(8) and umount(8) look for their helpers here and nowhere else.
HELPER_DIR ?= /sbin
UNIT_DIR ?= $(PREFIX)/lib/systemd/system
CC ?= cc
# make's own default is `cc`; an explicit CC= or the environment wins.
ifeq ($(origin CC),default)
CC := gcc
endif
CFLAGS ?= -O2 -g
LDFLAGS ?=

# Half of the machine's work is done by the second core, unless -j says otherwise.
ifeq ($(MAKELEVEL),0)
ifeq ($(filter -j% --jobs% --jobserver%,$(MAKEFLAGS)),)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 2)
endif
endif

ifeq ($(VARIANT),asan)
VARIANT_FLAGS := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
else ifeq ($(VARIANT),tsan)
VARIANT_FLAGS := -O1 -fsanitize=thread -fno-omit-frame-pointer
else ifeq ($(VARIANT),clang)
CC := clang
# clang's -Wconversion includes one that takes "text" in a condition, as in AF_ASSERT(!"text"), amiss.
VARIANT_FLAGS := -Wno-string-conversion
else ifeq ($(VARIANT),fuzz)
# libFuzzer comes with clang; its main() is linked into the fuzz targets only.
CC := clang-14
VARIANT_FLAGS = -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all \
	-fno-omit-frame-pointer -Wno-string-conversion
# What the fuzzer need not find its way through costs it time only: comparisons outside the decoders, and coverage of
# checksums and of the tests' own code.
FUZZ_DECODERS := store/op store/node store/space_format store/snapshot_table store/inode store/dentry store/content store/xattr \
	checkpoint/superblock wal/wal_format wal/wal_tail
NO_COMPARES = $(if $(filter $(FUZZ_DECODERS:%=%.c) tests/fuzz/%,$<),,-fno-sanitize-coverage=trace-cmp)
VARIANT_FLAGS += $(NO_COMPARES)
build/fuzz/base/checksum.o build/fuzz/tests/sim/%.o build/fuzz/tests/lib/%.o: \
	VARIANT_FLAGS := -O2 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer \
	-Wno-string-conversion
else ifeq ($(VARIANT),obj)
VARIANT_FLAGS :=
else
$(error VARIANT is one of obj, asan, tsan, clang, fuzz)
endif

OUT := build/$(VARIANT)
ifeq ($(VARIANT),obj)
BIN := build
else
BIN := $(OUT)
endif

# ---- flags ----

# Looked up when the first compiler runs, which is after `deps` has installed what is missing, and once only.
PKG_CFLAGS = $(eval PKG_CFLAGS := $$(shell pkg-config --cflags liburing libxxhash cmocka))$(PKG_CFLAGS)
FUSE_CFLAGS = $(eval FUSE_CFLAGS := $$(shell pkg-config --cflags fuse3))$(FUSE_CFLAGS)
BASE_LIBS = $(eval BASE_LIBS := $$(shell pkg-config --libs liburing libxxhash))$(BASE_LIBS)
FUSE_LIBS = $(eval FUSE_LIBS := $$(shell pkg-config --libs fuse3))$(FUSE_LIBS)
TEST_LIBS = $(eval TEST_LIBS := $$(shell pkg-config --libs cmocka))$(TEST_LIBS)

WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wmissing-prototypes -Wstrict-prototypes -Wcast-qual -Wvla \
	-Wswitch-enum -Wundef
ifeq ($(WERROR),1)
WARNINGS += -Werror
endif
AF_CPPFLAGS = -std=gnu11 -D_GNU_SOURCE -I. $(PKG_CFLAGS) $(if $(filter fs/% mountutil/%,$<),$(FUSE_CFLAGS)) $(CPPFLAGS)
AF_CFLAGS = $(CFLAGS) $(WARNINGS) -pthread $(VARIANT_FLAGS)
AF_LDFLAGS = -pthread $(VARIANT_FLAGS) $(LDFLAGS)

# ---- quiet rules ----

ifeq ($(V),1)
Q :=
say = @:
else
Q := @
say = @printf '  %-5s %s\n' '$(1)' '$(2)'
endif

# ---- what there is ----

# From the ground up: a floor uses only those before it.
FLOORS := base wal store checkpoint fs mountutil
MAINS := $(wildcard mountutil/*_main.c)
$(foreach f,$(FLOORS),$(eval SRC_$(f) := $(filter-out $(MAINS),$(sort $(wildcard $(f)/*.c)))))
SRC_tests := $(sort $(wildcard tests/sim/*.c) $(wildcard tests/lib/*.c) \
	$(filter-out tests/replica/test_%,$(wildcard tests/replica/*.c)))

UNIT_TESTS := $(sort $(wildcard tests/unit/test_*.c))
MODEL_TESTS := $(sort $(wildcard tests/model/test_*.c))
CRASH_TESTS := $(sort $(wildcard tests/crash/test_*.c) $(wildcard tests/replica/test_*.c))
MOUNT_TESTS := $(sort $(wildcard tests/mount/test_*.sh))
PROGRAM_TESTS := $(filter-out %/lib.sh,$(sort $(wildcard tests/programs/*.sh)))
BENCH_SOURCES := $(sort $(wildcard tests/bench/*.c))
POWERCUT_SOURCES := $(sort $(wildcard tests/powercut/*.c))
FUZZ_SOURCES := $(sort $(wildcard tests/fuzz/fuzz_*.c))
FUZZ_HELP := tests/fuzz/mutate.c
GOLDEN_SOURCES := tests/golden/make_golden.c
TEST_SOURCES := $(UNIT_TESTS) $(MODEL_TESTS) $(CRASH_TESTS)
# Nothing refers to it, so no library would give it to a program.
CASE_FILTER = $(OUT)/tests/lib/case_filter.o

objects = $(patsubst %.c,$(OUT)/%.o,$(1))
programs = $(patsubst %.c,$(OUT)/%,$(1))
# The libraries of a floor and of those below it, in link order.
libs_base := $(OUT)/libbase.a
libs_wal := $(OUT)/libwal.a $(libs_base)
libs_store := $(OUT)/libstore.a $(libs_wal)
libs_checkpoint := $(OUT)/libcheckpoint.a $(libs_store)
libs_fs := $(OUT)/libfs.a $(libs_checkpoint)
libs_mountutil := $(OUT)/libmountutil.a $(libs_fs)

BINARIES := $(if $(wildcard mountutil/mount_main.c),$(BIN)/aerofs-mount) \
	$(if $(wildcard mountutil/aerofs_main.c),$(BIN)/aerofs)
TEST_PROGRAMS := $(call programs,$(TEST_SOURCES))
BENCH_PROGRAMS := $(call programs,$(BENCH_SOURCES))
POWERCUT := $(if $(POWERCUT_SOURCES),$(BIN)/powercut-mount)

.PHONY: all libs programs powercut deps deps-test deps-programs deps-fuzz deps-lint deps-model run test check check-asan \
	check-tsan check-mount check-mount-asan check-mount-tsan check-clang check-crash check-programs check-one exercise fuzz fuzz-smoke fuzz-run mutants model golden bench lint \
	format install uninstall clean help FORCE
.SECONDARY:
.DELETE_ON_ERROR:
.SUFFIXES:

all: $(BINARIES)
powercut: $(POWERCUT)
libs: $(foreach f,$(FLOORS),$(OUT)/lib$(f).a)
programs: $(TEST_PROGRAMS)

# ---- rules ----

# `deps` is an order-only prerequisite: it runs first, but does not make anything out of date.
$(OUT)/%.o: %.c | deps
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(AF_CPPFLAGS) $(AF_CFLAGS) -MMD -MP -c -o $@ $<

# The list of objects is a file of its own, so that a source taken away makes its library anew.
define library
$(OUT)/lib$(1).list: FORCE
	$$(Q)mkdir -p $$(@D)
	$$(Q)echo '$(SRC_$(1))' | cmp -s - $$@ || echo '$(SRC_$(1))' >$$@
$(OUT)/lib$(1).a: $(call objects,$(SRC_$(1))) $(OUT)/lib$(1).list | deps
	$$(call say,AR,$$@)
	$$(Q)mkdir -p $$(@D)
	$$(Q)rm -f $$@
	$$(Q)$(AR) rcs $$@ $(call objects,$(SRC_$(1)))
endef
$(foreach f,$(FLOORS) tests,$(eval $(call library,$(f))))

# The commands read stores without FUSE; only the mount program links libfuse. (Of fs/ they need mountinfo.)
$(BIN)/aerofs: $(OUT)/mountutil/aerofs_main.o $(OUT)/libmountutil.a $(libs_fs)
	$(call say,LD,$@)
	$(Q)$(CC) $(AF_LDFLAGS) -o $@ $^ $(BASE_LIBS)

$(BIN)/aerofs-mount: $(OUT)/mountutil/mount_main.o $(libs_mountutil)
	$(call say,LD,$@)
	$(Q)$(CC) $(AF_LDFLAGS) -o $@ $^ $(FUSE_LIBS) $(BASE_LIBS)

# A disk with a volatile cache behind a real mount, for tests/mount/test_torture.sh; never installed.
$(BIN)/powercut-mount: $(call objects,$(POWERCUT_SOURCES)) $(libs_mountutil)
	$(call say,LD,$@)
	$(Q)$(CC) $(AF_LDFLAGS) -o $@ $^ $(FUSE_LIBS) $(BASE_LIBS)

# scripts/test-floors prints NAME.c:FLOOR for each test: the highest floor whose headers it includes.
define test_program
$(OUT)/$(1): $(OUT)/$(1).o $(CASE_FILTER) $(OUT)/libtests.a $(libs_$(2))
	$$(call say,LD,$$@)
	$$(Q)$$(CC) $$(AF_LDFLAGS) -o $$@ $(OUT)/$(1).o $(CASE_FILTER) -Wl,--start-group $(OUT)/libtests.a $(libs_$(2)) \
		-Wl,--end-group $(if $(filter fs mountutil,$(2)),$$(FUSE_LIBS)) $$(TEST_LIBS) $$(BASE_LIBS)
endef
# The engine with its own malloc and kin, which tests/crash/test_memory.c lets fail.
MEMORY_TEST := tests/crash/test_memory
MEMORY_CALLS := malloc calloc realloc aligned_alloc posix_memalign strdup
$(OUT)/memory/%.a: $(OUT)/%.a
	$(Q)mkdir -p $(@D)
	$(Q)objcopy $(foreach c,$(MEMORY_CALLS),--redefine-sym $(c)=memory_$(c)) $< $@
$(OUT)/$(MEMORY_TEST): $(OUT)/$(MEMORY_TEST).o $(OUT)/libtests.a $(patsubst $(OUT)/%,$(OUT)/memory/%,$(libs_checkpoint))
	$(call say,LD,$@)
	$(Q)$(CC) $(AF_LDFLAGS) -o $@ $< -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(TEST_LIBS) $(BASE_LIBS)
# Every lock goes through tests/crash/test_locks.c.
$(OUT)/tests/crash/test_locks: AF_LDFLAGS += -Wl,--wrap=af_lock
OTHER_SOURCES := $(BENCH_SOURCES) $(GOLDEN_SOURCES)
TEST_FLOORS := $(if $(TEST_SOURCES)$(OTHER_SOURCES),$(shell scripts/test-floors $(filter-out $(MEMORY_TEST).c,$(TEST_SOURCES)) $(OTHER_SOURCES)))
$(foreach t,$(TEST_FLOORS),$(eval $(call test_program,$(basename $(firstword $(subst :, ,$(t)))),$(lastword $(subst :, ,$(t))))))

# Only in VARIANT=fuzz, whose clang brings libFuzzer.
$(call programs,$(FUZZ_SOURCES)): %: %.o $(call objects,$(FUZZ_HELP)) $(OUT)/libtests.a $(libs_checkpoint)
	$(call say,LD,$@)
	$(Q)$(CC) $(AF_LDFLAGS) -fsanitize=fuzzer -o $@ $< $(call objects,$(FUZZ_HELP)) -Wl,--start-group \
		$(OUT)/libtests.a $(libs_checkpoint) -Wl,--end-group $(TEST_LIBS) $(BASE_LIBS)

# ---- packages ----

# Silent and without effect when everything is there. DEPS=no leaves the machine alone.
deps:
	$(Q)$(if $(filter no,$(DEPS)),:,scripts/deps build)
deps-test: | deps
	$(Q)$(if $(filter no,$(DEPS)),:,scripts/deps test)
deps-programs: | deps-test
	$(Q)$(if $(filter no,$(DEPS)),:,scripts/deps programs)
deps-fuzz: | deps
	$(Q)$(if $(filter no,$(DEPS)),:,scripts/deps fuzz)
deps-model:
	$(Q)$(if $(filter no,$(DEPS)),:,scripts/deps model)
deps-lint: | deps
	$(Q)$(if $(filter no,$(DEPS)),:,scripts/deps lint)

# ---- use it ----

run: all
	$(Q)scripts/run-demo

bench: all $(BENCH_PROGRAMS)
	$(Q)AEROFS=$(CURDIR)/$(BIN)/aerofs AEROFS_MOUNT=$(CURDIR)/$(BIN)/aerofs-mount AEROFS_BENCH=$(CURDIR)/$(OUT)/tests/bench \
		tests/bench/run

# ---- test it ----

RUN_TESTS = AEROFS=$(CURDIR)/$(BIN)/aerofs AEROFS_MOUNT=$(CURDIR)/$(BIN)/aerofs-mount \
	AEROFS_POWERCUT=$(CURDIR)/$(BIN)/powercut-mount tests/run --build $(OUT)

# Of all programs together: distinct states after a crash, and every call of the disk crashed and failed.
CRASH_DEMANDS := --states 50000 --sites

test: all programs powercut deps-test
	$(Q)$(RUN_TESTS) $(CRASH_DEMANDS) $(TEST_PROGRAMS) $(MOUNT_TESTS)

# Everything that needs no mount.
check: programs
	$(Q)$(RUN_TESTS) $(CRASH_DEMANDS) $(TEST_PROGRAMS)

check-asan:
	+$(Q)AEROFS_TEST_VARIANT=asan $(MAKE) VARIANT=asan check
check-tsan:
	+$(Q)AEROFS_TEST_VARIANT=tsan $(MAKE) VARIANT=tsan check
# A mounted daemon in the other builds, under load from many threads: tests/mount/load.sh, and what T= names besides.
check-mount-asan:
	+$(Q)AEROFS_TEST_VARIANT=asan $(MAKE) VARIANT=asan check-mount
check-mount-tsan:
	+$(Q)AEROFS_TEST_VARIANT=tsan $(MAKE) VARIANT=tsan check-mount
check-mount: all powercut deps-test
	$(Q)$(RUN_TESTS) --output tests/mount/load.sh $(T)
check-clang:
	+$(Q)$(MAKE) VARIANT=clang all check

# The model and crash tests with RUNS= rounds from seed SEED= on. One alone: T=tests/crash/test_X. Without any of these it checks more
# than a million distinct states.
check-crash: $(call programs,$(MODEL_TESTS) $(CRASH_TESTS))
	$(Q)$(if $(RUNS),AEROFS_TEST_RUNS=$(RUNS)) $(if $(SEED),AEROFS_TEST_SEED=$(SEED)) \
		$(if $(RUNS)$(T),,AEROFS_TEST_WORKS=480) $(RUN_TESTS) $(if $(RUNS)$(T),,--states 1000000) --timeout 86400 \
		--output $(if $(T),$(OUT)/$(T),$(call programs,$(MODEL_TESTS) $(CRASH_TESTS)))

# Real programs on a mount (docs/PROGRAMS.md); takes the better part of an hour. One alone: T=tests/programs/X.sh. VARIANT=asan or
# tsan runs them on such a daemon.
check-programs: all powercut deps-programs
	$(Q)CC='$(CC)' AEROFS_TEST_VARIANT=$(VARIANT) $(RUN_TESTS) --timeout $(or $(TIMEOUT),3600) --output $(or $(T),$(PROGRAM_TESTS))

# One test with its output: make check-one T=tests/unit/test_wal
check-one: $(if $(filter %.sh,$(T)),all powercut,$(OUT)/$(T))
	$(Q)$(RUN_TESTS) --output $(if $(filter %.sh,$(T)),$(T),$(OUT)/$(T))

# Random work on a mount with remounts and kills, every byte compared: MINUTES=15 [SEED=n]
exercise: all powercut deps-test
	$(Q)SECONDS_EACH=$$(( $(or $(MINUTES),15) * 60 )) $(if $(SEED),AEROFS_TEST_SEED=$(SEED)) $(RUN_TESTS) --timeout 86400 --output \
		tests/mount/test_exerciser.sh

# Every fuzz target for FUZZ_SECONDS; what it finds lies in build/fuzz/findings. One alone: T=tests/fuzz/fuzz_X
fuzz fuzz-smoke: deps-fuzz
	+$(Q)$(MAKE) VARIANT=fuzz FUZZ_SECONDS=$(or $(FUZZ_SECONDS),$(if $(filter fuzz,$@),600,5)) fuzz-run
fuzz-run: $(if $(T),$(OUT)/$(T),$(call programs,$(FUZZ_SOURCES)))
	$(Q)tests/fuzz/run --seconds $(or $(FUZZ_SECONDS),5) $^

# Broken versions of the program, each of which a test must notice. Some alone: NAMES="part of a name"
mutants: all programs powercut deps-test
	$(Q)scripts/mutants $(NAMES)

# The protocol in docs/proofs/model, verified by Spin, and its broken variants refuted.
model: deps-model
	$(Q)LIMIT=$(or $(LIMIT),300) docs/proofs/model/run

# The images of this format version anew, into tests/golden (only when the version changes).
golden: $(call programs,$(GOLDEN_SOURCES))
	$(Q)$< tests/golden

lint: libs $(OUT)/libtests.a deps-lint
	$(Q)CC='$(CC)' scripts/lint

format: deps-lint
	$(Q)clang-format -i $$(find $(FLOORS) tests -name '*.[ch]')

# ---- install it ----

MAN_PAGES := $(wildcard mountutil/*.8)

MAN_DIR := $(PREFIX)/share/man/man8
# Names of the helpers, and what each is; their man pages refer to that of the program.
MOUNT_HELPERS := mount.aerofs mount.fuse.aerofs
UMOUNT_HELPERS := umount.fuse.aerofs umount.fuse

# umount.fuse serves the mounts of all FUSE file systems (mountutil/cmd_umount.c), so one of somebody else's stays.
install: all
	install -d $(foreach d,$(PREFIX)/bin $(MAN_DIR) $(UNIT_DIR) $(HELPER_DIR),$(DESTDIR)$(d))
	install -m 755 $(BINARIES) $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(MAN_PAGES) $(DESTDIR)$(MAN_DIR)
	for h in $(MOUNT_HELPERS) $(UMOUNT_HELPERS); do \
		case $$h in mount.*) program=aerofs-mount ;; *) program=aerofs ;; esac; \
		at=$(DESTDIR)$(HELPER_DIR)/$$h; \
		if [ -e $$at ] && [ "$$(readlink $$at)" != $(PREFIX)/bin/$$program ]; then echo "$$at is there already: left alone"; \
		else ln -sfn $(PREFIX)/bin/$$program $$at && echo ".so man8/$$program.8" >$(DESTDIR)$(MAN_DIR)/$$h.8; fi; done
	sed 's|@BINDIR@|$(PREFIX)/bin|' mountutil/aerofs@.service.in >$(DESTDIR)$(UNIT_DIR)/aerofs@.service
	chmod 644 $(DESTDIR)$(UNIT_DIR)/aerofs@.service

uninstall:
	for h in $(MOUNT_HELPERS) $(UMOUNT_HELPERS); do \
		at=$(DESTDIR)$(HELPER_DIR)/$$h; \
		case $$(readlink $$at) in $(PREFIX)/bin/aerofs | $(PREFIX)/bin/aerofs-mount) \
			rm -f $$at $(DESTDIR)$(MAN_DIR)/$$h.8 ;; esac; done
	rm -f $(foreach b,aerofs aerofs-mount,$(DESTDIR)$(PREFIX)/bin/$(b)) $(DESTDIR)$(UNIT_DIR)/aerofs@.service
	rm -f $(foreach m,$(notdir $(MAN_PAGES)),$(DESTDIR)$(MAN_DIR)/$(m))

clean:
	rm -rf build

help:
	@printf '%s\n' \
	  'make              build build/aerofs-mount and build/aerofs' \
	  'make run          mount a demo store, write, kill the daemon, mount again, show that all is there' \
	  'make test         build and run every test' \
	  'make check        the tests that need no mount; check-asan, check-tsan, check-clang: in other builds' \
	  'make check-mount-asan  a daemon under load from many threads, in that build; check-mount-tsan [T=tests/mount/test_X.sh]' \
	  'make check-crash  the model and crash tests: RUNS=rounds SEED=first [T=tests/crash/test_X]' \
	  'make check-programs  SQLite, PostgreSQL, git, dpkg, rsync, fio and others on a mount, with crashes [T=tests/programs/X.sh]' \
	  'make check-one    one test with its output: T=tests/unit/test_X or T=tests/mount/test_X.sh' \
	  'make fuzz-smoke   every fuzz target for a few seconds; make fuzz: FUZZ_SECONDS= each [T=tests/fuzz/fuzz_X]' \
	  'make exercise     the exerciser on a mount: MINUTES=15 [SEED=n]' \
	  'make mutants      broken versions of the program, each of which a test must notice [NAMES=…]' \
	  'make model        verify the model of the protocol with Spin, refute its broken variants' \
	  'make powercut     build/powercut-mount: a mount whose kill -9 is a power cut, for aerofs torture' \
	  'make bench        measure against the file system of this machine' \
	  'make lint         style, include rules, static analysis;  make format: clang-format everything' \
	  'make install      PREFIX=/usr/local DESTDIR= HELPER_DIR=/sbin UNIT_DIR=;  make uninstall' \
	  'make clean        remove build/' \
	  'V=1 shows commands, WERROR=1 makes warnings errors, DEPS=no installs no packages, VARIANT=obj|asan|tsan|clang|fuzz'

-include $(shell find $(OUT) -name '*.d' 2>/dev/null)
