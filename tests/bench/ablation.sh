#!/bin/bash
# What each part of AST's training buys: a table of perplexities on a held-out text at equal tokens kept, the time each part
# took beside it.
#   ASTERISM=build/asterism tests/bench/ablation.sh [MODEL] [TEXT] [HELD_OUT]
#       MODEL data/asterism-S    TEXT ../shared/data/train/lm.txt    HELD_OUT ../shared/data/eval/wiki.valid.tokens
# Rows: dense; untrained gates; distilled from the mass alone, rows alike; distilled weighted (recall term, rows by how sharp
# they are); and from those gates, each as long: end to end; end to end with a learned budget, with multi-scale summaries, with
# both. A learned budget ends near its target, not on it: "as many" is the fixed budget again, with as many pairs as it used.
# Sizes, with their defaults for about a quarter of an hour on two idle cores:
#   LENGTH=2048 tokens of a sequence   KEEP=128 tokens kept (LOCAL=64 of them the last ones)   BLOCK=16
#   DISTIL=800 steps of distillation (8 on one batch of DISTIL_BATCH=2)   STEPS=24 end to end, of BATCH=4 sequences
#   WINDOWS=16 of the held-out text, LENGTH each (0: all)   RANKS=1   OUT= folder to keep (and to go on from)
set -u
ASTERISM=${ASTERISM:-build/asterism}
model=${1:-data/asterism-S} text=${2:-../shared/data/train/lm.txt} held=${3:-../shared/data/eval/wiki.valid.tokens}
length=${LENGTH:-2048} keep=${KEEP:-128} local=${LOCAL:-64} block=${BLOCK:-16} ranks=${RANKS:-1} steps_1=${DISTIL:-800} steps_2=${STEPS:-24}
dir=${OUT:-$(mktemp -d)}
if [ -n "${OUT:-}" ]; then mkdir -p "$dir" || exit 1; else trap 'rm -rf "$dir"' EXIT; fi
for f in "$model" "$text" "$held"; do [ -e "$f" ] || { echo "skipped: no $f"; exit 0; }; done
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_pml=ob1
export OMPI_MCA_btl=self,vader OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_sharedfp=^sm OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none OMP_WAIT_POLICY=passive
run() { if [ "$ranks" -gt 1 ]; then mpirun -np "$ranks" "$ASTERISM" "$@"; else "$ASTERISM" "$@"; fi </dev/null; }

train() { # train NAME JOB KEY=VALUE...: $dir/NAME/gates.safetensors, $dir/NAME.log
    local name=$1 job=$2 from=$SECONDS; shift 2
    run train "jobs/train-$job.cfg" name="$name" output="$dir/$name" model="$model" "data.files=[\"$text\"]" data.length="$length" \
        train.micro_tokens="$length" "$@" >"$dir/$name.log" 2>&1 || { echo "$name failed:"; tail -n 3 "$dir/$name.log"; exit 1; }
    [ -e "$dir/$name.seconds" ] || echo $((SECONDS - from)) >"$dir/$name.seconds"
}
distil() { local name=$1; shift; train "$name" distil objective.block="$block" objective.local="$local" objective.keep="$keep" \
    train.steps="$steps_1" train.warmup=$((steps_1 / 40)) train.repeat=8 train.batch="${DISTIL_BATCH:-2}" "$@"; }
last() { # last NAME LOG: the last value of NAME in the line that closes a training
    grep -o "$1 [0-9.e+-]*" "$dir/$2.log" | tail -n 1 | cut -d' ' -f2
}
end_to_end() { local name=$1; shift; train "$name" lm gate="$dir/distil-weighted/gates.safetensors" method.block="$block" \
    method.local="$local" train.steps="$steps_2" train.warmup=$((steps_2 / 8)) train.batch="${BATCH:-4}" "$@"; }

# The mean density of a learned budget that gives every token the same share of its candidates, and all of them together as
# many blocks as the fixed budget.
target=$(awk -v L="$length" -v K="$keep" -v W="$local" -v B="$block" 'BEGIN {
    for (t = 0; t < L; t++) {
        own = int(t / B); hi = t >= W ? int((t - W) / B) : 0; n = hi > 1 ? hi - 1 : 0
        k = K / B - (own + 1 - n); k = k < 0 ? 0 : k > n ? n : k; fixed += k; all += n
    }
    for (t = 0; t < L; t++) {
        own = int(t / B); hi = t >= W ? int((t - W) / B) : 0; n = hi > 1 ? hi - 1 : 0
        sum += (own + 1 - n + n * fixed / (all ? all : 1)) / (own + 1)
    }
    printf "%.4f", sum / L }')
scales="method.summary=[16,32,64]"
[ "$block" = 16 ] || scales="method.summary=[$block,$((2 * block)),$((4 * block))]"
distil distil-mass objective.target=mass objective.weight=equal objective.kl=1 objective.recall=0
# A budget that covers, row by row, what the fixed one covers in the mean needs about as many tokens.
share=$(last kept distil-mass)
distil distil-weighted objective.target=mass objective.weight=sharp objective.kl=0.2 objective.recall=1 objective.budget="$share"
learned=(method.budget=learned method.keep=0 objective.density="$target" objective.lambda=0.1 objective.dual_lr=5)
end_to_end fixed method.keep="$keep"
end_to_end learned "${learned[@]}"
end_to_end scales method.keep="$keep" "$scales"
end_to_end both "${learned[@]}" "$scales"

ast() { printf ', { method = "ast"; name = "%s"; block = %s; local = %s; %s%s }' "$1" "$block" "$local" "$3" "${2:+ gate = \"$2/gates.safetensors\";}"; }
score() { # score NAME METHODS: $dir/NAME.txt, the table
    cat >"$dir/$1.cfg" <<END
name = "$1"; output = "$dir/$1.h5"; models = ( { path = "$model"; } );
methods = ( $2 );
tasks = ( { task = "wikitext"; name = "held-out"; data = "$held"; protocol = "disjoint"; lengths = [$length]; limit = ${WINDOWS:-16}; } );
END
    run run "$dir/$1.cfg" --quiet --fresh >"$dir/$1.txt" 2>&1 || { tail -n 3 "$dir/$1.txt"; exit 1; }
}
pairs() { grep -F " $1 " "$dir/$2.txt" | grep -o '[0-9.]* %' | tail -n 1 | cut -d' ' -f1; }
same() { # tokens of a fixed budget that looks at $1 % of the pairs
    awk -v p="$1" -v L="$length" -v B="$block" 'BEGIN { K = L * (1 - sqrt(1 - p / 100)); print int(K / B + 0.999) * B }'
}
fixed="keep = $keep;" free='keep = 0; budget = "learned";' multi="${scales#method.}"; multi="${multi/=/ = };"
score table "{ method = \"dense\"; }$(ast untrained "" "$fixed")$(ast distil-mass "$dir/distil-mass" "$fixed")$(
    ast distil-weighted "$dir/distil-weighted" "$fixed")$(ast "+ end to end" "$dir/fixed" "$fixed")$(
    ast "+ learned budget" "$dir/learned" "$free")$(ast "+ multi-scale" "$dir/scales" "$fixed $multi")$(ast "+ both" "$dir/both" "$free $multi")"
score many "{ method = \"dense\"; }$(ast "as many: learned" "$dir/fixed" "keep = $(same "$(pairs "+ learned budget" table)");")$(
    ast "as many: both" "$dir/fixed" "keep = $(same "$(pairs "+ both" table)");")"

echo "$model, sequences of $length tokens, $keep kept in blocks of $block (last $local always); target density $target, share covered $share"
cat "$dir/table.txt"
grep "as many" "$dir/many.txt"
for n in distil-mass distil-weighted fixed learned scales both; do
    printf '  %-16s %5d s of training   %s\n' "$n" "$(cat "$dir/$n.seconds")" "$(grep -o 'steps, .*' "$dir/$n.log" | tail -n 1 | cut -c 8-110)"
done
echo "all of it took $SECONDS s"
