#!/bin/bash
# A disk that is full, at any moment: nothing wrong is published, nothing finished is lost, and with room again the same
# command completes the job with the same results. Needs a small file system of its own (mount).
passed=0 failed=0
dir=$(mktemp -d)
disk=$dir/disk
mkdir "$disk"
skip() { echo "ok 1 - a full disk # SKIP skipped: $1"; echo "0 passed, 0 failed, 1 skipped"; rm -rf "$dir"; exit 0; }
mount -t tmpfs -o size=64k none "$disk" 2>/dev/null || skip "no permission to mount"
trap 'umount "$disk"; rm -rf "$dir"' EXIT
cat >"$dir/job.cfg" <<T
name = "full";
models = ( { path = "data/asterism-S"; } );
methods = ( { method = "dense"; } );
tasks = ( { task = "wikitext"; name = "english"; data = "data/samples/english.txt"; lengths = [24, 48]; limit = 9; } );
run = { threads = 1; batch_tokens = 96; shard_s = 0.01; beat_s = 0.2; dead_s = 20.0; };
T
ok() { local name=$1; shift; if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "not ok - $name"; tail -n 8 "$dir/log" | sed 's/^/#   /'; fi; }
run() { timeout 150 mpirun --oversubscribe -np "$1" "$ASTERISM" run "$dir/job.cfg" "output=$2" >"$dir/log" 2>&1 </dev/null; rc=$?; }
same() { h5diff --exclude-path /timing --exclude-path /environment "$dir/good.h5" "$disk/o.h5" >"$dir/log" 2>&1; }
run 1 "$dir/good.h5"
ok "with room (exit code $rc)" [ $rc = 0 ]

stopped=0
for size in 24 56 ${AST_KILLS:+80 100 120} 140 ${AST_KILLS:+160 180}; do
    rm -rf "$disk"/*
    mount -o remount,size=${size}k "$disk"
    run 3 "$disk/o.h5"
    if [ $rc = 0 ]; then
        ok "$size KiB: what is published is whole" same
        continue
    fi
    stopped=$((stopped + 1))
    ok "$size KiB: exit code 75 or 1 (is $rc)" [ $rc = 75 -o $rc = 1 ]
    ok "$size KiB: the reason is said" grep -qi 'space\|full\|cannot' "$dir/log"
    [ -e "$disk/o.h5" ] && ok "$size KiB: what is published is readable" h5dump -H "$disk/o.h5" >/dev/null
    kept=$(ls "$disk"/o.h5.shards/*.shard 2>/dev/null | wc -l)
    mount -o remount,size=16m "$disk"
    run 2 "$disk/o.h5"
    ok "$size KiB: with room the same command completes (exit code $rc)" [ $rc = 0 ]
    [ "$kept" -gt 0 ] && ok "$size KiB: nothing that was finished is computed again" grep -q "($kept files)" "$dir/log"
    ok "$size KiB: with the same results" same
done
ok "the disk was full in the middle" [ $stopped -gt 1 ]
echo "$passed passed, $failed failed"
[ $failed = 0 ]
