#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Only what lies in the store counts, and only fsync: a store in which nothing was ever unmounted; whose mount was detached before the kill,
# so that no handler of an end ran; whose directory alone was copied and is mounted in other mount, network and process namespaces; and
# one fsync over everything done to a file through several descriptors, on a disk that loses all else (powercut-mount).
. "$(dirname "$0")/lib.sh"
needs_root
needs unshare
set_seed
rounds=${ROUNDS:-$((DEEP ? 60 : 3))}
writers=$(helper writers)
powercut=${AEROFS_POWERCUT:-$TEST_TOP/build/powercut-mount}

# ---- no unmount, no handler ----

mkdir journals
for ((round = 1; round <= rounds; round++)); do
    start -o log=4M
    "$writers" run "$MNT" "$TEST_DIR/journals" 4 "$SEED" all &
    pid=$!
    sleep_ms $((200 + RANDOM % 800))
    ((round % 2)) || fusermount3 -uz "$MNT" # the mount goes, the daemon is still there for who has it open
    kill -KILL "$DAEMON"
    wait_for 20 gone "$DAEMON" || fail 'the daemon does not die'
    wait $pid || ((round % 2 == 0)) || fail "a writer failed (seed $SEED)"
    while mounts_here | grep -qxF "$MNT"; do umount -l "$MNT"; done
    start -o log=4M
    limited "$writers" verify "$MNT" "$TEST_DIR/journals" 4 "$SEED" || fail "round $round (seed $SEED)"
    crash
    check_store
done

# ---- elsewhere ----

start
limited sync "$MNT"
before=$(list_tree "$MNT" | md5sum)
crash
cp -a --sparse=always "$STORE" "$TEST_DIR/copy"
rm "$TEST_DIR/copy/lock"
mkdir "$TEST_DIR/elsewhere"
cat >elsewhere.sh <<'ELSEWHERE'
set -eu
mount -t proc proc /proc
env -i PATH="$PATH" "$1" "$2" "$3" >/dev/null
cd "$3"
find . -mindepth 1 ! -type d -printf "%P %y %m %U:%G %l \n" -o -printf "%P %y %m %U:%G\n" | sort
find . -type f -size -100M -print0 | sort -z | xargs -0 -r sha256sum
cd / && umount "$3"
ELSEWHERE
there=$(limited unshare --mount --net --ipc --uts --pid --fork --kill-child sh elsewhere.sh "$AEROFS_MOUNT" "$TEST_DIR/copy" "$TEST_DIR/elsewhere" | sed 's/ *$//' | md5sum) ||
    fail 'the copy does not mount elsewhere'
start
same 'the tree' "$before" "$(list_tree "$MNT" | md5sum)"
same 'the copy, in other namespaces' "$(list_tree "$MNT" | sed 's/ *$//' | md5sum)" "$there"
crash

# ---- one fsync ----

[ -x "$powercut" ] || fail "$powercut is not built: make powercut"
one_fsync=$(helper one_fsync)
for ((round = 1; round <= rounds; round++)); do
    rm -rf "$STORE"
    limited "$powercut" --create "$STORE" "$MNT" >/dev/null || fail 'powercut-mount'
    DAEMON=$(holder_of "$STORE")
    DAEMONS+=("$DAEMON")
    echo 'a close promises nothing' >"$MNT/closed"
    limited "$one_fsync" "$MNT" || fail 'a call failed'
    echo 'nor does this one' >"$MNT/unsynced"
    kill -KILL "$DAEMON"
    wait_for 20 gone "$DAEMON"
    umount -l "$MNT"
    start
    same 'what one fsync covers' 'AAAABBBBCCCCDDDDmapped' "$(tr -d '\0' <"$MNT/name")"
    same 'its size' 24 "$(stat -c %s "$MNT/name")"
    same 'what was completed before it' 'a close promises nothing' "$(cat "$MNT/closed")"
    [ ! -e "$MNT/temporary" ] || fail 'the old name is there'
    [ ! -e "$MNT/unsynced" ] || fail 'the disk has lost nothing: this test shows nothing'
    crash
done
