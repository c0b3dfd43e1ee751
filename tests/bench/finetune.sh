#!/bin/bash
# All attention methods at about one budget of keys, as they are and after the same fine-tuning: perplexities on a held-out text.
#   ASTERISM=build/asterism tests/bench/finetune.sh [MODEL] [TEXT] [HELD_OUT]
#       MODEL data/asterism-S    TEXT ../shared/data/train/lm.txt    HELD_OUT ../shared/data/eval/wiki.valid.tokens
# Each method gets low-rank adapters on all projections (AST: and its gates), trained for STEPS sequences of LENGTH tokens by the
# divergence from the dense model; dense attention itself, to which that has no gradient, by the text. The last column is dense
# attention on the weights that were tuned for the method: what the tuning has cost it.
# Sizes, with their defaults for about a quarter of an hour on two idle cores:
#   LENGTH=2048   KEEP=128 keys a query on average, about   STEPS=16   LR=3e-3   WINDOWS=16 of LENGTH tokens (0: all)
#   GATE= file of AST's trained gates (default: MODEL's, else untrained)   BLOCK=16 UNIT=kv-head of that file
#   ONLY="ast window" some methods only   THREADS= of each run   OUT= folder to keep
set -u
ASTERISM=${ASTERISM:-build/asterism}
model=${1:-data/asterism-S} text=${2:-../shared/data/train/lm.txt} held=${3:-../shared/data/eval/wiki.valid.tokens}
length=${LENGTH:-2048} keep=${KEEP:-128} steps=${STEPS:-16} dir=${OUT:-$(mktemp -d)}
if [ -n "${OUT:-}" ]; then mkdir -p "$dir" || exit 1; else trap 'rm -rf "$dir"' EXIT; fi
for f in "$model" "$text" "$held"; do [ -e "$f" ] || { echo "skipped: no $f"; exit 0; }; done
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_pml=ob1
export OMPI_MCA_btl=self,vader OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_sharedfp=^sm OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none OMP_WAIT_POLICY=passive
gate=${GATE:-}
[ -n "$gate" ] || { [ -e "$model/gates.safetensors" ] && gate=$model/gates.safetensors; }

# The options of each method for K keys of sequences of L tokens.
method() {
    local K=$keep q=$((keep / 4))
    case $1 in
    ast) echo "method = \"ast\"; block = ${BLOCK:-16}; local = 64; keep = $K; unit = \"${UNIT:-kv-head}\";" ;;
    window) echo "method = \"window\"; keep = $K; sink = 16;" ;;
    streaming-llm) echo "method = \"streaming-llm\"; sink = 4; window = $((K - 4)); pos = \"orig\";" ;;
    longformer) echo "method = \"longformer\"; window = [$((K - 1))];" ;;
    dilated) echo "method = \"longformer\"; window = [$q, $((q * 3)), $((q * 5)), $((q * 7))]; dilation = 2; dilated_heads = 2; dilated_from = 4; global = [0, 1, 2, 3];" ;;
    strided) echo "method = \"sparse-transformer\"; l = $((K - length / K / 2));" ;;
    fixed) echo "method = \"sparse-transformer\"; kind = \"fixed\"; l = $((K / 2)); c = $((K * K * 3 / (length * 4) + 1));" ;;
    bigbird) echo "method = \"bigbird\"; block = $((K / 8 < 16 ? 16 : K / 8));" ;;
    reformer) echo "method = \"reformer\"; rounds = 8; buckets = 32; chunk = $((K / 8));" ;;
    performer) echo "method = \"performer\"; features = 256;" ;;
    dense) echo "method = \"dense\";" ;;
    esac
}

tune() { # tune NAME: $dir/NAME/model, and its gates
    local what=adapters loss="objective.kl=1 objective.ce=0" from=
    [ "$1" != ast ] || what=gates+adapters from=$gate
    [ "$1" != dense ] || loss="objective.kl=0 objective.ce=1"
    # shellcheck disable=SC2086
    "$ASTERISM" train jobs/train-lm.cfg name="$1" output="$dir/$1" model="$model" "data.files=[\"$text\"]" data.length="$length" \
        objective.what=$what objective.gate_lr=0.3 gate="$from" $loss train.lr="${LR:-3e-3}" train.steps="$steps" train.batch=1 \
        train.warmup=1 train.hard=0.4 ${THREADS:+train.threads=$THREADS} "method={$(method "$1")}" >"$dir/$1.log" 2>&1 </dev/null
}

score() { # score NAME MODEL GATES: two perplexities, the method's and dense attention's, and the method's share of pairs
    local g=
    [ "$1" != ast ] || g=${3:+"gate = \"$3\";"}
    cat >"$dir/score.cfg" <<END
name = "score"; output = "$dir/score.h5"; models = ( { path = "$2"; } );
methods = ( { name = "it"; $g $(method "$1") }, { name = "full"; method = "dense"; } );
tasks = ( { task = "wikitext"; name = "held-out"; data = "$held"; protocol = "disjoint"; lengths = [$length]; limit = ${WINDOWS:-16}; } );
END
    "$ASTERISM" run "$dir/score.cfg" --quiet --fresh >"$dir/score.txt" 2>&1 </dev/null || { tail -n 3 "$dir/score.txt" >&2; return 1; }
    awk '$2 == "it" { v = $3; for (i = 1; i <= NF; i++) if ($i == "%") p = $(i - 1) } $2 == "full" { d = $3 } END { print v, d, p }' "$dir/score.txt"
}

echo "$model, sequences of $length tokens, about $keep keys a query; $steps steps of one sequence each"
printf '  %-14s %8s %12s %12s %14s   %s\n' method pairs "as it is" "fine-tuned" "dense on it" training
for n in ${ONLY:-dense ast window streaming-llm longformer dilated strided fixed bigbird reformer performer}; do
    [ -n "$(method "$n")" ] || { echo "$n: no such method here"; exit 2; }
    before=$(score "$n" "$model" "$gate") || exit 1
    tune "$n" || { echo "$n failed:"; tail -n 3 "$dir/$n.log"; exit 1; }
    after=$(score "$n" "$dir/$n/model" "$dir/$n/gates.safetensors") || exit 1
    # shellcheck disable=SC2086
    set -- $before $after
    printf '  %-14s %6s %% %12s %12s %14s   %s\n' "$n" "$3" "$1" "$4" "$5" "$(grep -o 'steps, loss.*' "$dir/$n.log" | tail -n 1 | grep -o '[0-9.]* tok/s')"
done
echo "all of it took $SECONDS s"
