#!/bin/bash
# `asterism run` on the embedded model, end to end: the same results for any number of ranks, going on, refusing, stopping.
passed=0 failed=0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/job.cfg" <<T
name = "small";
output = "$dir/out.h5";
models = ( { path = "data/asterism-S"; } );
methods = ( { method = "dense"; } );
tasks = ( { task = "wikitext"; name = "english"; data = "data/samples/english.txt"; lengths = [24, 48]; limit = 9; } );
run = { threads = 1; batch_tokens = 96; shard_s = 0.01; beat_s = 0.2; dead_s = 5.0; };
T

ok() { # ok NAME CONDITION...
    local name=$1; shift
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "not ok - $name"; tail -n 8 "$dir/log" | sed 's/^/#   /'; fi
}
run() { # run RANKS ARGUMENTS...: exit code in rc
    local np=$1; shift
    if [ "$np" = 0 ]; then "$ASTERISM" run "$dir/job.cfg" "$@" >"$dir/log" 2>&1 </dev/null
    else timeout 150 mpirun --oversubscribe -np "$np" "$ASTERISM" run "$dir/job.cfg" "$@" >"$dir/log" 2>&1 </dev/null; fi
    rc=$?
}
says() { grep -q -- "$1" "$dir/log"; }
same() { h5diff --exclude-path /timing --exclude-path /environment "$@" >"$dir/log" 2>&1; }
is() { [ "$1" = "$2" ]; }

# any number of ranks (tests/cli/test_ranks.sh has more)
for np in 0 3 5; do
    run $np "output=$dir/r$np.h5"
    ok "np $np completes" is $rc 0
    ok "np $np prints a table" says 'token_perplexity'
done
ok "np 5 says where each rank's time went" [ "$(sed -n '/computing.*waiting/,/mean/p' "$dir/log" | grep -c ' %  ')" = 6 ]
for np in 3 5; do ok "np $np gives the same file but for times" same "$dir/r0.h5" "$dir/r$np.h5"; done
h5dump -d /cells/signature "$dir/r3.h5" >"$dir/log" 2>&1
ok "results name the protocol" says 'PPL|proto:disjoint'

# the same command again computes nothing and merges again
run 0 "output=$dir/r3.h5"
ok "a finished job ends at once" says 'going on: 18 of 18 samples'
ok "its result is the same" same "$dir/r0.h5" "$dir/r3.h5"

# part of the work is lost: only that is computed
rm "$(ls "$dir"/r5.h5.shards/*.shard | head -n 1)"
run 2 "output=$dir/r5.h5"
ok "lost work is computed again" is $rc 0
ok "and nothing else" says 'going on: 1[0-7] of 18'
ok "with the same result" same "$dir/r0.h5" "$dir/r5.h5"

# another job in the same place
run 2 "output=$dir/r3.h5" "tasks.[0].limit=8"
ok "a changed job is refused" is $rc 2
ok "and the difference named" says 'now task english: limit = 8'
ok "by one rank" is "$(grep -c 'of another job' "$dir/log")" 1
run 0 "output=$dir/r3.h5" run.sparsity=8
ok "statistics of other rows do not mix" says 'now run: sparsity = 8'
run 0 "output=$dir/r3.h5" "tasks.[0].limit=8" --fresh
ok "--fresh starts over" is $rc 0

# a second master
exec 9>"$dir/r3.h5.shards/lock"; flock 9
run 0 "output=$dir/r3.h5" "tasks.[0].limit=8"
ok "a second master is refused" says 'another master is at work'
exec 9>&-

# bad input: one sentence, an exit code, no hang
bad() { # bad NAME CODE SENTENCE ARGUMENTS...
    local name=$1 code=$2 sentence=$3; shift 3
    run 3 "output=$dir/bad.h5" "$@"
    ok "$name: exit code $code (is $rc)" is $rc "$code"
    ok "$name: says so" says "$sentence"
    ok "$name: once" is "$(grep -c '^asterism: ' "$dir/log")" 1
}
bad "a misspelt option" 2 "run.thread is unknown; did you mean 'threads'" run.thread=2
bad "an unknown method" 2 "dnese" 'methods.[0].method=dnese'
bad "an unknown task" 2 "wikitxt" 'tasks.[0].task=wikitxt'
bad "a value out of range" 2 "outside" run.tensor=-1
bad "a missing model" 1 "/nonexistent" 'models.[0].path=/nonexistent'
bad "missing data" 1 "nonexistent.txt" 'tasks.[0].data=nonexistent.txt'
bad "an unwritable output" 1 "/proc/none" output=/proc/none/x.h5
bad "too few ranks" 2 "need at least 9 ranks" run.tensor=8
bad "an unknown instruction set" 2 "mmx" run.isa=mmx
: >"$dir/empty.txt"
bad "an empty dataset" 1 "empty.txt" "tasks.[0].data=$dir/empty.txt"
mkdir -p "$dir/broken" && cp data/asterism-S/* "$dir/broken/" && truncate -s 100000 "$dir/broken/model.safetensors"
bad "truncated weights" 1 "model.safetensors" "models.[0].path=$dir/broken"

# a model that cannot run does not stop the others; alone it is an error
mkdir -p "$dir/nan" && cp data/asterism-S/* "$dir/nan/" && chmod u+w "$dir"/nan/*
printf '\377\177' | dd of="$dir/nan/model.safetensors" bs=1 seek=$(($(stat -c %s "$dir/nan/model.safetensors") - 2)) conv=notrunc 2>/dev/null
sed "s|^models.*|models = ( { path = \"$dir/nan\"; }, { path = \"data/asterism-S\"; } );|" "$dir/job.cfg" >"$dir/two.cfg"
for np in 1 3; do
    timeout 150 mpirun --oversubscribe -np $np "$ASTERISM" run "$dir/two.cfg" "output=$dir/two$np.h5" >"$dir/log" 2>&1 </dev/null; rc=$?
    ok "np $np: a model that cannot run leaves exit code 3 (is $rc)" is $rc 3
    ok "np $np: its reason is said" says 'nan, dense, english, length 24 cannot run.*not finite\|nan, dense, english, length 24 cannot run.*NaN'
    ok "np $np: its samples are marked" is "$(grep -c '9 of 9 samples FAILED' "$dir/log")" 2
    h5dump -d /metrics/value "$dir/two$np.h5" 2>/dev/null | grep '(0): [0-9]' >"$dir/two"
    h5dump -d /metrics/value "$dir/r0.h5" 2>/dev/null | grep '(0): [0-9]' >"$dir/one"
    ok "np $np: the other model's scores are there" cmp -s "$dir/one" "$dir/two"
done
bad "only a model that cannot run" 1 "model.safetensors" "models.[0].path=$dir/nan" "output=$dir/nan.h5"

# memory: predicted, refused, recorded
run 2 "output=$dir/mem.h5" run.memory_gb=0.036
ok "samples that do not fit are marked and the job completes (rc $rc)" is $rc 3
ok "the table says so" says 'FAILED'
run 2 "output=$dir/mem2.h5" run.memory_gb=0.02
ok "weights that do not fit are not read (rc $rc)" is $rc 3
ok "and the reason is said" says 'weights need 0.034 GB of each rank'

# weights that two ranks share: half of them counts as each one's, the numbers are the same, and so is the job
run 3 "output=$dir/own.h5" run.memory_gb=0.03 run.share_weights=off
ok "two copies do not fit" says 'weights need 0.034 GB of each rank'
for share in on auto; do
    run 3 "output=$dir/share.h5" run.memory_gb=0.03 run.share_weights=$share --fresh
    ok "share_weights = $share: one copy fits (rc $rc)" is $rc 0
    for part in /metrics /samples /layers; do
        ok "share_weights = $share: $part is the same" h5diff "$dir/r0.h5" "$dir/share.h5" $part
    done
done
run 0 "output=$dir/share.h5" run.share_weights=off
ok "sharing is not part of what a job is" says 'going on: 18 of 18 samples'

# a signal
run_signal() {
    mpirun --oversubscribe -np 3 "$ASTERISM" run "$dir/job.cfg" "output=$dir/sig.h5" "tasks.[0].lengths=[256]" run.batch_tokens=256 >"$dir/log" 2>&1 </dev/null &
    local mpi=$!
    for _ in $(seq 1000); do ls "$dir"/sig.h5.shards/*.shard >/dev/null 2>&1 && break; sleep 0.05; done
    kill -USR1 $mpi
    wait $mpi; rc=$?
}
run_signal
ok "USR1 stops in order (rc $rc)" is $rc 75
ok "what is there is merged" says 'INCOMPLETE'
run 2 "output=$dir/sig.h5" "tasks.[0].lengths=[256]" run.batch_tokens=256
ok "the same command completes it" is $rc 0
ok "and goes on where it was" says 'going on: [1-9]'

# the end of the Slurm job
SLURM_JOB_END_TIME=$(($(date +%s) + 30)) run 3 "output=$dir/end.h5"
ok "nothing is begun that cannot end in time (rc $rc)" is $rc 75
ok "the deadline is named" says 'Slurm job'

# a frozen rank: its shards go elsewhere, the launcher ends what is left. Seconds of work, so that it freezes among them: in the
# merge, which needs all ranks, the job would end and go on the next time
AST_LOCAL=1 slurm/launch.sh -np 3 "$ASTERISM" run "$dir/job.cfg" "output=$dir/ice.h5" run.dead_s=1 "tasks.[0].limit=400" \
    "tasks.[0].lengths=[32,64,128,256]" run.batch_tokens=256 >"$dir/log" 2>&1 &
launch=$!
for _ in $(seq 2000); do ls "$dir"/ice.h5.shards/*.shard >/dev/null 2>&1 && break; sleep 0.02; done
frozen=$(pgrep -P "$(pgrep -P $launch mpirun)" | sort -n | tail -n 1)
kill -STOP "$frozen"
for _ in $(seq 600); do grep -q '^results:' "$dir/log" && break; sleep 0.1; done
ok "a frozen rank is noticed" says 'no sign of life'
ok "and the job completes without it" says 'complete in'
kill -CONT "$frozen"
wait $launch
ok "with its own exit code" is $? 0

echo "$passed passed, $failed failed"
[ $failed = 0 ]
