# Loadstone. `make help` lists the targets.
CC ?= cc
CXX ?= c++
PYTHON ?= python3
BUILD ?= build
OPT ?= -O2
SAN ?=
WARN := -Wall -Wextra -Werror
CPPFLAGS += -D_GNU_SOURCE -Isrc -I.
CFLAGS += -std=gnu17 $(OPT) -g $(WARN) $(SAN) -fno-strict-aliasing
CXXFLAGS += -std=c++17 $(OPT) -g $(WARN) $(SAN)
LDFLAGS += $(SAN)
CFLAGS_version = -DLOADSTONE_VERSION='"$(VERSION)"' -DLOADSTONE_COMMIT='"$(COMMIT)"'
VERSION := 0.1.0
COMMIT := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

include index/faiss.mk

LIBS := $(FAISS_LIBS) -lmicrohttpd -ljansson -luring -lroaring -lxxhash -lpthread -lm
SRC := $(filter-out src/main.c,$(wildcard src/*/*.c)) $(wildcard index/*.c) $(wildcard api/*.c)
SRCXX := $(FAISS_SHIM) $(wildcard api/*.cpp)
OBJ := $(SRC:%.c=$(BUILD)/%.o) $(SRCXX:%.cpp=$(BUILD)/%.o)
TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/*/test_*.c))
HTTP_TESTS ?= tests/http

all: $(BUILD)/loadstoned ## build the daemon (build/loadstoned)

$(BUILD)/loadstoned: $(BUILD)/src/main.o $(OBJ) | $(BUILD)/faiss-kernels.ok
	$(CC) $(LDFLAGS) $^ -o $@ $(LIBS)

$(BUILD)/%.o: %.c | $(BUILD)/deps.ok
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(CFLAGS_$(basename $(notdir $<))) -MMD -MP -c $< -o $@

$(BUILD)/%.o: %.cpp | $(BUILD)/deps.ok
	@mkdir -p $(@D)
	$(CXX) $(CPPFLAGS) $(FAISS_CPPFLAGS) $(CXXFLAGS) -MMD -MP -c $< -o $@

$(BUILD)/tests/%: tests/unit/%.c $(OBJ)
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -Itests $(CFLAGS) -MMD -MP $(LDFLAGS) $< $(OBJ) -o $@ $(LIBS) -lcmocka

# the packages that the build needs; setup.sh does nothing when they are there
$(BUILD)/deps.ok: scripts/setup.sh
	@mkdir -p $(@D)
	sh scripts/setup.sh build
	@touch $@

help: ## print this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
.PHONY: all help
.DELETE_ON_ERROR:
