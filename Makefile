# Asterism: one Makefile, not recursive. `make help` prints the lines that start with two hashes.
##   make              the program: build/asterism
##   make demo         install what is missing, build, evaluate the embedded model on three tasks with 3 MPI ranks
##   make check        build and run every test (make test is the same)
##   make fuzz         libFuzzer on every tests/fuzz/fuzz_*.c, FUZZ_S seconds each (60), with clang; FUZZ=NAME: only that one
##   make bench        speed of each kernel and of the engine against this machine's measured limits (BENCH_MODELS=FOLDERS)
##   make deps         install the Debian packages we need (without root: says what to ask for)
##   make format lint  clang-format in place; clang-tidy and cppcheck
##   make install      PREFIX=/usr/local DESTDIR=
##   make clean        removes build/
##   V=1               prints whole commands
##   DEBUG=1           unoptimised build in build/debug     SAN=address,undefined   sanitizers, in build/san
##   config.mk         (git-ignored) local settings: CC, EXTRA_CFLAGS, EXTRA_LDLIBS, PKGS, NP
-include config.mk

# As many compilers as cores (at most 8) unless -j says otherwise; a word a file instead of the whole command.
ifeq ($(filter -j%,$(MAKEFLAGS)),)
  MAKEFLAGS += -j$(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 8 ? n : 8)))
endif
say = $(if $(V),,@echo '  $1  $2' &&)

CC       = mpicc
PREFIX  ?= /usr/local
NP      ?= 3
PKGS    ?= $(shell pkg-config --exists hdf5-openmpi && echo hdf5-openmpi || echo hdf5) libconfig openblas jansson libpcre2-8 libutf8proc zlib libcrypto

B := build
OPT := -O3 -DNDEBUG
ifdef DEBUG
  B := build/debug
  OPT := -O1
endif
ifdef SAN
  B := build/san
  OPT := -O1 -fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=undefined
endif

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wvla -Wconversion -Wdouble-promotion -Wmissing-prototypes -Werror
# OpenBLAS: the OpenMP build, so that its threads and ours are the same ones.
BLASDIR := $(firstword $(wildcard /usr/lib/*/openblas-openmp))
CFLAGS_ALL = -std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE $(OPT) -g -fno-math-errno -ffp-contract=off -fopenmp $(WARN) -Isrc -I. \
             $(patsubst -I%,-isystem %,$(filter -I%,$(shell pkg-config --cflags $(PKGS) 2>/dev/null))) $(EXTRA_CFLAGS)
LDLIBS_ALL = $(if $(BLASDIR),-L$(BLASDIR) -Wl$(comma)-rpath$(comma)$(BLASDIR)) $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lhdf5_hl -lm -lpthread $(EXTRA_LDLIBS)
comma := ,

# The folder selects the instruction set; in kernels/avx512 the first word of a file (bf16, amx) what it has beyond.
X86 := $(filter x86_64 amd64,$(shell uname -m))
ISA_avx2   := -mavx2 -mfma -mf16c
ISA_avx512 := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mf16c
ISA_bf16   := $(ISA_avx512) -mavx512bf16
ISA_amx    := $(ISA_bf16) -mamx-tile -mamx-bf16
KERN := kernels kernels/ref $(if $(X86),kernels/avx2 kernels/avx512)

SRC    := $(wildcard src/*/*.c) $(foreach d,$(KERN),$(wildcard $(d)/*.c))
LIBSRC := $(filter-out src/app/main.c,$(SRC))
OBJ    := $(SRC:%.c=$(B)/%.o)
LIB    := $(B)/libast.a
TESTS  := $(patsubst %.c,$(B)/%,$(wildcard tests/unit/test_*.c tests/kernel/test_*.c tests/golden/test_*.c tests/gradient/test_*.c tests/mpi/test_*.c))
BENCH  := $(patsubst %.c,$(B)/%,$(wildcard tests/bench/*.c))

.PHONY: all help deps demo check test bench fuzz fuzz-one format lint install clean tests FORCE
.DEFAULT_GOAL := all
.SECONDARY:

all: $(B)/asterism
tests: all $(TESTS)

help:
	@sed -n 's/^## \{0,1\}//p' Makefile

# All is rebuilt when compiler or flags change.
$(B)/flags: FORCE
	@mkdir -p $(B)
	@echo '$(CC) $(CFLAGS_ALL) $(ISA_avx2) $(ISA_amx) $(LDLIBS_ALL)' | cmp -s - $@ || echo '$(CC) $(CFLAGS_ALL) $(ISA_avx2) $(ISA_amx) $(LDLIBS_ALL)' > $@

# What the results say about the program; rewritten only when it changes.
$(B)/build_info.h: FORCE
	@mkdir -p $(B)
	@{ echo '#define BUILD_REVISION "$(shell git rev-parse HEAD 2>/dev/null || echo unknown)"'; \
	   echo '#define BUILD_BRANCH "$(shell git rev-parse --abbrev-ref HEAD 2>/dev/null || echo unknown)"'; \
	   echo '#define BUILD_DIRTY $(shell git diff --quiet HEAD 2>/dev/null && echo 0 || echo 1)'; \
	   echo '#define BUILD_CFLAGS "$(strip $(OPT) -fno-math-errno -ffp-contract=off)"'; \
	   echo '#define BUILD_COMPILER "$(shell $(CC) --version 2>/dev/null | head -n 1)"'; } > $@.new
	@cmp -s $@.new $@ && rm -f $@.new || mv $@.new $@

isa = $(if $(findstring avx512/amx,$1),$(ISA_amx),$(if $(findstring avx512/bf16,$1),$(ISA_bf16),$(if $(findstring kernels/avx512,$1),$(ISA_avx512),$(if $(findstring kernels/avx2,$1),$(ISA_avx2)))))

$(B)/src/app/%.o: src/app/%.c $(B)/flags $(B)/build_info.h
	@mkdir -p $(@D)
	$(call say,CC,$<) $(CC) $(CFLAGS_ALL) -I$(B) -MMD -MP -c $< -o $@

$(B)/%.o: %.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<) $(CC) $(CFLAGS_ALL) $(call isa,$<) -MMD -MP -c $< -o $@

$(LIB): $(LIBSRC:%.c=$(B)/%.o)
	@rm -f $@
	$(call say,AR,$@) ar rcs $@ $^

$(B)/asterism: $(B)/src/app/main.o $(LIB)
	$(call say,LD,$@) $(CC) $(CFLAGS_ALL) $^ $(LDLIBS_ALL) -o $@

$(B)/tests/mpi/%: tests/mpi/%.c $(LIB) $(B)/flags
	@mkdir -p $(@D)
	$(call say,LD,$@) $(CC) $(CFLAGS_ALL) -DT_MPI -MMD -MP $< $(LIB) $(LDLIBS_ALL) -o $@

$(B)/tests/%: tests/%.c $(LIB) $(B)/flags
	@mkdir -p $(@D)
	$(call say,LD,$@) $(CC) $(CFLAGS_ALL) -MMD -MP $< $(LIB) $(LDLIBS_ALL) -o $@

check test: tests
	@tests/plan.sh $(B) | tests/run.sh

# Checkpoints whose prefill and decoding `make bench` measures beside the random 125M shape.
BENCH_MODELS ?= data/asterism-S $(wildcard ../shared/models/asterism-M)

# The benchmarks get the threads that the program gives itself (src/app/restart.c).
bench: all $(BENCH)
	@$(B)/asterism bench
	@$(B)/asterism bench --only engine $(BENCH_MODELS:%=-m %)
	@for b in $(BENCH); do echo "== $$b"; OMP_WAIT_POLICY=$${OMP_WAIT_POLICY:-passive} GOMP_SPINCOUNT=$${GOMP_SPINCOUNT:-5000} $$b || exit 1; done

# clang through Open MPI's wrapper, in a build folder of its own. What it finds stands in build/fuzz as crash-*.
FUZZ_S ?= 60
FUZZ   ?= $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_SRC := $(wildcard src/base/*.c src/tensor/*.c src/cfg/*.c src/comm/*.c src/io/*.c src/text/*.c src/model/*.c)
FUZZ_CC := OMPI_CC=clang mpicc -fsanitize=address,undefined -fno-sanitize-recover=undefined

fuzz:
	$(MAKE) --no-print-directory B=build/fuzz CC='$(FUZZ_CC) -fsanitize=fuzzer-no-link' OPT='-O1 -fno-omit-frame-pointer' WARN=-w SRC='$(FUZZ_SRC)' build/fuzz/libast.a
	@for t in $(FUZZ); do $(MAKE) --no-print-directory -s B=build/fuzz CC='$(FUZZ_CC) -fsanitize=fuzzer' OPT='-O1 -fno-omit-frame-pointer' WARN=-w fuzz-one FUZZ=$$t || exit 1; done

# Its libast.a is there already: linked without looking at flags.
fuzz-one:
	@mkdir -p $(B)/corpus/$(FUZZ)
	$(CC) $(CFLAGS_ALL) tests/fuzz/fuzz_$(FUZZ).c $(B)/libast.a $(LDLIBS_ALL) -o $(B)/fuzz_$(FUZZ)
	$(B)/fuzz_$(FUZZ) $(if $(wildcard tests/fuzz/$(FUZZ).dict),-dict=tests/fuzz/$(FUZZ).dict) -max_len=4096 -max_total_time=$(FUZZ_S) \
	  -artifact_prefix=$(B)/crash-$(FUZZ)- -print_final_stats=1 $(B)/corpus/$(FUZZ) tests/fuzz/seeds/$(FUZZ)

deps:
	@.ci/deps

demo: deps
	@$(MAKE) --no-print-directory all
	@.ci/demo $(B)/asterism $(NP)

format:
	clang-format -i --style=file $(wildcard src/*/*.[ch] kernels/*.[ch] kernels/*/*.[ch] tests/*.h tests/*/*.c)

lint:
	clang-format --dry-run -Werror --style=file $(wildcard src/*/*.[ch] kernels/*.[ch] kernels/*/*.[ch] tests/*.h tests/*/*.c)
	clang-tidy --quiet $(filter src/%,$(SRC)) -- $(filter-out -fopenmp,$(CFLAGS_ALL)) -I$(B) $(shell mpicc --showme:compile)
	cppcheck --quiet --error-exitcode=1 --inline-suppr --suppress=missingIncludeSystem -Isrc -I. src kernels

install: all
	install -D -m 755 $(B)/asterism $(DESTDIR)$(PREFIX)/bin/asterism
	for d in data configs jobs slurm; do mkdir -p $(DESTDIR)$(PREFIX)/share/asterism && cp -r $$d $(DESTDIR)$(PREFIX)/share/asterism/; done

clean:
	rm -rf build

-include $(OBJ:.o=.d) $(TESTS:=.d) $(BENCH:=.d)
