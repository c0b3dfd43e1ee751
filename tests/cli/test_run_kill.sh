#!/bin/bash
# Ranks that are killed (SIGKILL) at random moments: a worker's death costs nothing but time; after the master's death the
# same command goes on; nothing finished is lost or computed again. AST_KILLS: how often (default 3 workers, 2 masters).
# The computation is pretended (tests/mpi/test_sched_deal), the rest is the real master, workers and files.
program=$(dirname "$ASTERISM")/tests/mpi/test_sched_deal
workers=${AST_KILLS:-3} masters=$(((${AST_KILLS:-3} + 1) / 2))
passed=0 failed=0 n=1500
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
unset OMPI_MCA_orte_abort_on_non_zero_status

ok() { # ok NAME CONDITION...
    local name=$1; shift
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "not ok - $name"; sed 's/^/#   /' "$dir/out" | tail -n 6; fi
}
start() { mpirun --enable-recovery --oversubscribe -np 4 "$program" "$dir/shards" $n 2000 >"$dir/out" 2>&1 </dev/null & mpi=$!; }
# pids of the ranks in rank order: mpirun's children
ranks() { pgrep -P $mpi | sort -n; }
# Some time after the first shard is there: a rank that dies in MPI_Init takes the start with it.
nap() { for _ in $(seq 1500); do ls "$dir"/shards/*.shard >/dev/null 2>&1 && break; sleep 0.02; done; sleep "0.$((RANDOM % 6))$((RANDOM % 10))"; }
finish() { timeout 120 tail -s 0.1 --pid=$mpi -f /dev/null || { kill -KILL $mpi; return 1; }; wait $mpi; }
finish75() { timeout 120 tail -s 0.1 --pid=$mpi -f /dev/null || { kill -KILL $mpi; return 1; }; wait $mpi; return 0; }
field() { grep '^found' "$dir/out" | sed -E "s/.*\b$1 ([0-9]+).*/\1/"; }

for ((i = 0; i < workers; i++)); do
    rm -rf "$dir/shards"; mkdir "$dir/shards"
    start; nap
    victim=$(ranks | sed -n "$((RANDOM % 3 + 2))p")
    [ -n "$victim" ] && kill -KILL "$victim"
    ok "mpirun returns after a worker's death ($i)" finish
    ok "every sample is there after a worker's death ($i)" grep -q "there $n of $n dead 1 failed 0" "$dir/out"
done
for ((i = 0; i < masters; i++)); do
    rm -rf "$dir/shards"; mkdir "$dir/shards"
    start; nap
    kill -KILL "$(ranks | head -n 1)"
    ok "mpirun returns after the master's death ($i)" finish
    start
    ok "the second run ends ($i)" finish
    ok "the second run completes the first ($i)" grep -q "there $n of $n dead 0 failed 0" "$dir/out"
    ok "nothing finished is computed again ($i)" [ $(($(field found) + $(field computed))) = $n ]
    ok "something had been finished ($i)" [ "$(field found)" -gt 0 ]
done

# A rank that dies during the start, while rank 0 waits for its job file: nobody waits for it for ever.
mkfifo "$dir/job"
for ((i = 0; i < 2; i++)); do
    AST_DEAD_S=1 mpirun --enable-recovery --oversubscribe -np 3 "$ASTERISM" run "$dir/job" "output=$dir/start.h5" >"$dir/out" 2>&1 </dev/null & mpi=$!
    for _ in $(seq 600); do [ "$(pgrep -c -P $mpi -x asterism)" = 3 ] && break; sleep 0.05; done
    sleep 1 # past MPI_Init, whose own collectives nobody guards
    victim=$(pgrep -P $mpi -x asterism | sort -n | sed -n "$((i * 2 + 1))p")
    ok "rank $((i * 2)) is there to be killed" [ -n "$victim" ]
    [ -n "$victim" ] && kill -KILL "$victim"
    ok "the others end when rank $((i * 2)) dies during the start" finish75
done

# All at once, then a shard file torn at a random byte.
rm -rf "$dir/shards"; mkdir "$dir/shards"
start; nap; kill -KILL $mpi $(ranks); wait $mpi 2>/dev/null
file=$(ls "$dir/shards"/*.shard 2>/dev/null | head -n 1)
if [ -n "$file" ]; then truncate -s $((RANDOM % $(stat -c %s "$file"))) "$file"; fi
start
ok "a run after a massacre ends" finish
ok "the torn file is reported" grep -q 'torn or damaged\|cut off' "$dir/out"
ok "and computed again" grep -q "there $n of $n dead 0 failed 0" "$dir/out"

echo "$passed passed, $failed failed"
[ $failed = 0 ]
