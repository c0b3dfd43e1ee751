#!/bin/bash
# asterism tokenize: JSON lines in and out, and one sentence for what is wrong.
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
cat >"$dir/tokenizer.json" <<'T'
{"pre_tokenizer": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always"},
 "decoder": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always"},
 "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}],
                    "special_tokens": {"<s>": {"ids": [5]}}},
 "added_tokens": [{"id": 5, "content": "<s>", "special": true}],
 "model": {"type": "BPE", "vocab": {"_": 0, "a": 1, "b": 2, "_a": 3, "\n": 4}, "merges": ["_ a"]}}
T
tok() { "$ASTERISM" tokenize -m "$dir" "$@" 2>&1; }

check "a JSON string a line gives an array of ids a line" $'[3,2]\n[]\n[3,0,2,4]' "$(printf '"ab"\n""\n"a b\\n"\n' | tok)"
check "--special adds what the post-processor adds" "[5,3]" "$(echo '"a"' | tok --special)"
check "--decode gives the text" $'"a b"\n"\\n"' "$(printf '[3,0,2]\n[4]\n' | tok --decode)"
check "--skip-special leaves special tokens out" '"a"' "$(echo '[5,1]' | tok --decode --skip-special)"
has "--describe says what it is" "BPE, 6 tokens, 1 merges" "$(tok --describe)"
has "what is no JSON is named with its line" "line 2" "$(printf '"a"\nab\n' | tok)"
has "ids instead of text are refused" "a JSON string is needed" "$(echo '[1]' | tok)"
has "an id that is no token is named" "id 77" "$(echo '[77]' | tok --decode)"
has "a folder without a tokenizer is named" "there is no tokenizer.json here" "$("$ASTERISM" tokenize -m / 2>&1 </dev/null)"
echo '"a"' | "$ASTERISM" tokenize >/dev/null 2>&1
check "without -m the exit code is that of a usage error" 2 $?
echo 'ab' | tok >/dev/null
check "damaged input gives exit code 1" 1 $?
echo "$passed passed, $failed failed"
[ $failed = 0 ]
