#!/bin/bash
# asterism generate on the embedded model.
passed=0 failed=0
has() # NAME PART TEXT
{
    if [[ $3 == *"$2"* ]]; then
        passed=$((passed + 1)); echo "ok $((passed + failed)) - $1"
    else
        failed=$((failed + 1)); echo "not ok $((passed + failed)) - $1"; echo "# want: ... $2 ..."; echo "# got:  $3"
    fi
}
generate() { "$ASTERISM" generate "$@" 2>&1; echo "exit $?"; }
prompt="Translate the following English sentence to German: 'The house is old.'\\n"
both=$(generate -m data/asterism-S -p "$prompt" --stop '\n')
has "the embedded model translates" $'\nDas Haus ist alt.\n' "$both"
has "dense stands beside AST" $'--- ast: ' "${both#*--- dense: }"
has "keys read, memory and time are said" "keys read 100.0 %, cache" "$both"
has "words look at what they translate" "Haus" "$(grep ' house ' <<<"$both")"
few=$(generate -m data/asterism-S -p "$prompt$prompt$prompt$prompt" --method dense --method 'ast keep=16 block=8 local=8' -n 8 --pairs 0)
has "a method takes options" "--- ast keep=16 block=8 local=8: " "$few"
less=$(sed -n 's/.*keys read \([0-9]*\)\..*/\1/p' <<<"$few" | tail -n 1)
has "and reads fewer keys" yes "$([ "$less" -lt 90 ] && [ "$less" -gt 10 ] && echo yes || echo "$less %")"
has "no pairs where none are asked for" "no" "$(grep -q 'looks most' <<<"$few" && echo yes || echo no)"
has "no more tokens than asked for" "dense: 2 tokens after" "$(generate -m data/asterism-S -p "$prompt" --max-new 2)"
draw() { generate -m data/asterism-S -p 'In the' --method dense -n 20 --pairs 0 --sample "$@" | grep -v -- --- | grep -v 'keys read'; }
has "the same seed draws the same text" "$(draw --seed 3)" "$(draw --seed 3)"
has "another seed another" differs "$([ "$(draw --seed 3)" != "$(draw --seed 4)" ] && echo differs)"
has "top-k of one is greedy" "$(draw --top-k 1)" "$(draw --top-k 1 --seed 9)"
has "beam search says what its text is worth" "worth -" "$(generate -m data/asterism-S -p "$prompt" --beam 4 --stop '\n' --method dense)"
json=$(generate -m data/asterism-S -p "$prompt" --stop '\n' --json)
has "JSON holds both texts" '{"method": "ast", "text": "Das Haus ist alt."' "$json"
has "JSON holds the pairs" '"written": "Haus", "prompt": "house", "share": 0.' "$json"
if command -v python3 >/dev/null; then
    has "and it is JSON" "['dense', 'ast']" "$(sed '/^exit/d' <<<"$json" | python3 -c 'import json, sys; print([r["method"] for r in json.load(sys.stdin)["results"]])' 2>&1)"
fi
has "an unknown method is named" "dence" "$(generate -m data/asterism-S -p x --method dence)"
has "an unknown option of a method is named" "keap" "$(generate -m data/asterism-S -p x --method 'ast keap=3')"
has "a missing gate file is named" "no/gates" "$(generate -m data/asterism-S -p x --method ast --gate no/gates)"
has "a missing model is one sentence" $'asterism: nowhere: No such file or directory\nexit 1' "$(generate -m nowhere -p x)"
has "a prompt that does not fit is refused" "exceed the model's context of 8192" "$(generate -m data/asterism-S -p x -n 8192)"
has "without a prompt the exit code is that of a usage error" "exit 2" "$(generate -m data/asterism-S)"
has "a number that is none" "exit 2" "$(generate -m data/asterism-S -p x --beam many)"
has "beams do not draw" "beam search does not draw" "$(generate -m data/asterism-S -p x --beam 2 --sample)"
echo "1..$((passed + failed))"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
