# dsacal: one Makefile, one program.
#
#   CONFIG   release | asan | debug | valgrind      objects and program live in build/<configuration>/
#   CUDA     auto | 0 | 1                  auto: with the GPU backend where nvcc is; 1: or stop. NVCC names another nvcc
#   MPI      0 | 1                         with runs over several processes, through the MPI that mpicc names
#   STATIC   0 | 1                         link the small libraries statically, for a machine that has none of them
#   CC       gcc | clang
#   V        1: show whole commands
#   JOBS     how many files at once, all cores by default
CONFIG ?= release
CUDA   ?= auto
JOBS   ?= $(shell nproc 2>/dev/null || echo 1)
STATIC ?= 0
MPI    ?= 0
Q      := $(if $(V),,@)
CC     := $(if $(filter default,$(origin CC)),gcc,$(CC))

# The outermost make hands its jobs to the inner ones.
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(JOBS)
endif

B := build/$(CONFIG)$(if $(filter 1,$(STATIC)),-static)$(if $(filter 1,$(MPI)),-mpi)$(if $(filter gcc,$(CC)),,-$(notdir $(CC)))

VERSION := $(shell sed -n 's/^\#\# \[*\([0-9][0-9.]*\).*/\1/p' CHANGELOG.md 2>/dev/null | head -n 1)
COMMIT  := $(shell git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)

MULTIARCH := $(shell $(CC) -print-multiarch 2>/dev/null)
BLIS_DIR  := $(firstword $(wildcard /usr/include/$(MULTIARCH)/blis-openmp /usr/include/$(MULTIARCH)/blis-pthread /usr/include/blis))
# The program runs where it was built unless it is linked to travel, or run by valgrind, which knows no AVX-512.
ARCH := $(if $(filter 1,$(STATIC))$(filter valgrind,$(CONFIG)),x86-64-v3,native)

WARN   := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Werror
# -Wno-psabi: vectors wider than the machine's are only passed to inlined functions, so no ABI is at stake.
WARN   += -Wno-psabi
# Products and sums round apart, as gcc does under -std=c11 and clang does not: one set of figures from both.
CFLAGS := -std=c11 -D_GNU_SOURCE -O3 -g -march=$(ARCH) -ffp-contract=off -fno-math-errno -fno-trapping-math -fopenmp $(WARN) \
          -Iinclude -isystem $(BLIS_DIR) -MMD -MP $(EXTRA_CFLAGS)
ifeq ($(CONFIG),asan)
CFLAGS += -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
LDFLAGS += -fsanitize=address,undefined
endif
ifeq ($(CONFIG),debug)
CFLAGS += -O0
endif
LDFLAGS += -fopenmp

SMALL_LIBS := -lblis -lyaml -lzstd -ljansson -lpcre2-8 -lutf8proc -lnettle
ifeq ($(STATIC),1)
LIBS := -Wl,-Bstatic $(SMALL_LIBS) -Wl,-Bdynamic -lpthread -lm
else
LIBS := $(SMALL_LIBS) -lpthread -lm
endif
ifneq ($(wildcard /usr/lib/$(MULTIARCH)/blis-openmp),)
LDFLAGS += -L/usr/lib/$(MULTIARCH)/blis-openmp
endif

# Runs over several processes: one file knows MPI, one whether it is there.
ifeq ($(MPI),1)
MPICC ?= mpicc
ifeq ($(shell command -v $(MPICC)),)
$(error MPI=1: there is no $(MPICC); install libopenmpi-dev and openmpi-bin, or name another with MPICC=)
endif
MPI_CFLAGS := $(patsubst -I%,-isystem %,$(filter -I%,$(shell $(MPICC) --showme:compile)))
LIBS += $(shell $(MPICC) --showme:link)
endif

# Everything is remade when the compiler or a flag changes.
FLAGS := $(CC) $(CFLAGS) $(LDFLAGS) $(LIBS)
# Writes a line into the target if it is not what the target holds.
stamp = @mkdir -p $(@D); echo '$(subst ','\'',$(1))' | cmp -s - $@ || echo '$(subst ','\'',$(1))' > $@

# The GPU backend: kernels for one generation of GPUs, the runtime linked in, cuBLASLt looked for when a GPU is opened.
NVCC      ?= $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))
CUDA_HOME := $(patsubst %/bin/,%,$(dir $(realpath $(NVCC))))
WITH_CUDA := $(if $(filter 1,$(CUDA)),1,$(if $(filter 0,$(CUDA))$(filter asan valgrind,$(CONFIG)),,$(if $(NVCC),1)))
ifeq ($(CUDA)$(NVCC),1)
$(error CUDA=1: there is no nvcc; install the CUDA Toolkit, version 13, name it with NVCC=, or build for the CPU with CUDA=0)
endif
NVCCFLAGS := -std=c++17 -O3 -lineinfo -gencode arch=compute_90a,code=sm_90a -Iinclude -Ikernels --Werror all-warnings \
             -Xcompiler -Wall,-Wextra,-Werror,-fno-threadsafe-statics
CUDA_CFLAGS := -isystem $(CUDA_HOME)/include -Ikernels

STAGES  := base data backend model calib report
LIB_SRC := $(sort $(foreach s,$(STAGES),$(wildcard src/$(s)/*.c)))
ifneq ($(MPI),1)
LIB_SRC := $(filter-out src/calib/ranks_mpi.c,$(LIB_SRC))
endif
ifneq ($(WITH_CUDA),1)
LIB_SRC := $(filter-out src/backend/cuda%,$(LIB_SRC))
else
KERNEL_SRC := $(sort $(wildcard kernels/*.cu))
KERNEL_OBJ := $(KERNEL_SRC:%.cu=$B/%.o)
LIBS       += $(CUDA_HOME)/lib64/libcudart_static.a -ldl -lrt -lpthread
endif
CLI_SRC := $(sort $(wildcard src/cli/*.c))
LIB_OBJ := $(LIB_SRC:%.c=$B/%.o)
CLI_OBJ := $(CLI_SRC:%.c=$B/%.o)
UNIT_SRC := $(sort $(foreach s,$(STAGES),$(wildcard tests/$(s)/test_*.c)))
UNIT     := $(UNIT_SRC:%.c=$B/%)

.PHONY: all
## all: build the program, build/dsacal
all: $B/dsacal
	@echo "dsacal: $(if $(WITH_CUDA),CPU and GPU build,CPU-only build$(if $(filter auto,$(CUDA)),$(if $(NVCC),,: no nvcc))): $B/dsacal"
	@ln -sfn $(patsubst build/%,%,$B)/dsacal build/dsacal

$B/dsacal: $(CLI_OBJ) $B/libdsacal.a
	@echo "  LINK  $@"
	$Q$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

$B/libdsacal.a: $(LIB_OBJ) $(KERNEL_OBJ)
	@rm -f $@
	$Q$(AR) rcs $@ $^

$B/%.o: %.c $B/flags.stamp
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$Q$(CC) $(CFLAGS) -c -o $@ $<

$B/kernels/%.o: kernels/%.cu $B/kernels.stamp
	@mkdir -p $(@D)
	@echo "  NVCC  $<"
	$Q$(NVCC) $(NVCCFLAGS) -MD -MP -c -o $@ $<

# Which backends there are is known to one file.
$B/src/backend/cuda.o: CFLAGS += $(CUDA_CFLAGS)
$B/src/backend/cuda_%.o: CFLAGS += $(CUDA_CFLAGS)
$B/src/backend/registry.o: CFLAGS += $(if $(WITH_CUDA),-DDSA_CUDA)
# And whether there is MPI to another.
$B/src/calib/ranks.o: CFLAGS += $(if $(filter 1,$(MPI)),-DDSA_MPI)
$B/src/calib/ranks_mpi.o: CFLAGS += $(MPI_CFLAGS)

# a·b + c may be one rounding: half the time of the inner loops, and the same in every loop of a build.
$B/src/backend/%.o: CFLAGS += -ffp-contract=fast

$B/flags.stamp: FORCE
	@test -n "$(BLIS_DIR)" || { echo "dsacal: libraries are missing; scripts/bootstrap.sh installs them" >&2; exit 2; }
	$(call stamp,$(FLAGS) $(if $(WITH_CUDA),with CUDA))

$B/kernels.stamp: FORCE
	$(call stamp,$(NVCC) $(NVCCFLAGS))

# The version and commit are compiled into one file only, which is remade when they change.
$B/version.stamp: FORCE
	$(call stamp,$(VERSION) $(COMMIT))
$B/src/report/provenance.o: $B/version.stamp
$B/src/report/provenance.o: CFLAGS += -DDSA_VERSION='"$(VERSION)"' -DDSA_COMMIT='"$(COMMIT)"'
.PHONY: FORCE
FORCE:

$B/tests/%: tests/%.c $B/libdsacal.a $B/flags.stamp
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$Q$(CC) $(CFLAGS) -Itests -o $@ $< $B/libdsacal.a $(LDFLAGS) $(LIBS) -lcmocka

# The GPU's tests are one program, linked to travel with the one under test to a machine that has a GPU.
GPU_TESTS := $(patsubst %.c,$B/%.o,$(wildcard tests/gpu/*.c))
$B/tests/gpu/%.o: CFLAGS += -Itests
$B/tests/gpu/test_gpu_speed.o $B/tests/gpu/test_gpu_profile.o: CFLAGS += $(CUDA_CFLAGS)
$B/gpu_tests: $(GPU_TESTS) $B/libdsacal.a
	@echo "  LINK  $@"
	$Q$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

.PHONY: gpu-tests
## gpu-tests: build what scripts/gpu_tests.sh runs on a machine with a GPU; MPI=1: what its part `ranks` runs
gpu-tests:
	@$(MAKE) --no-print-directory STATIC=1 CUDA=1 all gpu-programs
.PHONY: gpu-programs
gpu-programs: $B/gpu_tests

.PHONY: cluster-programs
## cluster-programs: with MPI=1, what tests/cluster/test_ranks.py runs beside the program
cluster-programs: $B/tests/cluster/messages

.PHONY: unit
## unit: build and run the unit tests of this configuration
unit: $(UNIT)
	@scripts/run_unit.sh $(UNIT)

.PHONY: demo
## demo: set up, build, and calibrate the shipped model on the shipped documents
demo:
	@scripts/bootstrap.sh build
	@$(MAKE) --no-print-directory all
	@scripts/demo.sh

.PHONY: test
## test: set up, build, and run every test that needs no GPU
test:
	@scripts/bootstrap.sh test
	@$(MAKE) --no-print-directory all units
	@scripts/run_tests.sh $B

.PHONY: units
units: $(UNIT)

.PHONY: test-san
## test-san: the unit tests and the bad-input tests under the address and undefined-behaviour sanitizers
test-san:
	@scripts/bootstrap.sh check
	@$(MAKE) --no-print-directory CONFIG=asan all units
	@DSACAL=build/asan/dsacal scripts/run_tests.sh build/asan sanitizers

# What takes minutes there, and says little of memory: 200 MB streamed, long documents, whole searches.
VALGRIND_SKIP := calib/test_model_evaluator calib/test_racing calib/test_search data/test_corpus model/test_demo_golden model/test_demo_model
VALGRIND_UNIT := $(filter-out $B/tests/backend/% $(VALGRIND_SKIP:%=$B/tests/%),$(UNIT))

.PHONY: test-valgrind
## test-valgrind: the unit tests but the backend's and the slowest under valgrind's memory checker
test-valgrind:
	@scripts/bootstrap.sh check
	@$(MAKE) --no-print-directory CONFIG=valgrind valgrind-unit

.PHONY: valgrind-unit
valgrind-unit: $(VALGRIND_UNIT)
	@UNIT_RUNNER='valgrind -q --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite' \
		scripts/run_unit.sh $(VALGRIND_UNIT)

.PHONY: check-long
## check-long: what is too long for every change: whole traces, the tokenizer at length, transformers, test-san, test-valgrind
check-long:
	@scripts/bootstrap.sh long
	@$(MAKE) --no-print-directory all
	@scripts/check_long.sh

.PHONY: check
## check: formatting, layering, linter, builds with clang, static and with MPI, the report in a browser
check:
	@scripts/bootstrap.sh check
	@scripts/check_layering.sh
	@scripts/check_style.sh
	@$(MAKE) --no-print-directory CC=clang all units
	@$(MAKE) --no-print-directory CUDA=0 MPI=1 all cluster-programs
	@$(MAKE) --no-print-directory STATIC=1 all
	@build/venv/bin/python tests/browser/test_report_page.py
	@scripts/check_lint.sh

.PHONY: man
## man: write docs/dsacal.1 again, after the help of a command or an option changed
man: all
	$B/dsacal help --man > docs/dsacal.1

PREFIX ?= /usr/local
.PHONY: install
## install: program, manual page and completions below PREFIX (/usr/local), with DESTDIR in front
install: all
	install -D -m 755 $B/dsacal $(DESTDIR)$(PREFIX)/bin/dsacal
	install -D -m 644 docs/dsacal.1 $(DESTDIR)$(PREFIX)/share/man/man1/dsacal.1
	$B/dsacal completion bash > $B/dsacal.bash
	install -D -m 644 $B/dsacal.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/dsacal
	$B/dsacal completion zsh > $B/_dsacal
	install -D -m 644 $B/_dsacal $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_dsacal

.PHONY: bench
## bench: tokens per second, work done against naive and peak memory of the demo's calibration; MB/s of the tokenizer
bench:
	@scripts/bootstrap.sh build
	@$(MAKE) --no-print-directory all
	@scripts/bench.sh

.PHONY: clean
## clean: remove build/
clean:
	rm -rf build

.PHONY: help
## help: this list
help:
	@sed -n 's/^## \([a-z-]*\): /  make \1|/p' Makefile | awk -F'|' '{printf "%-22s %s\n", $$1, $$2}'

-include $(LIB_OBJ:.o=.d) $(KERNEL_OBJ:.o=.d) $(CLI_OBJ:.o=.d) $(UNIT:=.d) $(GPU_TESTS:.o=.d)
