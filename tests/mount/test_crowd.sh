#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Many clients at once: 64 threads in one directory and in many; nobody waits for another one's fsync, no reader for a checkpoint; a
# client that is killed in an fsync leaves nothing behind; memory does not grow with lookups.
#   DEEP=1: ten times the operations, 10,000,000 lookups
. "$(dirname "$0")/lib.sh"
needs_root
set_seed
crowd=$(helper crowd)
factor=$((DEEP ? 10 : 1))

# below WHAT LIMIT FOUND: milliseconds
below() {
    say "$1: ${3:-nothing} ms"
    [ "${3:-999999}" -le "$2" ] || fail "$1: $3 ms, more than $2"
}

# ---- 64 threads ----

start
for where in one many; do
    mkdir "$MNT/$where"
    LIMIT=240 limited "$crowd" mix "$MNT/$where" 64 $((40 * factor)) "$SEED" $where || fail "64 threads, $where: exit code $?"
    sync "$MNT"
    before=$(list_tree "$MNT/$where" | md5sum)
    restart
    same "64 threads, $where: after a kill" "$before" "$(list_tree "$MNT/$where" | md5sum)"
done
stop
check_store

# ---- behind the fsync of others ----

if [ -n "${AEROFS_POWERCUT:-}" ]; then
    hold_ms=500
    AEROFS_MOUNT=$AEROFS_POWERCUT start --delay-us $((hold_ms * 1000))
    mkdir "$MNT/a" "$MNT/b"
    limited "$crowd" fsync "$MNT/a" 16 5 >shortest 2>fsync.err &
    syncing=$!
    sleep 0.3
    for dir in a b; do # beside them, and in a directory of its own
        longest=$(limited "$crowd" calls "$MNT/$dir" 700 2>calls.err) || fail "$(cat calls.err)"
        below "calls in $dir during the fsyncs of others, the longest" 250 "$longest"
    done
    wait $syncing || fail "$(cat fsync.err)"
    [ "$(cat shortest)" -ge $((hold_ms - 100)) ] || fail "an fsync took $(cat shortest) ms only: this tests nothing"

    # Killed in an fsync: the process ends with the answer of the disk; its file, directory and the store are as free as before.
    "$crowd" fsync "$MNT/b" 4 100 >/dev/null 2>&1 &
    killed=$! && disown
    sleep 0.5
    kill -KILL $killed
    wait_for 20 gone $killed || fail 'a client killed in fsync does not end'

    limited "$crowd" calls "$MNT/b" 100 >/dev/null || fail 'after a client was killed in fsync'
    for t in 0 1 2 3; do limited rm "$MNT/b/fsync-$t-0"; done
    limited sync "$MNT/b"
    wait_for 10 eval '[ "$(status_of open_files)" = 0 ]' || fail "open files of a killed client: $(status_of open_files)"
    limited umount "$MNT" || fail 'busy after a client was killed in fsync'
    wait_for 60 gone "$DAEMON"
    check_store

    # ---- behind a checkpoint ----

    # Its syncs take a second each, the log is small, 32 writers fill it and wait for room.
    rm -rf "$STORE"
    AEROFS_MOUNT=$AEROFS_POWERCUT start --slow-sync-us 1000000 -o log=1M,cache=1M
    head -c 20000000 /dev/urandom >"$MNT/cold"
    sync "$MNT"
    before=$(status_of checkpoints)
    limited "$crowd" write "$MNT" 32 200000 4 >written 2>write.err &
    writing=$!
    sleep 0.7
    limited "$crowd" read "$MNT/cold" 2500 4096 >small 2>read.err &
    small=$!
    longest=$(limited "$crowd" read "$MNT/cold" 2500 262144 2>read2.err) || fail "$(cat read2.err)"
    wait $small || fail "$(cat read.err)"
    below 'reads of 4 KiB during checkpoints, the longest' 500 "$(cat small)"
    below 'reads of 256 KiB during checkpoints, the longest' 500 "$longest"
    wait $writing || fail "$(cat write.err)"
    say "$(cat written) files written meanwhile, $(($(status_of checkpoints) - before)) checkpoints"
    [ "$(status_of checkpoints)" -gt "$before" ] || fail 'no checkpoint meanwhile: this tests nothing'
    limited umount "$MNT"
    wait_for 60 gone "$DAEMON"
    check_store
fi

# ---- lookups ----

# Each name, there or not, is looked up by the daemon once, and forgotten by the kernel when its caches are dropped (by a remount, which drops
# those of this mount alone).
rm -rf "$STORE"
export ASAN_OPTIONS="$ASAN_OPTIONS:quarantine_size_mb=1" # else what is freed counts as memory
start
for i in {0..9999}; do : >"$MNT/$i"; done
memory() { awk '/^VmRSS/ { print $2 }' "/proc/$DAEMON/status"; }
rounds=$((DEEP ? 500 : 10)) each=20000
look() {
    limited "$crowd" lookup "$MNT" $each
    mount -i -o remount,rw "$MNT"
}
look
before=$(memory) hits=$(status_of cache_hits)
for ((r = 0; r < rounds; r++)); do look; done
say "memory before and after $((rounds * each)) lookups: $before and $(memory) KiB"
[ $(($(status_of cache_hits) - hits)) -ge $((rounds * each)) ] || fail "only $(($(status_of cache_hits) - hits)) lookups have reached the daemon"
[ $(($(memory) - before)) -le 2048 ] || fail "memory grew from $before to $(memory) KiB"
stop
check_store
