#!/bin/bash
# asterism random-model: the folder it writes, and one sentence for what cannot be.
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
passed=0 failed=0
check() # NAME WANT GOT
{
    if [ "$2" = "$3" ]; then
        passed=$((passed + 1)); echo "ok $((passed + failed)) - $1"
    else
        failed=$((failed + 1)); echo "not ok $((passed + failed)) - $1"; echo "# want: $2"; echo "# got:  $3"
    fi
}
has() # NAME PART TEXT
{
    [[ $3 == *"$2"* ]] && check "$1" yes yes || check "$1" "... $2 ..." "$3"
}
make_one() { "$ASTERISM" random-model --hidden 32 --layers 2 --heads 4 --kv-heads 2 --mlp 48 --vocab 100 "$@" 2>&1; }
files() { (cd "$dir/$1" && echo *); }

# 100*32*2 embeddings + 2 layers of (32*32*2 + 16*32*2 + 3*48*32 + 2*32) + 32
has "parameters and size are said" "0.0 million parameters, 43 KiB" "$(make_one -o "$dir/a" --dtype bf16)"
check "one file and its config" "config.json model.safetensors" "$(files a)"
has "config.json has the shape" '"num_key_value_heads": 2' "$(cat "$dir/a/config.json")"
make_one -o "$dir/b" --shards 3 >/dev/null
check "shards have an index" "config.json model-00001-of-00003.safetensors model-00002-of-00003.safetensors model-00003-of-00003.safetensors model.safetensors.index.json" "$(files b)"
make_one -o "$dir/c" >/dev/null
check "the same seed gives the same bytes" "" "$(cmp "$dir/a/model.safetensors" "$dir/c/model.safetensors" 2>&1)"
make_one -o "$dir/d" --seed 2 >/dev/null
cmp -s "$dir/a/model.safetensors" "$dir/d/model.safetensors"
check "another seed gives others" 1 $?
echo '{}' >"$dir/b/tokenizer.json"
"$ASTERISM" random-model --like "$dir/b" -o "$dir/e" >/dev/null 2>&1
check "--like copies shape, config and tokenizer" "config.json model.safetensors tokenizer.json" "$(files e)"
check "--like copies the sizes" "$(cat "$dir/b/config.json")" "$(cat "$dir/e/config.json")"
has "an existing model is not overwritten" "is not overwritten" "$(make_one -o "$dir/a")"
make_one >/dev/null
check "without -o the exit code is that of a usage error" 2 $?
has "a shape that cannot be is refused" "cannot share 3 key-value heads" "$(make_one --kv-heads 3 -o "$dir/x")"
has "a wrong number is refused" "--layers two: a whole number" "$(make_one --layers two -o "$dir/x")"
has "a wrong preset is refused" "there are 125m, 1.1b and tiny" "$(make_one --preset 7b -o "$dir/x")"
has "an unknown option is refused" "unknown option '--size'" "$(make_one --size 3 -o "$dir/x")"
check "nothing was written for what was refused" no "$([ -e "$dir/x" ] && echo yes || echo no)"
echo "1..$((passed + failed))"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
