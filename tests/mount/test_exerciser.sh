#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The exerciser (tests/posix/exerciser.c): random work on several files by several descriptors and maps, every byte compared, with
# remounts and kills of the daemon in between; on the real daemon and, with half of the time, on a disk with a volatile cache, where a kill is a
# power cut.
#   SECONDS_EACH=900 AEROFS_TEST_SEED=7 tests/mount/test_exerciser.sh      (make exercise MINUTES=15)
. "$(dirname "$0")/lib.sh"
set_seed
seconds=${SECONDS_EACH:-$((DEEP ? 300 : 8))}
powercut=${AEROFS_POWERCUT:-$TEST_TOP/build/powercut-mount}
[ -x "$powercut" ] || fail "$powercut is not built: make powercut"
read -ra cc <<<"${CC:-cc}"
"${cc[@]}" -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -I"$TEST_TOP" -o bin/exerciser "$TEST_TOP"/tests/posix/exerciser{,_model}.c

# What the exerciser calls.
export STORE MNT MOUNT_PROGRAM
cat >bin/kill.sh <<'EOF'
kill -KILL "$(sed 's/ .*//' "$STORE/lock")"
EOF
# A daemon that was killed leaves its mount; the next one waits until it has let go of the store.
cat >bin/mount.sh <<'EOF'
umount -l "$MNT" 2>/dev/null
exec $MOUNT_PROGRAM -o commit_open=0 "$STORE" "$MNT" >>"$TEST_DIR/mounts" 2>&1
EOF
cat >bin/remount.sh <<'EOF'
pid=$(sed 's/ .*//' "$STORE/lock")
# Somebody who looks around the machine may hold it for a moment.
for try in 1 2 3 4 5 6 7 8 9 10; do
    umount "$MNT" && break
    [ $try -lt 10 ] || exit 1
    sleep 0.3
done
while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
exec sh bin/mount.sh
EOF

# exercise SECONDS PROGRAM…: a new store, mounted by the program. The exit code of the exerciser is $code.
exercise() {
    local time=$1
    shift
    MOUNT_PROGRAM="$*"
    rm -rf "$STORE"
    start -o commit_open=0
    stop
    sh bin/mount.sh || fail "$(tail -n 1 mounts)"
    code=0
    LIMIT=$((time + 120)) limited bin/exerciser --seed "$SEED" --seconds "$time" --kill 'sh bin/kill.sh' --mount 'sh bin/mount.sh' \
        --remount 'sh bin/remount.sh' "$MNT" >out 2>err || code=$?
    note_daemon "$STORE"
}
finds_nothing() {
    exercise "$@"
    [ $code -eq 0 ] || fail "exit code $code of the exerciser on ${*:2}: $(tail -n 80 err)"
    tail -n 1 out
    stop
    check_store
}

finds_nothing "$seconds" "$AEROFS_MOUNT"
finds_nothing $((seconds / 2)) "$powercut --survive $SEED"

# One that cannot fail is none: a disk whose syncs lie loses what was acknowledged.
exercise 60 "$powercut --lie log"
same 'exit code where syncs lie' 1 $code
grep -q 'are no moment of their history' err || fail "$(tail -n 5 err)"
