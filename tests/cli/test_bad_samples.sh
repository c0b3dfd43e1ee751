#!/bin/bash
# One bad sample never stops a job: the others are scored, what was wrong is named, the exit code says that samples failed.
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
mkdir -p "$dir/evidence/wikipedia"
echo 'Ann was born in Rome.' >"$dir/evidence/wikipedia/good.txt"
printf 'caf\351\n' >"$dir/evidence/wikipedia/latin.txt"
question() { printf '{"Question": "%s", "QuestionId": "%s", "EntityPages": [{"Filename": "%s"}], "Answer": {"Value": "Rome"}}' "$@"; }
printf '\357\273\277{"Data": [%s, %s, %s, %s]}' "$(question 'Where was Ann born?' q0 good.txt)" "$(question 'Where?' q1 latin.txt)" \
    "$(question '' q2 good.txt)" "$(question 'Where?' q3 none.txt)" >"$dir/q.json"
{ echo 'The house is old.'; for i in $(seq 400); do printf 'and so on '; done; echo; echo 'The dog is big.'; } >"$dir/a.en"
printf 'Das Haus ist alt.\nUnd so weiter.\nDer Hund ist groß.\n' >"$dir/a.de"
cat >"$dir/job.cfg" <<T
name = "bad"; output = "$dir/bad.h5";
models = ( { path = "data/asterism-S"; } );
methods = ( { method = "dense"; }, { method = "window"; keep = 64; } );
tasks = ( { task = "triviaqa"; data = "$dir/q.json"; lengths = [256]; max_new = 8; },
          { task = "wmt14"; source = "$dir/a.en"; reference = "$dir/a.de"; lengths = [256]; max_new = 16; compare = true; } );
T
out=$("$ASTERISM" run "$dir/job.cfg" 2>&1; echo "exit $?")
has "the exit code says that samples failed" "exit 3" "$out"
has "the table says how many" "3 of 4 samples FAILED" "$out"
has "in each task" "1 of 3 samples FAILED" "$out"
shown=$("$ASTERISM" show "$dir/bad.h5" 2>&1)
has "Latin-1 text with its file, line and byte" "question q1: " "$(grep 'latin.txt:1: byte 3 (0xe9) is not UTF-8' <<<"$shown")"
has "the empty question" "question q2 is empty" "$shown"
has "the missing document" "none.txt" "$shown"
has "the sentence that is too long" "sentence 2 has" "$shown"
has "the others are scored, and compared with dense attention" "top1_agreement" "$(grep ' wmt14 .* window ' <<<"$shown")"
echo "1..$((passed + failed))"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
