#!/bin/bash
# asterism bench: the table, its HDF5 columns, and a peer's figure in turn with ours. No figure is judged.
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
passed=0 failed=0
has() # NAME PART TEXT
{
    if [[ $3 == *"$2"* ]]; then
        passed=$((passed + 1)); echo "ok $((passed + failed)) - $1"
    else
        failed=$((failed + 1)); echo "not ok $((passed + failed)) - $1"; echo "# want: ... $2 ..."; echo "# got:  $3"
    fi
}
bench() { "$ASTERISM" bench "$@" 2>&1; echo "exit $?"; }

quick=$(bench --quick --rounds 1 -m data/asterism-S --lengths 64 --dtype f32 --out "$dir/b.h5")
has "a quick run ends well" 'exit 0' "$quick"
has "peaks are measured" 'f32 multiply-adds, 1 thread a rank' "$quick"
has "bandwidth by working set" 'read, 16 KiB a thread' "$quick"
has "linear layers" 'linear f32 2304 x 768, 16 rows' "$quick"
has "attention tiles, gathered" 'tile_gather f32 d 64, 64 rows' "$quick"
has "attention alone" 'attention f32, 12 heads over 12 of 64, 1024 tokens' "$quick"
has "the engine's prefill" 'asterism-S f32 prefill 64' "$quick"
has "its memory is accounted for" 'memory a rank: weights 33 MiB, step' "$quick"
has "its decoding in batches" 'asterism-S f32 decode, 16 sequences' "$quick"
rows=$(grep -cE ' (GFLOP/s|GB/s) ' <<<"$quick")
if command -v h5dump >/dev/null; then
    has "the file has a row for each line" "( $rows )" "$(h5dump -H -d /bench/ratio "$dir/b.h5" 2>&1)"
    has "and names them" 'asterism-S f32 prefill 64' "$(h5dump -d /bench/name "$dir/b.h5" 2>&1)"
fi

# The peer: 628.5, 700.5, 628.5, ... after a line that does not match and a number that is no number.
cat >"$dir/peer" <<'T'
n=$(cat "$1/n" 2>/dev/null || echo 0); echo $((n + 1)) >"$1/n"
echo "loaded 12 tensors"
echo "model_7b pp512: 99 steps, $((628 + n % 2 * 72)).5 tokens/s"
echo "bye 1"
T
peer=$(bench --quick --rounds 3 --lengths 32 --peer "sh $dir/peer $dir")
has "a peer's figure is the last number of the line that matches" '     628.5 ' "$peer"
has "the median ratio is printed" 'ours / peer: median' "$peer"
has "of as many turns as rounds" 'of 3 turns' "$peer"
has "each turn ran the peer once" '3' "$(cat "$dir/n")"
has "decoding against a peer" 'decode, 16 sequences: ours' \
    "$(bench --quick --rounds 1 --dtype bf16 --peer-what decode16 --peer 'echo "avg_ts": 12.5,' --peer-match avg_ts)"
has "a peer that fails is named" 'ended with exit code 3' "$(bench --quick --rounds 1 --lengths 32 --peer 'exit 3')"
has "a peer without a figure" "matches 'tok" "$(bench --quick --rounds 1 --lengths 32 --peer 'echo nothing')"
has "a pattern that is none" '--peer-match' "$(bench --quick --rounds 1 --lengths 32 --peer 'echo 1' --peer-match '(')"

has "an unknown option" 'exit 2' "$(bench --nope 1)"
has "a length that is none" 'a whole number from 1' "$(bench --lengths 12,x)"
has "a preset that is none" 'there are 125m, 1.1b and tiny' "$(bench --preset 7b)"
has "a model that is not there" 'no/such' "$(bench --quick --only engine -m no/such)"
tiny=$(TMPDIR=$dir bench --quick --rounds 1 --only engine --preset tiny --lengths 16 --dtype f32)
has "a preset is written and measured" 'f32 prefill 16' "$tiny"
has "and removed" '0' "$(ls -d "$dir"/asterism-bench-* 2>/dev/null | wc -l)"
has "two ranks share the work" '2 ranks x 1 thread' \
    "$(OMP_NUM_THREADS=1 mpirun --oversubscribe --bind-to none -np 2 "$ASTERISM" bench --quick --rounds 1 --only engine \
        -m data/asterism-S --lengths 16 --dtype bf16 --threads 1 2>&1)"
echo "1..$((passed + failed))"
echo "$passed passed, $failed failed"
