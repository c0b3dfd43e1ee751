#!/bin/bash
# slurm/run.sbatch on a real small Slurm: a job runs, a signal to the batch script stops it in order, and it comes back.
lab=../shared/slurm-lab/slurm-lab.sh
skip() { echo "ok 1 - slurm # SKIP skipped: $1"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }
command -v sbatch >/dev/null || skip "no sbatch here"
[ -x "$lab" ] || skip "no $lab"
passed=0 failed=0
dir=$(mktemp -d)
export SLURM_LAB=$dir/lab BASEPORT=19010 AST_LOCAL=1
"$lab" up >"$dir/up" 2>&1 || { cat "$dir/up"; rm -rf "$dir"; skip "the lab does not start"; }
trap '"$lab" down >/dev/null 2>&1; rm -rf "$dir"' EXIT
eval "$("$lab" env)"
cat >"$dir/job.cfg" <<T
output = "$dir/out.h5";
models = ( { path = "data/asterism-S"; } );
methods = ( { method = "dense"; } );
tasks = ( { task = "wikitext"; name = "english"; data = "data/samples/english.txt"; lengths = [256]; } );
run = { batch_tokens = 256; shard_s = 0.05; };
T
ok() { local name=$1; shift; if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "not ok - $name"; tail -n 8 "$dir/log" | sed 's/^/#   /'; fi; }
ends() { for _ in $(seq 900); do squeue -h -j "$1" 2>/dev/null | grep -q . || return 0; sleep 0.2; done; return 1; }

# AST_RESTARTS=0: the exit code alone (RequeueExit=75 in the lab) brings it back, within seconds
id=$(AST_RESTARTS=0 ASTERISM=$ASTERISM sbatch --parsable -N1 -n4 -t 10 -o "$dir/log" slurm/run.sbatch "$dir/job.cfg")
for _ in $(seq 200); do ls "$dir"/out.h5.shards/*.shard >/dev/null 2>&1 && break; sleep 0.05; done
scancel --signal=USR2 --batch "$id"
ok "the job ends" ends "$id"
ok "the signal stopped it in order" grep -q 'stopping: signal 12' "$dir/log"
ok "it came back and went on where it was" grep -q 'going on: [1-9]' "$dir/log"
ok "and completed" grep -q 'complete in' "$dir/log"
ok "Slurm sees exit code 0" grep -q 'ExitCode=0:0' <(scontrol show job "$id")
echo "$passed passed, $failed failed"
[ $failed = 0 ]
