#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# A daemon under load from many threads, with checkpoints, snapshots, kills and unmounts: for the builds with a sanitizer, whose reports it
# collects (make check-mount-asan, check-mount-tsan). In the release build it only loads.
#   DEEP=1: ten times the operations
. "$(dirname "$0")/lib.sh"
needs_root
set_seed
crowd=$(helper crowd)
coherence=$(helper coherence)
factor=$((DEEP ? 10 : 1))
export LIMIT=1200

# The daemon stays in the foreground: its exit code and what it says on stderr are looked at, leaks at its end included.
launch() {
    local create=()
    [ -e "$STORE/superblock" ] || create=(--create)
    # A small cache and log: evictions and checkpoints all the time.
    "$AEROFS_MOUNT" -f "${create[@]}" -o cache=2M,log=4M "$STORE" "$MNT" >said 2>&1 &
    DAEMON=$!
    DAEMONS+=("$DAEMON")
    wait_for 120 mountpoint -q "$MNT" || broken 'not mounted after 120 s'
}
broken() { # WHAT: fails, with what the daemon has said
    wait_for 5 gone "$DAEMON" || true
    grep -v '^aerofs: log segment' said | head -n 150 >&2
    fail "$*"
}
finish() {
    limited umount "$MNT" || broken 'umount failed'
    wait "$DAEMON" || broken "the daemon ends with exit code $?"
    ! grep -qE 'runtime error|Sanitizer' said || broken 'the sanitizer reports'
}

# What runs beside the load until it is ended: snapshots come and go, status is asked for.
beside() {
    local i=0
    while :; do
        i=$((i + 1))
        mkdir "$MNT/.aerofs/snapshots/s$i" 2>/dev/null || true
        "$AEROFS" status "$MNT" >/dev/null 2>&1 || true
        ls -R "$MNT/.aerofs/snapshots/s$i" >/dev/null 2>&1 || true
        rmdir "$MNT/.aerofs/snapshots/s$i" 2>/dev/null || true
        sleep 0.1
    done
}

load() { # DIRECTORY
    local one many pid
    mkdir -p "$MNT/$1/one" "$MNT/$1/many" "$MNT/$1/coherence"
    beside 2>/dev/null &
    pid=$!
    limited "$crowd" mix "$MNT/$1/one" 32 $((20 * factor)) "$SEED" one &
    one=$!
    limited "$crowd" mix "$MNT/$1/many" 32 $((20 * factor)) "$SEED" many &
    many=$!
    limited "$coherence" "$MNT/$1/coherence" || broken "coherence: exit code $?"
    wait $one || broken "32 threads in one directory: exit code $?"
    wait $many || broken "32 threads in many directories: exit code $?"
    kill $pid
    wait $pid || true
}

for round in 1 2; do
    launch
    load "round$round"
    say "round $round: $(status_of checkpoints) checkpoints"
    sync "$MNT"
    list_tree "$MNT" >before
    if [ $round = 1 ]; then
        kill -KILL "$DAEMON"
        wait "$DAEMON" || true
        umount -l "$MNT"
        launch
        list_tree "$MNT" | diff before - || broken 'the tree differs after a kill'
    fi
    finish
    check_store
done
