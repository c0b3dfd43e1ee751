#!/bin/bash
# asterism score: JSON for outputs that exist already, and one sentence for what is wrong.
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
score() { "$ASTERISM" score "$@" 2>&1; echo "exit $?"; }

printf '%s\n' 'The dog bit the man.' "It wasn't surprising." 'The man had just bitten him.' >"$dir/hyp"
printf '%s\r\n' 'The dog bit the man.' 'It was not unexpected.' 'The man bit him first.' >"$dir/a"
printf '%s\n' 'The dog had bit the man.' 'No one was surprised.' 'The man had bitten the dog.' | gzip >"$dir/b.gz"
both=$(score bleu --hyp "$dir/hyp" --ref "$dir/a" --ref "$dir/b.gz")
has "two references give sacreBLEU's score" '"score": 48.530827' "$both"
has "the signature says so" '"signature": "nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"' "$both"
has "counts are printed" '"counts": [14, 7, 5, 3]' "$both"
has "chrF2 is beside it" '"chrf2": 59.7275' "$both"
has "and the exit code is 0" 'exit 0' "$both"
has "one reference" '"score": 45.067506' "$(score bleu --hyp "$dir/hyp" --ref "$dir/a")"
cat >"$dir/ref.sgm" <<'T'
<refset setid="x"><doc docid="1">
<seg id="1">The dog bit the man.</seg>
<seg id="2">A &amp; B said &quot;no&quot;.</seg>
<SEG id="3"> The man bit him
first. </SEG>
</doc></refset>
T
printf '%s\n' 'The dog bit the man.' 'A & B said "no".' 'The man bit him first.' >"$dir/same"
has "SGM segments are read" '"score": 100' "$(score bleu --hyp "$dir/same" --ref "$dir/ref.sgm")"
head -n 2 "$dir/hyp" >"$dir/short"
has "a different number of lines is refused" 'has 2 segments' "$(score bleu --hyp "$dir/short" --ref "$dir/a")"
printf 'caf\351\n' >"$dir/latin"
has "Latin-1 is refused with its place" 'latin:1: byte 3 (0xe9) is not UTF-8' "$(score bleu --hyp "$dir/latin" --ref "$dir/a")"
has "a missing file is named" 'no/such/file' "$(score bleu --hyp no/such/file --ref "$dir/a")"
has "an option without a value" 'exit 2' "$(score bleu --hyp)"

cat >"$dir/pred.jsonl" <<'T'
{"prediction": "Sinclair Lewis.", "aliases": ["sinclair lewis"]}
{"prediction": "the United States of America", "aliases": ["united states", "usa"]}

{"prediction": "Paris\nand more", "aliases": ["paris"]}
{"prediction": "", "aliases": ["x"]}
T
qa=$(score triviaqa --pred "$dir/pred.jsonl")
has "exact match as the official scorer" '"exact_match": 25,' "$qa"
has "F1 as the official scorer" '"f1": 54.1666666' "$qa"
has "LongBench reads the first line" '"f1_longbench": 66.6666666' "$qa"
has "the harness stops at the newline" '"em_lmeval": 50,' "$qa"
has "blank lines do not count" '"denominator": 4' "$qa"
echo '{"prediction": "x"}' >"$dir/bad.jsonl"
has "a line without aliases is named" 'bad.jsonl line 1' "$(score triviaqa --pred "$dir/bad.jsonl")"
has "what to do is said when nothing is asked for" 'exit 2' "$(score)"
echo "1..$((passed + failed))"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
