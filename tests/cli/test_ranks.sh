#!/bin/bash
# One job, all three tasks, on 1, 2, 3, 5 and 9 ranks and in tensor-parallel groups of 1, 2 and 4: the same answer.
# Groups of one rank: the same file but for times, byte for byte as h5diff sees it. Larger groups add the parts of a sum in
# another order, in f32: counts equal, sums of losses to 1e-6, of their squares to 2e-6 (d(x^2) = 2 x dx: twice the relative
# difference); differences to dense attention are of nearly equal numbers and inherit the absolute error of both.
passed=0 failed=0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/job.cfg" <<T
name = "ranks";
models = ( { path = "data/asterism-S"; } );
methods = ( { method = "dense"; }, { method = "window"; keep = 32; },
            { method = "ast"; keep = 48; block = 16; local = 16; } );
tasks = ( { task = "wikitext"; name = "english"; data = "data/samples/english.txt"; lengths = [48, 96]; limit = 7; },
          { task = "wmt14"; name = "en-de"; source = "data/samples/en-de.en"; reference = "data/samples/en-de.de"; max_new = 6; lengths = [256]; limit = 4; },
          { task = "triviaqa"; name = "questions"; data = "data/samples/triviaqa/qa/wikipedia-dev.json"; lengths = [128]; limit = 3; max_new = 8; } );
run = { sparsity = 16; maps = 2; threads = 1; batch_tokens = 256; shard_s = 0.02; beat_s = 0.2; dead_s = 20.0; };
T
ok() { local name=$1; shift; if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "not ok - $name"; tail -n 6 "$dir/log" | sed 's/^/#   /'; fi; }
run() { # run RANKS OUTPUT OPTIONS...
    local np=$1 out=$2; shift 2
    timeout 150 mpirun --oversubscribe -np "$np" "$ASTERISM" run "$dir/job.cfg" "output=$dir/$out.h5" --quiet "$@" >"$dir/log" 2>&1 </dev/null
}
same() { h5diff --exclude-path /timing --exclude-path /environment "$@" >"$dir/log" 2>&1; }
columns() { h5ls -r "$dir/1.h5" | sed -n "s|^\(/samples/$1/[^ ]*\) .*|\1|p"; }

ok "1 rank" run 1 1
for np in 2 3 5 9; do
    ok "$np ranks" run $np $np
    ok "$np ranks give the same file but for times" same "$dir/1.h5" "$dir/$np.h5"
done

for c in density mass_recall entropy mass_by_distance map/kept; do
    ok "statistics of attention: $c" h5ls "$dir/1.h5/sparsity/$c"
done

# tensor parallel: ranks, size of a group; nine ranks are two groups of four
# (5,4: one length in groups of four, the other and the other tasks in groups of two, in two phases)
for layout in 3,2 5,4 9,4; do
    np=${layout%,*} T=${layout#*,} out=t${layout/,/x} more=
    [ $np = 5 ] && more='run.tensor=2 tasks.[0].tensor=[2,4]'
    # shellcheck disable=SC2086 # words are options
    ok "$np ranks in groups of $T" run "$np" "$out" run.tensor="$T" $more
    n=0
    for c in $(columns english) $(columns en-de) $(columns questions); do
        case $c in
        */nll|*/hf_nll) ok "groups of $T: $c to 1e-6" same -p 1e-6 "$dir/1.h5" "$dir/$out.h5" "$c" ;;
        */nll_squared) ok "groups of $T: $c to 2e-6" same -p 2e-6 "$dir/1.h5" "$dir/$out.h5" "$c" ;;
        *) same "$dir/1.h5" "$dir/$out.h5" "$c" && n=$((n + 1)) || ok "groups of $T: $c exactly" false ;;
        esac
    done
    ok "groups of $T: $n integer columns of samples are equal" [ $n -ge 60 ]
    ok "groups of $T: scores to 1e-6" same -p 1e-6 "$dir/1.h5" "$dir/$out.h5" /metrics/value
    ok "groups of $T: rows of attention sampled, all their heads" same "$dir/1.h5" "$dir/$out.h5" /sparsity/rows
    for c in pairs_seen pairs_causal; do ok "groups of $T: $c exactly" same "$dir/1.h5" "$dir/$out.h5" "/layers/$c"; done
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
