#!/bin/bash
# Runs test commands, one a line on standard input ("name<TAB>seconds<TAB>command"), adds up their closing lines and
# ends with the only bare "N passed, N failed, N skipped". A command without a closing line, or with a non-zero exit
# after a good one, is one more failure. What failed is quoted behind "# ".
passed=0 failed=0 skipped=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
start=$(date +%s)
while IFS=$'\t' read -r name limit command; do
    [ -n "$command" ] || continue
    t0=$(date +%s)
    timeout -k 10 "$limit" bash -c "$command" </dev/null >"$log" 2>&1
    rc=$?
    line=$(grep -E '^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$' "$log" | tail -n 1)
    p=0 f=0 s=0
    if [ -n "$line" ]; then
        p=$(sed -E 's/^([0-9]+) passed.*/\1/' <<<"$line")
        f=$(sed -E 's/.* ([0-9]+) failed.*/\1/' <<<"$line")
        [[ $line == *skipped ]] && s=$(sed -E 's/.* ([0-9]+) skipped.*/\1/' <<<"$line")
    fi
    if [ -z "$line" ] || { [ $rc -ne 0 ] && [ "$f" = 0 ]; }; then
        f=$((f + 1))
        if [ $rc = 124 ] || [ $rc = 137 ]; then echo "# $name: ended after $limit s"; else echo "# $name: exit $rc"; fi
        tail -n 30 "$log" | sed 's/^/#   /'
    fi
    printf '%-44s %4d passed, %d failed, %d skipped  (%d s)\n' "$name" "$p" "$f" "$s" $(($(date +%s) - t0)) | sed 's/^/  /'
    grep -E '^not ok|^# .*:[0-9]+: ' "$log" | head -n 40 | sed 's/^/#   /'
    grep -E '# SKIP' "$log" | sed 's/^/#   /'
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
done
echo "all tests took $(($(date +%s) - start)) s"
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ] && [ $passed -gt 0 ]
