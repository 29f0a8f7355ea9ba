#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Messages influence nothing: a daemon whose messages cannot be written (a full disk, a pipe that nobody reads, a closed descriptor) and
# one whose metrics are read all the time do what another does: the same answers, the same tree, the same log.
. "$(dirname "$0")/lib.sh"

# What a client sees, and what the log holds afterwards (times and random numbers apart).
work() {
    local i
    for i in $(seq 60); do
        echo "value $i" >"$MNT/k$i" && sync "$MNT/k$i" && echo "acknowledged $i"
        [ $((i % 7)) -ne 0 ] || rm "$MNT/k$i"
        [ $((i % 10)) -ne 0 ] || mkdir "$MNT/d$i"
        [ $((i % 20)) -ne 0 ] || mkdir "$MNT/.aerofs/snapshots/s$i"
    done
    { cat "$MNT/none" || mkdir "$MNT/k1" || true; } 2>&1 | sed 's|.*: ||'
    (cd "$MNT" && find . -printf '%P %y %m %n %s %i\n' | sort && cat k1 k60)
}
operations() { limited "$AEROFS" log --all "$STORE" | sed -n 's/.* operation *\([a-z ]*\).*/\1/p' | cut -c1-24; }

# foreground REDIRECTION…: mounts in the foreground with the redirections of a shell, and waits for the mount.
foreground() {
    rm -rf "$STORE"
    mkdir -p "$STORE"
    bash -c "exec \"\$0\" -f --create \"\$1\" \"\$2\" $1" "$AEROFS_MOUNT" "$STORE" "$MNT" &
    wait_for 20 mountpoint -q "$MNT" || fail "not mounted with $1"
    wait_for 5 test -s "$STORE/lock" || fail "no lock with $1"
    note_daemon "$STORE"
}

run_with() { # NAME REDIRECTION
    foreground "$2"
    limited work >"answers.$1" || fail "the work fails with $1"
    crash # and recovery says something, too
    bash -c "exec \"\$0\" -f \"\$1\" \"\$2\" $2" "$AEROFS_MOUNT" "$STORE" "$MNT" &
    wait_for 20 mountpoint -q "$MNT" || fail "not mounted again with $1"
    note_daemon "$STORE"
    (cd "$MNT" && find . -printf '%P %y %m %n %s %i\n' | sort && cat k1 k60) >"tree.$1"
    stop
    operations >"log.$1"
    check_store
}

run_with file '2>said'
[ -s said ] || fail "nothing was said at all"
[ "$(grep -c acknowledged answers.file)" -eq 60 ] || fail "not all was acknowledged"
[ "$(wc -l <log.file)" -gt 60 ] || fail "the log of the first run has $(wc -l <log.file) operations"
run_with full '2>/dev/full >/dev/full'
run_with closed '2>&- >&-'
# A reader that has gone: every message is EPIPE, and would be SIGPIPE.
run_with pipe '2> >(exec 0<&-; exit 0)'
for name in full closed pipe; do
    for what in answers tree log; do
        cmp -s "$what.file" "$what.$name" || fail "$what differs with messages to $name: $(diff "$what.file" "$what.$name" | head -n 4)"
    done
done

# Metrics and status read without end.
foreground '2>said'
(while cat "$MNT/.aerofs/metrics" "$MNT/.aerofs/status.json" >/dev/null 2>&1; do :; done) &
reader=$!
limited work >answers.read
kill $reader 2>/dev/null && wait $reader 2>/dev/null || true
stop
cmp -s answers.file answers.read || fail "the answers differ while metrics are read"
check_store
