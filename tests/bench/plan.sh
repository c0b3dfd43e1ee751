#!/bin/bash
# `asterism plan` against the clock: three jobs, each planned (a few seconds of measuring) and then run, on RANKS ranks (3).
#   ASTERISM=build/asterism tests/bench/plan.sh [RANKS] [JOB...]      asked: the predicted wall time within 25 % of the measured
# Runs one after the other need an idle machine: whatever else computes moves both figures apart.
set -u
ASTERISM=${ASTERISM:-build/asterism}
np=${1:-3}; shift
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_pml=ob1
export OMPI_MCA_btl=self,vader OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_sharedfp=^sm OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none OMP_WAIT_POLICY=passive
data=../shared/data/eval model=../shared/models/asterism-M
[ -d $data ] && [ -d $model ] || { echo "skipped: no $data or $model"; exit 0; }
job() { # job NAME METHODS TASK
    printf 'name = "%s"; output = "%s/%s.h5";\nmodels = ( { path = "%s"; } );\nmethods = ( %s );\ntasks = ( { %s } );\nrun = { threads = 1; batch_tokens = 8192; };\n' \
        "$1" "$dir" "$1" "$model" "$2" "$3" >"$dir/$1.cfg"
}
job wikitext '{ method = "dense"; }, { method = "window"; }' \
    "task = \"wikitext\"; data = \"$data/wiki.test.tokens\"; lengths = [8192]; limit = ${AST_WINDOWS:-2};"
job wmt14 '{ method = "dense"; }' \
    "task = \"wmt14\"; source = \"$data/newstest2014.en\"; reference = \"$data/newstest2014.de\"; max_new = 64; lengths = [1024]; limit = ${AST_SENTENCES:-160};"
job triviaqa '{ method = "dense"; }' \
    "task = \"triviaqa\"; data = \"$data/triviaqa/wikipedia-test.json\"; lengths = [2048]; limit = ${AST_QUESTIONS:-16};"
seconds() { awk '{ s = 0; for (i = 1; i < NF; i++) { if ($i ~ /^[0-9.]+h$/) s += 3600 * $i; else if ($i ~ /^[0-9.]+m$/) s += 60 * $i; else if ($i ~ /^[0-9.]+s$/) s += $i } if ($NF ~ /s$/) s += $NF; if ($NF == "s") s += $(NF - 1); print s }'; }
printf '%-10s %12s %12s %10s %12s\n' job "planned s" "measured s" ratio "planning s"
for name in ${*:-wikitext wmt14 triviaqa}; do
    t0=$(date +%s.%N)
    "$ASTERISM" plan "$dir/$name.cfg" -n "$np" >"$dir/plan" 2>"$dir/err" || { cat "$dir/err"; exit 1; }
    took=$(echo "$(date +%s.%N) - $t0" | bc)
    [ -n "${AST_VERBOSE:-}" ] && cat "$dir/plan"
    planned=$(sed -n 's/^ *wall time *//p' "$dir/plan" | seconds)
    mpirun -np "$np" "$ASTERISM" run "$dir/$name.cfg" --quiet --fresh >"$dir/log" 2>&1 </dev/null || { tail -n 5 "$dir/log"; exit 1; }
    measured=$(sed -n 's/.*"computing_s": \([0-9.]*\).*/\1/p' "$dir/$name.h5.shards/status.json")
    awk -v n="$name" -v p="$planned" -v m="$measured" -v t="$took" 'BEGIN { printf "%-10s %12.1f %12.1f %10.2f %12.1f\n", n, p, m, p / m, t }'
done
