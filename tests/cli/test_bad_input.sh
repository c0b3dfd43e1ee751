#!/bin/bash
# Bad input through the command line: one clear sentence, once however many ranks, a non-zero exit of all, within seconds.
passed=0 failed=0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
ok() # NAME CONDITION...
{
    local name=$1; shift
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "not ok - $name"; tail -n 6 "$dir/log" | sed 's/^/#   /'; fi
}
# One sentence that has the text in it, and no other; no word of a crash.
one_sentence() { [ "$(grep -c '^asterism: ' "$dir/log")" = 1 ] && grep '^asterism: ' "$dir/log" | grep -q -- "$1" && ! grep -qiE 'signal|sanitizer|runtime error|assert' "$dir/log"; }

good=$dir/good m=$dir/m
"$ASTERISM" random-model --hidden 32 --layers 2 --heads 4 --kv-heads 2 --mlp 48 --vocab 16384 --positions 512 --dtype f32 \
    --tokenizer data/asterism-S -o "$good" >"$dir/log" || exit 1
fresh() { rm -rf "$m"; cp -r "$good" "$m"; }
sub() { LC_ALL=C sed -i "$2" "$m/$1"; }

# ---- every field of config.json: missing, of the wrong type, absurd ----
field() # KEY VALUE: replaced by VALUE; "-" takes the line out
{
    fresh
    if [ "$2" = - ]; then sub config.json "/\"$1\":/d"
    elif grep -q "\"$1\":" "$m/config.json"; then sub config.json "s|\"$1\": .*[^,]\(,*\)\$|\"$1\": $2\1|"
    else sub config.json "s|^{|{ \"$1\": $2,|"; fi
    timeout 20 "$ASTERISM" show "$m" >"$dir/log" 2>&1
    local rc=$?
    ok "config.json: $1 = $2: exit code (is $rc)" [ $rc = 1 ]
    ok "config.json: $1 = $2: named" one_sentence "${3:-$1}"
}
for key in model_type vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads max_position_embeddings; do
    field $key -
done
for key in vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim \
    max_position_embeddings bos_token_id; do
    field $key '"many"'
    field $key 1.5
    field $key -7
    field $key 1e300
done
for key in rope_theta rms_norm_eps; do field $key '"x"'; field $key -1; done
for key in attention_bias mlp_bias tie_word_embeddings; do field $key '"yes"'; done
for key in hidden_act model_type; do field $key 3; field $key '"none_of_ours"'; done
field architectures '["BertModel"]'
field architectures '"LlamaForCausalLM"'
field torch_dtype 7
field eos_token_id '"</s>"'
field eos_token_id 999999
field eos_token_id '[1,2,3,4,5,6,7,8,9,10]'
field num_key_value_heads 3 "cannot share 3 key/value heads"
field head_dim 7 "7 of a head's 7 dims"
field rope_scaling '{"rope_type": "spiral", "factor": 2.0}' spiral
field rope_scaling '{"rope_type": "linear"}' factor
field rope_scaling '{"rope_type": "linear", "factor": -2.0}' factor
field rope_scaling '"linear"'
field num_local_experts 8
field quantization_config '{"bits": 4}'
field hidden_size 64 'multiple\|shape\|\[16384, 32\]\|32'
fresh; echo '{"model_type": "llama",' >"$m/config.json"
"$ASTERISM" show "$m" >"$dir/log" 2>&1; ok "config.json cut short" one_sentence "config.json.*line 2\|config.json:2"
fresh; printf '{"model_type": "ll\377ma"}' >"$m/config.json"
"$ASTERISM" show "$m" >"$dir/log" 2>&1; ok "config.json that is not UTF-8" one_sentence "config.json"
fresh; echo '[1, 2]' >"$m/config.json"
"$ASTERISM" show "$m" >"$dir/log" 2>&1; ok "config.json that is a list" one_sentence "config.json"

# ---- three ranks ----
printf 'The house is old. ' >"$dir/text.txt"
cat >"$dir/job.cfg" <<T
name = "bad"; output = "$dir/out.h5";
models = ( { path = "$m"; } ); methods = ( { method = "dense"; } );
tasks = ( { task = "wikitext"; data = "$dir/text.txt"; lengths = [4]; } );
run = { threads = 1; beat_s = 0.2; };
T
three() # NAME SENTENCE ARGUMENTS...: what 3 ranks do with the model in $m
{
    local name=$1 sentence=$2 rc; shift 2
    timeout 60 mpirun --oversubscribe -np 3 "$ASTERISM" run "$dir/job.cfg" "$@" >"$dir/log" 2>&1 </dev/null
    rc=$?
    ok "$name: exit code (is $rc)" [ $rc = 1 -o $rc = 2 ]
    ok "$name: one sentence" one_sentence "$sentence"
    ok "$name: no result file" [ ! -e "$dir/out.h5" ]
}
fresh; sub config.json 's/"hidden_size": 32/"hidden_size": "wide"/'; three "a field of the wrong type" hidden_size
fresh; sub config.json 's/"llama"/"bert"/'; three "an unknown architecture" '"bert" is not an architecture that is computed here; there are: llama'
fresh; truncate -s -100 "$m/model.safetensors"; three "truncated weights" model.safetensors
fresh; truncate -s 5 "$m/model.safetensors"; three "weights without a header" model.safetensors
fresh; sub model.safetensors 's/\[2097152,2097280\]/[2097148,2097276]/'; three "overlapping tensors" model.safetensors
fresh; sub model.safetensors 's/"dtype":"F32","shape":\[32\]/"dtype":"F8_","shape":[32]/'; three "an unknown dtype" 'F8_'
fresh; sub model.safetensors 's/"shape":\[32,32\]/"shape":[64,16]/'; three "a wrong shape" 'self_attn.q_proj.weight'
fresh; printf '\377\377\377\177' | dd of="$m/model.safetensors" bs=1 seek=$(($(stat -c %s "$m/model.safetensors") - 4)) conv=notrunc 2>/dev/null
three "NaN weights" 'not finite\|NaN'
fresh; rm "$m/model.safetensors"; three "no weights" model.safetensors
rm -rf "$m"; three "a missing folder" "$m"
fresh; : >"$dir/empty.txt"; three "an empty dataset" empty.txt "tasks.[0].data=$dir/empty.txt"
printf 'caf\351 and more text here\n' >"$dir/latin.txt"; three "a text that is not UTF-8" 'latin.txt' "tasks.[0].data=$dir/latin.txt"
three "an unwritable output" /proc/none output=/proc/none/x.h5
three "an output that is a folder" "$dir" "output=$dir/m"
echo '{"version": "1.0", "model": {"type": "WordPiece", "vocab": {"a": 0}}}' >"$m/tokenizer.json"; three "an unknown tokenizer" 'WordPiece.*BPE\|BPE.*WordPiece'

# ---- tokenizers ----
tokenizer() # NAME SENTENCE JSON
{
    echo "$3" >"$dir/tokenizer.json"
    timeout 20 "$ASTERISM" show "$dir/tokenizer.json" >"$dir/log" 2>&1
    ok "$1: refused" [ $? = 1 ]
    ok "$1: said" one_sentence "$2"
}
bpe='"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": '
tokenizer "merges that name unknown tokens" '"c"' "{${bpe}[[\"a\", \"c\"]]}}"
tokenizer "merges whose product is unknown" 'ba' "{${bpe}[[\"b\", \"a\"]]}}"
tokenizer "merges that are no pairs" 'merge 0 is neither' "{${bpe}[3]}}"
tokenizer "an unknown pre-tokenizer, with the list" 'Sorcery.*ByteLevel' "{\"pre_tokenizer\": {\"type\": \"Sorcery\"}, ${bpe}[]}}"
tokenizer "an unknown normalizer, with the list" 'Sorcery.*NFC' "{\"normalizer\": {\"type\": \"Sorcery\"}, ${bpe}[]}}"
tokenizer "an unknown post-processor, with the list" 'Sorcery.*TemplateProcessing' "{\"post_processor\": {\"type\": \"Sorcery\"}, ${bpe}[]}}"
tokenizer "an unknown decoder, with the list" 'Sorcery.*ByteLevel' "{\"decoder\": {\"type\": \"Sorcery\"}, ${bpe}[]}}"
tokenizer "a vocabulary that is a list" vocab '{"model": {"type": "BPE", "vocab": [1], "merges": []}}'
tokenizer "no model" model '{}'
echo "$passed passed, $failed failed"
[ $failed = 0 ]
