# Loadstone. `make help` lists the targets; everything that is built lies under build/.
CC ?= cc
CXX ?= c++
BUILD ?= build
OPT ?= -O2
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
UNITDIR ?= $(PREFIX)/lib/systemd/system
DOCDIR ?= $(PREFIX)/share/doc/loadstone
SAN ?=
VERSION := 0.1.0
COMMIT := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
WARN := -Wall -Wextra -Werror
CPPFLAGS += -D_GNU_SOURCE -Isrc -I.
CFLAGS += -std=gnu17 $(OPT) -g $(WARN) $(SAN) -fno-strict-aliasing
CXXFLAGS += -std=c++17 $(OPT) -g $(WARN) $(SAN)
LDFLAGS += $(SAN)
CFLAGS_openapi = -DOPENAPI_JSON='"$(BUILD)/api/openapi.json"'
CFLAGS_version = -DLOADSTONE_VERSION='"$(VERSION)"' -DLOADSTONE_COMMIT='"$(COMMIT)"'
MAKEFLAGS += --jobs=$(shell nproc)
$(V).SILENT:

include index/faiss.mk

LIBS := $(FAISS_LIBS) -lmicrohttpd -lnettle -luring -lroaring -lxxhash -lpthread -lm
SRC := $(wildcard src/*/*.c index/*.c api/*.c)
SRCXX := $(FAISS_SHIM) $(wildcard api/*.cpp)
MAIN := $(BUILD)/src/main.o $(BUILD)/src/settings.o
OBJ := $(SRC:%.c=$(BUILD)/%.o) $(SRCXX:%.cpp=$(BUILD)/%.o)
TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/*/test_*.c)) \
	$(patsubst %.c,$(BUILD)/%,$(wildcard tests/fault/test_*.c))
FAULT_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(filter-out tests/fault/test_%,$(wildcard tests/fault/*.c)))
FUZZ := $(patsubst tests/fuzz/%.c,$(BUILD)/tests/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_NAMES = $(patsubst $(BUILD)/tests/fuzz/fuzz_%,%,$(FUZZ))
SOAK_TESTS := tests/http/test_durability.py::test_kill_loop_loses_nothing_that_was_acknowledged \
	tests/http/test_kill_loads.py \
	tests/http/test_model.py tests/http/soak.py
SANITIZE := -fno-omit-frame-pointer -fno-sanitize-recover=all

all: $(BUILD)/loadstoned ## build the daemon: build/loadstoned

demo: all ## load, index and search 60,000 real texts; leaves the service running
	sh scripts/demo.sh

check: all $(TESTS) $(FUZZ) ## build and run all quick tests; what CI runs
	BUILD=$(BUILD) sh scripts/check.sh

asan: ## run the tests under AddressSanitizer and UBSan
	$(MAKE) check BUILD=build/asan OPT=-O1 SAN="-fsanitize=address,undefined $(SANITIZE)"

# ThreadSanitizer does not know libgomp's barriers, so that FAISS has one thread here.
tsan: export OMP_NUM_THREADS = 1
tsan: export TEST_TIMEOUT_S = 1800
tsan: ## run the unit tests and everything at once over HTTP under ThreadSanitizer
	$(MAKE) all unit BUILD=build/tsan OPT=-O1 SAN="-fsanitize=thread $(SANITIZE)"
	BUILD=build/tsan HTTP_TESTS=tests/http/soak.py SOAK_SECONDS=$(or $(SOAK_SECONDS),10) \
		sh scripts/check.sh http

soak: ## under ASan: SOAK_ROUNDS=200 kills, MODEL_STEPS=1000 of the model, then everything at once
	$(MAKE) all BUILD=build/asan OPT=-O1 SAN="-fsanitize=address,undefined $(SANITIZE)"
	BUILD=build/asan SOAK_ROUNDS=$(or $(SOAK_ROUNDS),200) SOAK_SECONDS=$(or $(SOAK_SECONDS),120) \
		MODEL_STEPS=$(or $(MODEL_STEPS),1000) HTTP_TESTS="$(SOAK_TESTS)" \
		ASAN_OPTIONS=quarantine_size_mb=16 TEST_TIMEOUT_S=14400 sh scripts/check.sh http

check-fault: $(TESTS) ## each failing call, flipped bits, power cuts (POWER_CUT_RUNS=40 from POWER_CUT_SEED=1)
	FAULT_STRIDE=1 $(BUILD)/tests/fault/test_io_faults
	FAULT_STRIDE=1 $(BUILD)/tests/fault/test_memory_faults
	FAULT_STRIDE=1 $(BUILD)/tests/store/test_purge
	DAMAGE_FLIPS=1000 $(BUILD)/tests/fault/test_damage
	POWER_CUT_RUNS=$(or $(POWER_CUT_RUNS),40) $(BUILD)/tests/fault/test_power_cut

unit: $(TESTS) $(FUZZ) ## build and run only the unit tests
	BUILD=$(BUILD) sh scripts/check.sh unit

fuzz: ## fuzz every parser; FUZZ_SECONDS=60 each, FUZZ_TARGETS="json log" picks
	sh scripts/setup.sh fuzz
	$(MAKE) fuzz-build BUILD=build/fuzz CC="$(FUZZ_CC)" CXX="$(FUZZ_CC)++" OPT=-O1 FUZZ_MAIN=-fsanitize=fuzzer \
		SAN="-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize=vptr $(SANITIZE)"
	FUZZ_TARGETS="$(or $(FUZZ_TARGETS),$(FUZZ_NAMES))" sh tests/fuzz/run.sh

fuzz-build: $(FUZZ)

fuzz-seeds: $(BUILD)/tests/fuzz/make_seeds
	$<

schemathesis: all ## hold the server against its OpenAPI document for CONTRACT_SECONDS (600)
	LOADSTONED=$(BUILD)/loadstoned sh scripts/check.sh contract

bench: all $(BUILD)/deps-bench.ok $(BUILD)/bench/search_direct $(BUILD)/bench/filter_rows ## measure loads, commits, versions, searches, fetches, memory, start-up; beside Redis and the disk
	BUILD=$(BUILD) sh bench/run.sh

bench-peers: all $(BUILD)/deps-test.ok $(BUILD)/bench/peers/engine ## the same searches by hnswlib, FAISS, usearch and others; PEERS_ROWS=1000000 SETS="mnist clustered texts"
	BUILD=$(BUILD) CC="$(CC)" CXX="$(CXX)" sh bench/peers.sh $(SETS)

lint: ## check format, layers and marks; run the static analyser
	sh scripts/setup.sh lint
	BUILD=$(BUILD) FAISS_CPPFLAGS="$(FAISS_CPPFLAGS)" sh scripts/lint.sh

format: ## rewrite the C sources in the project's format
	find src index api tests bench -name '*.[ch]' -o -name '*.cpp' | xargs clang-format -i

install: all ## install program, unit and documents; PREFIX=/usr/local SYSCONFDIR=/etc DESTDIR=
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin $(BUILD)/loadstoned
	sed -e 's|@BINDIR@|$(PREFIX)/bin|' -e 's|@SYSCONFDIR@|$(SYSCONFDIR)|' scripts/loadstoned.service \
		>$(BUILD)/loadstoned.service
	install -D -m 644 -t $(DESTDIR)$(UNITDIR) $(BUILD)/loadstoned.service
	install -D -m 644 -t $(DESTDIR)$(DOCDIR) LICENSE README.md api/openapi.yaml
	$(BUILD)/loadstoned settings >$(BUILD)/loadstone.conf
	test -e $(DESTDIR)$(SYSCONFDIR)/loadstone/loadstone.conf || \
		install -D -m 644 -t $(DESTDIR)$(SYSCONFDIR)/loadstone $(BUILD)/loadstone.conf

uninstall: ## remove what install put there; settings and data stay
	rm -f $(DESTDIR)$(PREFIX)/bin/loadstoned $(DESTDIR)$(UNITDIR)/loadstoned.service
	rm -f $(addprefix $(DESTDIR)$(DOCDIR)/,LICENSE README.md openapi.yaml)
	rmdir $(DESTDIR)$(DOCDIR) 2>/dev/null || true

clean: ## remove everything that was built
	rm -rf $(BUILD)

help: ## print this list
	awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

$(BUILD)/loadstoned: $(MAIN) $(OBJ)
	echo "link $@"
	$(CC) $(LDFLAGS) $^ -o $@ $(LIBS)

$(BUILD)/%.o: %.c $(BUILD)/deps-build.ok
	mkdir -p $(@D)
	echo "cc   $<"
	$(CC) $(CPPFLAGS) $(CFLAGS) $(CFLAGS_$(basename $(notdir $<))) -MMD -MP -c $< -o $@

$(BUILD)/%.o: %.cpp $(BUILD)/deps-build.ok
	mkdir -p $(@D)
	echo "c++  $<"
	$(CXX) $(CPPFLAGS) $(CXXFLAGS) -MMD -MP -c $< -o $@

$(BUILD)/tests/%: tests/unit/%.c $(OBJ) $(BUILD)/deps-test.ok
	mkdir -p $(@D)
	echo "test $<"
	$(CC) $(CPPFLAGS) -Itests $(CFLAGS) -MMD -MP $(LDFLAGS) $< $(OBJ) -o $@ $(LIBS) -lcmocka

$(FAULT_OBJ): CPPFLAGS += -Itests
$(FAULT_OBJ): | $(BUILD)/deps-test.ok
$(BUILD)/tests/fault/%: tests/fault/%.c $(OBJ) $(FAULT_OBJ) $(BUILD)/deps-test.ok
	mkdir -p $(@D)
	echo "test $<"
	$(CC) $(CPPFLAGS) -Itests $(CFLAGS) -MMD -MP $(LDFLAGS) $< $(OBJ) $(FAULT_OBJ) -o $@ $(LIBS) -lcmocka

$(BUILD)/tests/store/test_memory $(BUILD)/tests/fault/test_memory_faults: LDFLAGS += $(foreach f,malloc calloc realloc aligned_alloc,-Wl,--wrap=$(f))

# A fuzz target: libFuzzer is its main in `make fuzz`, elsewhere the replay of its corpus.
FUZZ_CC ?= clang
FUZZ_MAIN ?= tests/fuzz/replay.c -lcmocka
$(BUILD)/tests/fuzz/%: tests/fuzz/%.c tests/fuzz/replay.c $(OBJ) $(BUILD)/deps-test.ok
	mkdir -p $(@D)
	echo "fuzz $<"
	$(CC) $(CPPFLAGS) -Itests/fuzz -DFUZZ_CORPUS='"tests/fuzz/corpus/$(*:fuzz_%=%)"' $(CFLAGS) \
		-MMD -MP $(LDFLAGS) $< $(OBJ) -o $@ $(FUZZ_MAIN) $(LIBS)

$(BUILD)/tests/fuzz/make_seeds: FUZZ_MAIN =

$(BUILD)/api/openapi.o: $(BUILD)/api/openapi.json
$(BUILD)/api/openapi.json: api/openapi.yaml scripts/openapi_json.py Makefile $(BUILD)/deps-build.ok
	mkdir -p $(@D)
	echo "json $<"
	python3 scripts/openapi_json.py $< $(VERSION) >$@

$(BUILD)/bench/%: bench/%.c $(OBJ)
	mkdir -p $(@D)
	echo "cc   $<"
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP $(LDFLAGS) $< $(OBJ) -o $@ $(LIBS)

# What the machine lacks is installed once; the stamp is renewed when the list changes.
$(BUILD)/deps-%.ok: scripts/setup.sh
	mkdir -p $(@D)
	sh scripts/setup.sh $*
	touch $@

$(BUILD)/src/base/version.o: $(BUILD)/commit
$(BUILD)/commit: FORCE
	mkdir -p $(@D)
	echo "$(VERSION) $(COMMIT)" | cmp -s - $@ || echo "$(VERSION) $(COMMIT)" > $@

-include $(OBJ:.o=.d) $(FAULT_OBJ:.o=.d) $(MAIN:.o=.d) $(TESTS:=.d) $(FUZZ:=.d)
.PHONY: all demo check check-fault asan tsan soak unit fuzz fuzz-build fuzz-seeds schemathesis bench bench-peers install uninstall lint format clean help FORCE
.PRECIOUS: $(BUILD)/deps-%.ok
.DELETE_ON_ERROR:
