#!/bin/bash
# Scaling on one machine, with nothing but a built program (from the repository's root, for the embedded model and samples):
#   ASTERISM=build/asterism tests/bench/scaling.sh [SECONDS]
# 1. tensor parallelism: a random 1.1 B-parameter model (bf16) on T = 1, 2, 4, 8 ranks of one thread: time a token, efficiency
#    against T = 1, the share of all-reduces (mean over the ranks; and of the rank that waits least, nearly the transfer alone)
# 2. all cores of the machine as ranks x threads of one group
# 3. a job on 1 .. cores-1 workers: wall time, speed-up, efficiency; the same results
# SECONDS (330): what has not begun by then is left out, and said so. AST_MODEL: a model folder to take instead.
set -u
ASTERISM=$(realpath "${ASTERISM:-build/asterism}")
limit=${1:-330}
cores=$(nproc)
dir=$(mktemp -d "${TMPDIR:-/tmp}/asterism-scaling-XXXXXX")
trap 'rm -rf "$dir"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_pml=ob1
export OMPI_MCA_btl=self,vader OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_oob_tcp_if_include=lo
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_sharedfp=^sm OMPI_MCA_rmaps_base_oversubscribe=1
export OMP_WAIT_POLICY=passive
late() { if [ $SECONDS -ge "$limit" ]; then echo "  $1: left out, $limit s are over"; return 0; fi; return 1; }
on() { local np=$1; shift; mpirun -np "$np" "$@" </dev/null 2>>"$dir/err" || { echo "  failed:"; tail -n 3 "$dir/err"; return 1; }; }

echo "$cores cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $("$ASTERISM" doctor 2>/dev/null | grep -i -m1 openblas)"
model=${AST_MODEL:-$dir/model}
if [ -z "${AST_MODEL:-}" ]; then
    "$ASTERISM" random-model --preset 1.1b -o "$model" 2>>"$dir/err" || { tail -n 3 "$dir/err"; exit 1; }
fi

echo; echo "Tensor parallelism: T ranks of one thread, 256 tokens of prompt, 16 decoded"
head="  %-8s %5s %8s %10s %10s %9s %11s %11s %8s\n"
# shellcheck disable=SC2059
printf "$head" phase T threads ms/token tokens/s speed-up efficiency "all-reduce" "(least)"
row() { # row CORES: the program's lines, with speed-up against the first of that phase
    awk -v cores="$1" -v base="$dir/base" '
        BEGIN { while ((getline line < base) > 0) { split(line, f, " "); one[f[1]] = f[2] } }
        $1 == "prefill" || $1 == "decode" {
            if (!($1 in one)) { one[$1] = $5; print $1, $5 >> base }
            s = one[$1] / $5
            printf "  %-8s %5d %8d %10.3f %10.1f %9.2f %9.0f %% %9.1f %% %6.1f %%\n", $1, $2, $3, $5, $6, s, 100 * s / cores, $7, $8
        }'
}
for T in 1 2 4 8; do
    [ "$T" -gt "$cores" ] && break
    late "T = $T" && break
    on "$T" "$ASTERISM" speed -m "$model" --tokens 256 --new 16 --runs $((T < 4 ? 1 : 3)) | row "$T"
done

echo; echo "All $cores cores as one group: ranks x threads"
# shellcheck disable=SC2059
printf "$head" phase ranks threads ms/token tokens/s speed-up efficiency "all-reduce" "(least)"
for ((T = 1; T <= cores && T <= 16; T *= 2)); do
    late "$T ranks" && break
    on "$T" "$ASTERISM" speed -m "$model" --tokens 256 --new 16 --runs 3 --threads $((cores / T)) | row $((T * (cores / T)))
done

echo; echo "One job on more and more workers (one thread each; one rank more deals out the work): embedded model, three lengths"
cat >"$dir/job.cfg" <<T
models = ( { path = "data/asterism-S"; } );
methods = ( { method = "dense"; } );
tasks = ( { task = "wikitext"; data = "data/samples/english.txt"; protocol = "strided"; lengths = [256, 512, 1024]; limit = 4; } );
run = { threads = 1; batch_tokens = 1024; };
T
job() { # job WORKERS OUTPUT OPTIONS...: seconds from first to last shard
    local n=$1 out=$2; shift 2
    on $((n + 1)) "$ASTERISM" run "$dir/job.cfg" "output=$out" --quiet --fresh "$@" >"$dir/table" || return 1
    sed -n 's/.*"computing_s": \([0-9.]*\).*/\1/p' "$out.shards/status.json"
}
# as many windows as one worker does in about 40 s
probe=$(job 1 "$dir/probe.h5" 'tasks.[0].stride=32') && probe=$(job 1 "$dir/probe.h5" 'tasks.[0].stride=32' 'tasks.[0].limit=24')
n=$(awk -v s="${probe:-1}" 'BEGIN { n = int(40 / (s > 0.01 ? s : 0.01) * 24); print n < 24 ? 24 : n }')
printf "  %-8s %10s %9s %11s %s\n" workers seconds speed-up efficiency "the workers computed"
one=
for w in 1 2 4 8 15 31 63; do
    [ "$w" -ge "$cores" ] && [ "$w" -gt 1 ] && break
    late "$w workers" && break
    s=$(job "$w" "$dir/w$w.h5" 'tasks.[0].stride=32' "tasks.[0].limit=$n") || break
    one=${one:-$s}
    awk -v w="$w" -v s="$s" -v one="$one" -v busy="$(sed -n 's/.*computed \([0-9.]* %\) of the time.*/\1/p' "$dir/table")" \
        'BEGIN { printf "  %-8d %10.2f %9.2f %9.0f %% %s of the time\n", w, s, one / s, 100 * one / s / w, busy }'
    if [ "$w" -gt 1 ] && command -v h5diff >/dev/null; then
        h5diff --exclude-path /timing --exclude-path /environment "$dir/w1.h5" "$dir/w$w.h5" >/dev/null && same=${same:-yes} || same=no
    fi
done
[ -n "${same:-}" ] && echo "  the same results for any number of workers: $same"
echo; echo "all took $SECONDS s"
