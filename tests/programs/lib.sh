# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# What the scripts in tests/programs share, besides tests/mount/lib.sh: real programs on a mount, undisturbed and with crashes. A script has a
# part for each program, which prints a line with its result. `make check-programs` runs them; docs/PROGRAMS.md says what came out.
. "$(dirname "${BASH_SOURCE[0]}")/../mount/lib.sh"
needs_root
set_seed
PROGRAMS_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
LIMIT=${LIMIT:-900}

# crash_kind kill|power: what `crash` and `restart` are from the next start on: SIGKILL of the daemon, or SIGKILL of one whose disk loses what was
# not synced, but for random sectors.
PLAIN_MOUNT=$AEROFS_MOUNT
crash_kind() {
    AEROFS_MOUNT=$PLAIN_MOUNT START_OPTIONS=("${PROGRAM_OPTIONS[@]}")
    if [ "$1" = power ]; then
        [ -n "${AEROFS_POWERCUT:-}" ] || fail 'AEROFS_POWERCUT is not set: run make check-programs'
        AEROFS_MOUNT=$AEROFS_POWERCUT START_OPTIONS+=(--survive "$SEED")
    fi
}
PROGRAM_OPTIONS=() # of the mount
# A new store, mounted.
fresh() {
    [ -z "$(mounts_here)" ] || stop
    rm -rf "$STORE"
    start "$@"
}
# client COMMAND…: runs it in the background, in a session of its own, as $CLIENT.
client() {
    setsid "$@" &
    CLIENT=$!
}
# cut_off: the daemon is killed, then its client with all its children, which must not go on with the next mount; then it is mounted again.
cut_off() {
    crash
    kill -KILL -- "-$CLIENT" 2>/dev/null || true
    wait "$CLIENT" 2>/dev/null || true
    find "$MNT" -mindepth 1 -delete # what the client wrote after the mount was gone
    start
}
passed() { say "ok: $*"; }
