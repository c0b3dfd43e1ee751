#!/bin/bash
# `asterism plan` on the embedded model: figures that follow from given rates, layouts, measuring.
passed=0 failed=0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/job.cfg" <<T
models = ( { path = "data/asterism-S"; } );
methods = ( { method = "dense"; }, { method = "window"; keep = 64; } );
tasks = ( { task = "wikitext"; name = "english"; data = "data/samples/english.txt"; lengths = [256, 1024]; } );
run = { threads = 1; batch_tokens = 1024; };
T
ok() { local name=$1; shift; if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "not ok - $name"; tail -n 30 "$dir/log" | sed 's/^/#   /'; fi; }
plan() { timeout 60 "$ASTERISM" plan "$dir/job.cfg" "$@" >"$dir/log" 2>&1 </dev/null; rc=$?; }
says() { grep -q -- "$1" "$dir/log"; }
# seconds of the line that begins with $1
of() { sed -n "s/^ *$1 *//p" "$dir/log" | head -n 1 | awk '{ s = 0; for (i = 1; i <= NF; i++) { if ($i ~ /^[0-9]+h$/) s += 3600 * $i; if ($i ~ /^[0-9]+m$/) s += 60 * $i; if ($i ~ /^[0-9.]+s$/) s += $i; if ($i == "s") s += $(i - 1) } print s }'; }
near() { awk -v a="$1" -v b="$2" -v r="$3" 'BEGIN { exit !(a > b * (1 - r) && a < b * (1 + r)) }'; }

# at 1 GFLOP/s seconds are GFLOP
plan -n 2 --gflops 1,1
ok "a plan from given figures (exit code $rc)" [ $rc = 0 ]
sum=$(awk '/asterism-S, /{ print $0 }' "$dir/log" | sed 's/.*, length//' | awk '{ s += $5 } END { print s }')
ok "one worker takes as long as the operations ($(of 'wall time') s, $sum GFLOP)" near "$(of 'wall time')" "$sum" 0.02
one=$(of 'wall time')
plan -n 5 --gflops 1,1
ok "four workers a quarter ($(of 'wall time') of $one s)" near "$(of 'wall time')" "$(awk -v s="$one" 'BEGIN { print s / 4 }')" 0.15
ok "an sbatch line" says '^  sbatch -n 5 -c 1 -t [0-9:]* .*slurm/run.sbatch'
ok "other layouts beside it" says '^ *5  *1  *2 '
ok "one of them recommended" says 'recommended'
plan -n 5 --gflops 1,1 'tasks.[0].tensor=[1,4]'
ok "two sizes of groups are two phases (exit code $rc)" [ $rc = 0 ]
plan -n 3 --gflops 1,1 run.tensor=4
ok "too few ranks are refused (exit code $rc)" [ $rc = 2 ]
plan -n 5 --gflops 1,1 run.memory_gb=0.001
ok "what does not fit is said" says 'does not fit'
plan -n 2 --seconds 1
ok "a plan from measuring (exit code $rc)" [ $rc = 0 ]
ok "with memory" says 'memory a rank [1-9]'
echo "$passed passed, $failed failed"
[ $failed = 0 ]
