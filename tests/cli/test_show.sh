#!/bin/bash
# asterism show: every kind of file has its page, what is none of them is refused with the list.
passed=0 failed=0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
has() # NAME PART TEXT
{
    if [[ $3 == *"$2"* ]]; then
        passed=$((passed + 1)); echo "ok $((passed + failed)) - $1"
    else
        failed=$((failed + 1)); echo "not ok $((passed + failed)) - $1"; echo "# want: ... $2 ..."; echo "# got:  $3"
    fi
}
show() { "$ASTERISM" show "$@" 2>&1; echo "exit $?"; }

page=$(show data/asterism-S)
has "a model's page: architecture" "architecture llama" "$page"
has "memory" "weights 33 MiB as f32, 16 MiB as bf16" "$page"
has "who names the BOS" "bos          0, says config.json" "$page"
has "the tokenizer" "byte-level BPE, 16384 tokens" "$page"
has "what the tokenizer puts in front" "its post-processor puts nothing in front" "$page"
has "nothing is unsupported" "unsupported  nothing" "$page"

cp -r data/asterism-S "$dir/m"
echo '{"bos_token_id": 3, "eos_token_id": [5, 7]}' >"$dir/m/generation_config.json"
page=$(show "$dir/m")
has "generation_config.json names the EOS" "eos          5, 7, says generation_config.json" "$page"
has "config.json's BOS stays" "bos          0, says config.json" "$page"
sed -i 's/"bos_token_id": 0,//' "$dir/m/config.json"
has "its BOS stands in" "bos          3, says generation_config.json" "$(show "$dir/m")"
echo '{"eos_token_id": 16384}' >"$dir/m/generation_config.json"
has "an EOS beyond the vocabulary is refused" "generation_config.json: eos_token_id must be a token from 0 to 16383" "$(show "$dir/m")"
echo '[1]' >"$dir/m/generation_config.json"
has "so is what is no object" "generation_config.json: an object is needed" "$(show "$dir/m")"
rm "$dir/m/generation_config.json" "$dir/m/tokenizer.json"
has "a model without tokenizer has a page" "tokenizer    none that is usable" "$(show "$dir/m")"
sed -i 's/{/{"num_local_experts": 8, "attn_logit_softcapping": 30.5, /' "$dir/m/config.json"
page=$(show "$dir/m")
has "all that is unsupported is listed: first" "unsupported  num_local_experts = 8" "$page"
has "and last" "unsupported  attn_logit_softcapping = 30.5" "$page"
has "and the exit code says so" "exit 1" "$page"

page=$(show jobs/demo.cfg)
has "a job's page: what it crosses" "1 model x" "$page"
has "an option, explained" "predicted seconds of a shard" "$page"
has "where it was set" "[jobs/demo.cfg:" "$page"
for job in jobs/*.cfg; do # those of train: test_train.sh
    case $job in jobs/train-*) ;; *) has "$job: its options exist" " cells" "$(show "$job")" ;; esac
done
echo 'models = ( { path = "data/asterism-S"; } ); methods = ( { method = "dense"; kep = 3; } ); tasks = ( { task = "wikitext"; } );' >"$dir/bad.cfg"
has "a wrong job is refused with its line" "bad.cfg:1: methods.[0].kep is unknown" "$(show "$dir/bad.cfg")"

cat >"$dir/job.cfg" <<T
name = "tiny"; output = "$dir/out.h5";
models = ( { path = "data/asterism-S"; } ); methods = ( { method = "dense"; } );
tasks = ( { task = "wikitext"; data = "data/samples/english.txt"; lengths = [24]; limit = 3; } );
run = { threads = 1; };
T
"$ASTERISM" run "$dir/job.cfg" --quiet >/dev/null 2>&1
page=$(show "$dir/out.h5")
has "a result file's page: models" "asterism-S  llama            8547584  f32        0  0    config.json" "$page"
has "metrics" "token_perplexity" "$page"
has "a folder of shards" "samples      3 scored, 0 failed" "$(show "$dir/out.h5.shards/")"
shard=$(ls "$dir"/out.h5.shards/*.shard)
has "a shard" "positions 0 to 2" "$(show "$shard")"
truncate -s -3 "$shard"
has "a torn shard is refused" "exit 1" "$(show "$shard")"
has "and counted in its folder" "1, 1 damaged" "$(show "$dir/out.h5.shards")"

has "weights" "model.embed_tokens.weight" "$(show data/asterism-S/model.safetensors)"
has "a tokenizer file" "tokenizer    byte-level BPE" "$(show data/asterism-S/tokenizer.json)"
has "two paths, two pages" "a tokenizer" "$(show jobs/demo.cfg data/asterism-S/tokenizer.json)"
has "another file is refused with the list" "not a kind of file that is explained here; those are: a model folder" "$(show Makefile)"
has "another folder too" "not a kind of folder" "$(show src)"
has "a missing path" "/nowhere: there is no such file or folder" "$(show /nowhere)"
echo "not HDF5" >"$dir/x.h5"
has "what only looks like a result file" "exit 1" "$(show "$dir/x.h5")"
has "no path is a usage error" "exit 2" "$(show)"
echo "1..$((passed + failed))"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
