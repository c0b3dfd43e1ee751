#!/bin/bash
# Starts asterism under mpirun so that the job survives dead ranks, and returns the job's own exit code.
#   slurm/launch.sh [-np N] ASTERISM run JOB [options]
# mpirun --enable-recovery lets the others go on when a rank dies, but returns 0 whatever happened (Open MPI 4.1.4; its
# other way, orte_abort_on_non_zero_status=0, never returns after a SIGKILL): the code travels in a file.
# AST_LOCAL=1: one machine, loopback only, quiet.
set -u
np=()
if [ "${1:-}" = -np ]; then np=(-np "$2"); shift 2; fi
[ $# -ge 2 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2; }
run=$(mktemp -d "${TMPDIR:-/tmp}/asterism-XXXXXX")
trap 'rm -rf "$run"' EXIT

export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_pml=${OMPI_MCA_pml-ob1}
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_sharedfp=^sm OMPI_MCA_orte_enable_recovery=1
export OMP_WAIT_POLICY=passive
if [ "$(id -u)" = 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
if [ -n "${AST_LOCAL:-}" ]; then
    export OMPI_MCA_btl=self,vader OMPI_MCA_oob_tcp_if_include=lo OMPI_MCA_rmaps_base_oversubscribe=1
    export OMPI_MCA_btl_vader_single_copy_mechanism=none
    # killed ranks leave shared memory behind: in a folder of our own, removed at the end
    if [ -d /dev/shm ] && [ -w /dev/shm ]; then
        shm=$(mktemp -d /dev/shm/asterism-XXXXXX)
        export OMPI_MCA_btl_vader_backing_directory=$shm
        trap 'rm -rf "$run" "$shm"' EXIT
    fi
fi

mpirun --enable-recovery "${np[@]}" "$@" --exit-file "$run/code" </dev/null 2> >(grep --line-buffered -v 'PMIX ERROR: BAD-PARAM' >&2) &
mpi=$!
for s in TERM INT USR1 USR2; do trap 'kill -'$s' $mpi 2>/dev/null' $s; done
# mpirun forwards the signals; wait returns early for each. A whole node that dies can leave mpirun waiting for ever.
late=0
while kill -0 $mpi 2>/dev/null; do
    sleep 0.2 & wait $! 2>/dev/null
    if [ -s "$run/code" ]; then
        late=$((late + 1))
        [ $late = 150 ] && kill -TERM $mpi 2>/dev/null
        [ $late = 200 ] && kill -KILL $mpi 2>/dev/null
    fi
done
wait $mpi
rc=$?
if [ -s "$run/code" ]; then exit "$(cat "$run/code")"; fi
# The master died: what was finished is kept, the same command goes on.
[ $rc = 0 ] && rc=75
exit $rc
