# hark: all check check-long coverage analyze fuzz fuzz-programs conformance lint bench man completions install install-dev clean      (GNU make)
#   make SAN=address,undefined    with sanitizers, under build/SAN
#   make check T=echo             one test file: tests/echo.bats or tests/unit/test_echo.c
#   make check VALGRIND=1         on valgrind, which takes its time; with T, too
#   make coverage                 line coverage of core/ and handlers/ by all of make check
#   make analyze                  cppcheck, and gcc -fanalyzer
#   make fuzz T=relay TIME=60     tests/fuzz/fuzz_relay.c for a minute; without T each of them
#   make bench W=forward          one part of the benchmark: echo, forward, tls or exec

PREFIX ?= /usr/local
DESTDIR ?=
UNITS ?= $(PREFIX)/lib/systemd/system
CC ?= gcc
VERSION := 0.1.0

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wcast-qual -Wwrite-strings -Wvla -Wformat=2
HARDEN := -fPIE -fstack-protector-strong
CFLAGS ?= -O2 -g
ifdef WERROR
WARN += -Werror
endif

comma := ,
ifdef SAN
BUILD := build/$(subst $(comma),-,$(SAN))
SANFLAGS := -fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all
CFLAGS := -O1 -g
else
BUILD := build/default
HARDEN += -D_FORTIFY_SOURCE=2
endif

ALL_CFLAGS = -std=c11 -D_GNU_SOURCE -DHARK_VERSION='"$(VERSION)"' $(WARN) $(HARDEN) $(SANFLAGS) $(CFLAGS) -MMD -MP
# ev.h's watcher macros alias through the initial members that all watchers share
ALL_CFLAGS += -fno-strict-aliasing
ALL_LDFLAGS = -pie -Wl,-z,relro,-z,now $(SANFLAGS) $(LDFLAGS)
LIBS := -lev -lcares -lssl -lcrypto -lseccomp
# The same for hark.pc: those that pkg-config does not know, and those that it does.
PC_LIBS := -lev -lm
PC_REQUIRES := libcares openssl

CORE := $(wildcard core/*.c)
HANDLERS := $(wildcard handlers/*.c)
CMD := $(filter-out cmd/optdoc.c,$(wildcard cmd/*.c))
UNIT := $(wildcard tests/unit/test_*.c)
TOOLS := $(wildcard tests/tools/*.c)
FUZZ := $(wildcard tests/fuzz/*.c)

obj = $(patsubst %.c,$(BUILD)/%.o,$(1))
LIBRARY := $(BUILD)/libhark.a
PROGRAM := $(BUILD)/hark
OPTDOC := $(BUILD)/optdoc
UNIT_PROGRAMS := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(UNIT))
FUZZ_PROGRAMS := $(patsubst tests/fuzz/%.c,$(BUILD)/%,$(FUZZ))
TOOL_PROGRAMS := $(patsubst tests/tools/%.c,$(BUILD)/tools/%,$(TOOLS))

.PHONY: all tests check check-unit check-bats check-long coverage analyze fuzz fuzz-programs conformance lint bench man install install-dev clean
.SECONDARY:

all: $(PROGRAM)
ifndef SAN
all: hark
hark: $(PROGRAM)
	ln -f $< $@ 2>/dev/null || cp -f $< $@
endif

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -c -o $@ $<

$(BUILD)/cmd/metrics_page.o: cmd/status.html

$(LIBRARY): $(call obj,$(CORE))
	@rm -f $@
	$(AR) rcs $@ $^

$(PROGRAM): $(call obj,$(CMD) $(HANDLERS)) $(LIBRARY)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

# Everything but the program's main, for tests of cmd/ and handlers/.
PARTS := $(call obj,$(filter-out cmd/main.c,$(CMD)) $(HANDLERS)) $(LIBRARY)

$(OPTDOC): $(BUILD)/cmd/optdoc.o $(PARTS)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

# What unit tests share; each takes what it needs.
SUPPORT := $(BUILD)/unit/libsupport.a
$(SUPPORT): $(call obj,$(filter-out $(UNIT),$(wildcard tests/unit/*.c)))
	@mkdir -p $(@D)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/unit/%: $(BUILD)/tests/unit/%.o $(SUPPORT) $(PARTS)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ -lcmocka $(LIBS)

$(BUILD)/tools/%: $(BUILD)/tests/tools/%.o $(LIBRARY)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

# For LD_PRELOAD: calls fail.
INJECTOR := $(BUILD)/inject.so
$(INJECTOR): tests/long/inject.c tests/long/calls.def
	@mkdir -p $(@D)
	$(CC) -std=c11 -D_GNU_SOURCE $(WARN) -O2 -g -fPIC -shared -o $@ $<

tests: all $(OPTDOC) $(UNIT_PROGRAMS) $(TOOL_PROGRAMS) $(INJECTOR)

check check-long: tests
	tests/run --build $(BUILD) $(if $(filter check-long,$@),--long) $(if $(VALGRIND),--valgrind) $(T)

coverage:
	$(MAKE) BUILD=build/coverage SANFLAGS=--coverage CFLAGS="-O0 -g" tests
	find build/coverage -name '*.gcda' -delete
	-GCOV_ERROR_FILE=/dev/null tests/run --build build/coverage $(T)
	tests/coverage build/coverage core handlers

analyze:
	tests/analyze

# libFuzzer comes with clang, and everything is built for it.
TIME ?= 10
fuzz:
	$(MAKE) CC=clang SAN=fuzzer-no-link,address,undefined BUILD=build/fuzz fuzz-programs
	tests/fuzz/run build/fuzz $(TIME) $(T)

fuzz-programs: $(FUZZ_PROGRAMS)

$(BUILD)/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(SUPPORT) $(PARTS)
	$(CC) $(ALL_LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(LIBS)

# Row by row, what Tornado's own tests say and which test says it here.
conformance: tests
	tests/conformance --build $(BUILD) >tests/CONFORMANCE.md

# The parts of the manuals and the completions that come from the option table and from hark.h.
man: $(OPTDOC)
	cmd/completions/generate $(OPTDOC)
	man/synopsis

lint:
	tests/lint

# The load generator, and the least that an echo server can do.
BENCH := $(BUILD)/bench/load $(BUILD)/bench/limit

$(BUILD)/bench/load: $(call obj,$(filter-out tests/bench/limit.c,$(wildcard tests/bench/*.c)))
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ -lssl -lcrypto

$(BUILD)/bench/limit: $(BUILD)/tests/bench/limit.o
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $^

bench: $(PROGRAM) $(BENCH)
	tests/bench/bench.py --build $(BUILD) $(W)

install: $(PROGRAM)
	install -D -m 755 $(PROGRAM) $(DESTDIR)$(PREFIX)/bin/hark
	install -D -m 644 man/hark.1 $(DESTDIR)$(PREFIX)/share/man/man1/hark.1
	install -D -m 644 cmd/completions/hark.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/hark
	install -D -m 644 cmd/completions/_hark $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_hark
	install -D -m 644 cmd/completions/hark.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/hark.fish
	mkdir -p $(DESTDIR)$(UNITS)
	for unit in cmd/systemd/*; do sed 's|/usr/bin/hark|$(PREFIX)/bin/hark|' "$$unit" >"$(DESTDIR)$(UNITS)/$${unit##*/}" || exit 1; done

# hark.pc depends on where it goes, so it is made on the way there.
install-dev: $(LIBRARY)
	install -D -m 644 $(LIBRARY) $(DESTDIR)$(PREFIX)/lib/libhark.a
	install -d $(DESTDIR)$(PREFIX)/include
	install -m 644 $(wildcard core/hark*.h) $(DESTDIR)$(PREFIX)/include
	install -D -m 644 man/hark.3 $(DESTDIR)$(PREFIX)/share/man/man3/hark.3
	install -d $(DESTDIR)$(PREFIX)/lib/pkgconfig
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' -e 's|@LIBS_PRIVATE@|$(PC_LIBS)|' \
		-e 's|@REQUIRES_PRIVATE@|$(PC_REQUIRES)|' core/hark.pc.in >$(DESTDIR)$(PREFIX)/lib/pkgconfig/hark.pc

clean:
	rm -rf build hark

-include $(shell find build -name '*.d' 2>/dev/null)

# System calls that a test makes fail.
$(BUILD)/unit/test_accept: LDFLAGS += -Wl,--wrap=accept4
$(BUILD)/unit/test_process $(BUILD)/unit/test_process_signals $(BUILD)/unit/test_process_helpers: LDFLAGS += -Wl,--wrap=fork,--wrap=clock_gettime
$(BUILD)/unit/test_netutil: LDFLAGS += -Wl,--wrap=getaddrinfo,--wrap=socket,--wrap=bind,--wrap=listen
$(BUILD)/unit/test_unix_socket: LDFLAGS += -Wl,--wrap=bind,--wrap=listen,--wrap=connect
$(BUILD)/unit/test_spawn: LDFLAGS += -Wl,--wrap=syscall,--wrap=dup3
$(BUILD)/unit/test_splice: LDFLAGS += -Wl,--wrap=splice
$(BUILD)/unit/test_faults: LDFLAGS += -Wl,--wrap=syscall
$(BUILD)/unit/test_sandbox: LDFLAGS += -Wl,--wrap=syscall,--wrap=seccomp_load,--wrap=prctl
