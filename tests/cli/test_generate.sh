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
has "the embedded model translates" $'\nDas Haus ist alt.\nexit 0' "$(generate -m data/asterism-S -p "$prompt" --stop '\n')"
has "no more tokens than asked for" "dense: 2 tokens after" "$(generate -m data/asterism-S -p "$prompt" -n 2)"
has "two methods stand one below the other" "dense: 1 tokens" "$(generate -m data/asterism-S -p x -n 1 --method dense --method dense | tail -n 3)"
has "an unknown method is named" "dence" "$(generate -m data/asterism-S -p x --method dence)"
has "a missing model is one sentence" $'asterism: nowhere: No such file or directory\nexit 1' "$(generate -m nowhere -p x)"
has "a prompt that does not fit is refused" "exceed the model's context of 8192" "$(generate -m data/asterism-S -p x -n 8192)"
has "without a prompt the exit code is that of a usage error" "exit 2" "$(generate -m data/asterism-S)"
echo "1..$((passed + failed))"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
