# How FAISS is linked: FAISS_LIBS, FAISS_SHIM, FAISS_CPPFLAGS and CFLAGS_faiss_kernels come from a
# small makefile that faiss_probe.sh writes into the build directory. It is remade like any other
# target, after the packages are installed, so a bare machine needs nothing to read this; goals that
# compile nothing do not ask for it.
# FAISS_PREFIX=DIR names an installation with a real libfaiss_c; each prefix has its own file.
FAISS_PREFIX ?=
FAISS_CONFIG := $(BUILD)/faiss$(subst /,_,$(FAISS_PREFIX)).mk
FAISS_SOURCES := $(wildcard index/faiss_probe.sh index/faiss_shim.cpp index/faiss_kernels.c)
NO_BUILD_GOALS := help clean format

.DEFAULT_GOAL := all

ifneq ($(filter-out $(NO_BUILD_GOALS),$(or $(MAKECMDGOALS),all)),)
include $(FAISS_CONFIG)
endif
CPPFLAGS += $(FAISS_CPPFLAGS)

$(FAISS_CONFIG): $(FAISS_SOURCES) index/faiss.mk $(BUILD)/deps-build.ok
	@mkdir -p $(@D)
	@CC="$(CC)" CXX="$(CXX)" FAISS_PREFIX="$(FAISS_PREFIX)" sh index/faiss_probe.sh > $@.tmp
	@mv $@.tmp $@

# Loops of fixed length over vectors want unrolling; sums in double must round alike everywhere.
CFLAGS_kernels_scalar := -O3
CFLAGS_kernels_avx2 := -O3
CFLAGS_kernels_avx512 := -O3
CFLAGS_search_walk_scalar := -O3
CFLAGS_search_walk_avx2 := -O3
CFLAGS_search_walk_avx512 := -O3
CFLAGS_search_walk_vnni := -O3
CFLAGS_distinct := -O3
CFLAGS_distance := -O3 -ffp-contract=off
CFLAGS_codes := -O3 -ffp-contract=off
CFLAGS_build_points := -O3
