#!/bin/bash
# Prints the test plan for tests/run.sh: "name<TAB>seconds<TAB>command", one a line. $1: the build folder.
# A file in tests/FOLDER is a test; nothing needs to be registered.
#   unit, golden, gradient   run once          kernel   once for each ISA this CPU has
#   mpi                      1, 2, 4 ranks     cli, slurm   shell scripts, with ASTERISM set
B=$1
# What makes mpirun quiet and robust on one machine, and OpenMP polite.
mpi_env='export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_pml=ob1
OMPI_MCA_btl=self,vader,tcp OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_oob_tcp_if_include=lo
OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_sharedfp=^sm
OMPI_MCA_rmaps_base_oversubscribe=1 OMP_WAIT_POLICY=passive'
mpi_env=$(tr '\n' ' ' <<<"$mpi_env")
say() { printf '%s\t%s\t%s\n' "$1" "$2" "$3"; }

say layers 60 "tests/layers.sh"
for t in "$B"/tests/unit/test_* "$B"/tests/golden/test_* "$B"/tests/gradient/test_*; do
    case $t in *.*|*\*) continue ;; esac
    say "${t#"$B"/tests/}" 300 "$mpi_env; $t"
done
for t in "$B"/tests/kernel/test_*; do
    case $t in *.*|*\*) continue ;; esac
    for isa in $("$B"/asterism doctor --isas 2>/dev/null || echo ref); do
        say "${t#"$B"/tests/} ($isa)" 300 "$mpi_env; AST_ISA=$isa $t"
    done
done
for t in "$B"/tests/mpi/test_*; do
    case $t in *.*|*\*) continue ;; esac
    for n in 1 2 4; do
        say "${t#"$B"/tests/} (-np $n)" 180 "$mpi_env; export OMP_NUM_THREADS=1 ASAN_OPTIONS=detect_leaks=0; mpirun --oversubscribe --bind-to none -np $n $t"
    done
done
for t in tests/cli/test_*.sh tests/slurm/test_*.sh; do
    [ -e "$t" ] && say "${t#tests/}" 900 "$mpi_env; export ASTERISM=$B/asterism ASAN_OPTIONS=detect_leaks=0; bash $t"
done
exit 0
