#!/bin/bash
# run.calibrate: costs of attention's kernels are measured once and kept with the job; they move strategies and no score.
passed=0 failed=0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/job.cfg" <<T
name = "costs";
models = ( { path = "data/asterism-S"; } );
methods = ( { method = "ast"; keep = 96; block = 16; local = 16; },
            { name = "own"; method = "ast"; keep = 96; block = 16; local = 16; cost_blocks = 0.0; } );
tasks = ( { task = "wikitext"; name = "english"; data = "data/samples/english.txt"; lengths = [512]; limit = 2; } );
run = { sparsity = 0; threads = 1; shard_s = 0.02; beat_s = 0.2; dead_s = 20.0; };
T
ok() { local name=$1; shift; if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "not ok - $name"; tail -n 6 "$dir/log" | sed 's/^/#   /'; fi; }
run() { # run RANKS OUTPUT OPTIONS...
    local np=$1 out=$2; shift 2
    local start=(mpirun --oversubscribe -np "$np")
    [ "$np" = 1 ] && start=()
    timeout 100 "${start[@]}" "$ASTERISM" run "$dir/job.cfg" "output=$dir/$out.h5" --quiet "$@" >"$dir/log" 2>&1 </dev/null
}
same() { h5diff "$@" >"$dir/log" 2>&1; }
total() { h5dump -d "/layers/$2" "$dir/$1.h5" | sed -n 's/^ *([0-9,]*): //p' | tr ',' '\n' | awk 'NF { n += $1 } END { print n + 0 }'; }
again() { rm -f "$dir/$1.h5" "$dir/$1.h5.shards"/*.shard; printf '%s' "$2" >"$dir/$1.h5.shards/costs.txt"; }
costs() { h5dump -a "/environment/$2" "$dir/$1.h5" 2>/dev/null | sed -n 's/^ *(0): //p'; }

ok "without the option" run 1 plain
ok "nothing is measured" test ! -e "$dir/plain.h5.shards/costs.txt" -a -z "$(costs plain cost_blocks)"
ok "with it" run 1 measured run.calibrate=true
ok "costs are kept with the job" grep -q '^cost_gather = [0-9.e+-]*$' "$dir/measured.h5.shards/costs.txt"
ok "and stand in the result" test -n "$(costs measured cost_blocks)" -a -n "$(costs measured cost_gather)"
ok "scores are the same" same "$dir/plain.h5" "$dir/measured.h5" /metrics/value

# a job that goes on uses what it has: here a walk costs so much that everything is gathered, unless the job says otherwise
forced=$'cost_blocks = 1000000\ncost_gather = 0\n'
again measured "$forced"
ok "goes on" run 1 measured run.calibrate=true
ok "with the costs that it had" test "$(costs measured cost_blocks)" = 1e+06
ok "so that tiles are gathered" test "$(total measured tile_gather)" -gt 0
ok "but for the method that names its own" test "$(total measured tile_blocks)" -gt 0
ok "scores are still the same" same "$dir/plain.h5" "$dir/measured.h5" /metrics/value
mkdir "$dir/three.h5.shards"
again three "$forced"
ok "3 ranks" run 3 three run.calibrate=true
for c in tile_dense tile_blocks tile_gather; do
    ok "every rank has them: $c" same "$dir/measured.h5" "$dir/three.h5" "/layers/$c"
done

again measured 'no costs'
ok "a damaged file is an error" test "$(run 1 measured run.calibrate=true; echo $?)" = 1
ok "that names it" grep -q 'costs.txt: these are no costs' "$dir/log"
ok "--fresh measures anew" run 1 measured run.calibrate=true --fresh
ok "and says so" test -n "$(costs measured cost_blocks)" -a "$(costs measured cost_blocks)" != 1e+06
ok "finished shards of another way to count are refused" test "$(run 1 measured; echo $?)" = 2
echo "$passed passed, $failed failed"
[ $failed = 0 ]
