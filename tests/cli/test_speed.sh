#!/bin/bash
# `asterism speed` on the embedded model: a line a phase on one rank and on two, the all-reduces' share among them.
passed=0 failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
ok() { local name=$1; shift; if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "not ok - $name"; tail -n 5 "$log" | sed 's/^/#   /'; fi; }
run() { local np=$1; shift; timeout 150 mpirun --oversubscribe -np "$np" "$ASTERISM" speed "$@" >"$log" 2>&1 </dev/null; rc=$?; }
share() { awk -v p="$1" '$1 == p && $2 == n { print ($7 > 0) }' n="$2" "$log"; }

run 1 -m data/asterism-S --tokens 40 --new 3 --runs 1
ok "one rank runs (exit code $rc)" [ $rc = 0 ]
ok "alone there is nothing to reduce" [ "$(share prefill 1)$(share decode 1)" = 00 ]
run 2 -m data/asterism-S --tokens 40 --new 3 --runs 1
ok "two ranks run (exit code $rc)" [ $rc = 0 ]
ok "the all-reduces of two ranks take time" [ "$(share prefill 2)$(share decode 2)" = 11 ]
run 1 -m data/asterism-S --tokens 0
ok "a prompt without tokens is refused (exit code $rc)" [ $rc = 2 ]
run 2 -m /nonexistent
ok "a missing model is an error (exit code $rc)" [ $rc = 1 ]
echo "$passed passed, $failed failed"
[ $failed = 0 ]
