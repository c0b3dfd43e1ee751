#!/bin/bash
# asterism train: from a job to gates that `asterism run` reads; stopped by a signal, killed, continued; sweeps; wrong jobs.
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
passed=0 failed=0
ok() { # NAME CONDITION...
    local name=$1; shift
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "not ok - $name"; tail -n 5 "$dir/out" | sed 's/^/#   /'; fi
}
says() { grep -q -- "$1" "$dir/out"; }

for d in $(seq 30); do
    for i in $(seq 30); do echo -n "Sentence $i of document $d tells of $((d * i % 17)) houses. "; done
    echo -n "<|endoftext|>"
done >"$dir/text"
cat >"$dir/job.cfg" <<END
name = "small"; model = "data/asterism-S"; output = "$dir/results";
objective = { objective = "distil"; rows = 32; local = 16; keep = 64; };
data = { files = ["$dir/text"]; length = 192; };
train = { steps = 8; warmup = 2; repeat = 2; save_s = 0.0; threads = 1; };
END
train() { "$ASTERISM" train "$dir/job.cfg" "$@" >"$dir/out" 2>&1 </dev/null; }

train; rc=$?
ok "a small job is trained" [ $rc = 0 ]
ok "gates are saved" [ -s "$dir/results/gates.safetensors" ]
ok "and curves" [ -s "$dir/results/training.h5" ]
ok "only the last checkpoint is kept" [ "$(ls "$dir/results" | grep -c '^checkpoint-')" = 1 ]
cp "$dir/results/gates.safetensors" "$dir/whole"

# A run without interruption, one that is killed at any moment, and one that a signal stops, give the same bytes.
for signal in KILL TERM USR2; do
    rm -rf "$dir/results"
    stopped=0
    for _ in $(seq 40); do
        "$ASTERISM" train "$dir/job.cfg" >"$dir/out" 2>&1 </dev/null &
        pid=$!
        ( sleep "0.$((RANDOM % 7 + 2))"; kill -$signal $pid 2>/dev/null ) &
        wait $pid; rc=$?
        wait
        [ $rc = 0 ] && break
        stopped=$((stopped + 1))
        [ $rc = 75 ] || [ $rc -gt 128 ] || break
        [ $stopped = 3 ] && { train; rc=$?; break; }
    done
    ok "it goes on after $signal" [ $rc = 0 ]
    ok "and ends with the same bytes after $signal" cmp -s "$dir/whole" "$dir/results/gates.safetensors"
done

train train.lr=0.1; rc=$?
ok "other options do not continue a checkpoint" [ $rc = 2 ]
ok "and it is said how to start over" says "--fresh"
"$ASTERISM" train "$dir/job.cfg" --fresh train.lr=1e-3 objective.unit=head >"$dir/out" 2>&1; rc=$?
ok "--fresh starts over" [ $rc = 0 ]

cat >"$dir/run.cfg" <<END
name = "r"; output = "$dir/r.h5"; models = ( { path = "data/asterism-S"; } );
methods = ( { method = "ast"; keep = 64; local = 16; unit = "head"; gate = "$dir/results/gates.safetensors"; } );
tasks = ( { task = "wikitext"; data = "$dir/text"; lengths = [192]; limit = 2; } );
END
"$ASTERISM" run "$dir/run.cfg" run.threads=1 >"$dir/out" 2>&1; rc=$?
ok "run reads the gates" [ $rc = 0 ]

cat >>"$dir/job.cfg" <<END
sweep = ( { key = "train.lr"; values = ["1e-3", "2e-3"]; }, { key = "objective.weight"; values = ["\"equal\"", "\"mass\"", "\"sharp\""]; } );
END
ok "a sweep's points are counted" [ "$("$ASTERISM" train "$dir/job.cfg" --points)" = 6 ]
train --point 5 train.steps=2; rc=$?
ok "one point is trained" [ $rc = 0 ]
ok "in a folder of its own" [ -s "$dir/results/point-05/gates.safetensors" ]
ok "with its own values" says 'train.lr=2e-3'
train --point 6; ok "a point that is not there is refused" [ $? = 2 ]

train objective.objective=distill; rc=$?
ok "a misspelt objective is refused" [ $rc = 2 ]
ok "and the right one named" says "did you mean 'distil'"
train train.stepz=1; rc=$?
ok "a misspelt option is refused" [ $rc = 2 ]
train "data.files=[\"$dir/none\"]"; rc=$?
ok "a missing text is an error" [ $rc = 1 ]
ok "that names it" says "$dir/none"
train "data.length=5000" train.micro_tokens=4096; rc=$?
ok "a sequence that does not fit is refused" [ $rc = 2 ]
"$ASTERISM" train --help >"$dir/out" 2>&1
ok "--help lists objectives and options" says 'objective = "distil"'
ok "every job's options are known" bash -c 'for j in jobs/train-*.cfg; do "$ASTERISM" train "$j" --points "data.files=[\"none\"]" >/dev/null || exit 1; done'

echo "$passed passed, $failed failed"
[ $failed = 0 ]
