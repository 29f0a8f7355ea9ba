#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The switches of the optimizations at the mount: the same calls with the same answers, trees and kinds of files with each off, all off,
# each alone, and changing from mount to mount with kill -9 between; what insists is refused where it cannot be had; nothing
# changes while mounted; and no option takes durability or a check away.
. "$(dirname "$0")/lib.sh"
needs_root
powercut=${AEROFS_POWERCUT:-$TEST_TOP/build/powercut-mount}
[ -x "$powercut" ] || fail "$powercut is not built: make powercut"

mapfile -t names < <("$AEROFS_MOUNT" --help | sed -n 's/^  \[no-\]\([a-z-]*\): .*/\1/p')
[ "${#names[@]}" -ge 8 ] || fail "--help names ${#names[@]} switches"

# ---- options and status ----

joined=$(IFS=, && printf '%s' "${names[*]}")
start
same 'switched_off' none "$(status_of switched_off)"
# No toggling: what is mounted keeps its switches, whatever a remount asks for.
mount -o remount,baseline "$MNT" 2>/dev/null || true
same 'switched_off after a remount' none "$(status_of switched_off)"
stop
start -o baseline
same 'switched_off with baseline' "$joined" "$(status_of switched_off)"
same 'io with baseline' 'plain, cached' "$(status_of io)"
stop
start -o "baseline,group-commit,no-group-commit,${names[1]}"
same 'the last word counts' "$(IFS=, && printf '%s' "${names[0]},${names[*]:2}")" "$(status_of switched_off)"
stop
start -o no-uring,no-direct
same 'io without uring and direct' 'plain, cached' "$(status_of io)"
stop
exits 2 "unknown option 'no-such-thing'" "$AEROFS_MOUNT" -o no-such-thing "$STORE" "$MNT"

# ---- what insists ----

mkdir ram
mount -t ramfs none ram || fail 'cannot mount a ramfs' # which takes no O_DIRECT
exits 17 'with -o direct .*does not take O_DIRECT' "$AEROFS_MOUNT" --create -o direct ram "$MNT"
umount ram
start -o uring,direct
same 'io with uring and direct' 'uring, direct' "$(status_of io)"
stop

# ---- unsafe words ----

for word in nobarrier no-fsync no-sync nosync async_commit commit_delay=10 relaxed no-checksum no-checksums no-verify nolog no-log \
    no-wal data=writeback writeback writeback_cache no-durability fast unsafe; do
    exits 2 "unknown option '" "$AEROFS_MOUNT" -o "$word" "$STORE" "$MNT"
done

# ---- the same answers ----

answer() { # COMMAND…: its exit code and what it says
    local out code=0
    out=$("$@" 2>&1) || code=$?
    printf '%s | %s | %s\n' "$*" "$code" "${out//$MNT/MNT}"
}
steps() { # PART: some calls of all kinds; what they answer
    local n=$1 d="$MNT/part$1"
    answer mkdir "$d"
    answer mkdir "$d"
    answer sh -c "echo one$n >'$d/a' && cat '$d/a'"
    answer sh -c "echo two >'$d/a'; echo three >>'$d/a'; cat '$d/a'"
    answer ln "$d/a" "$d/link"
    answer mv "$d/a" "$d/b"
    answer cat "$d/a"
    answer stat -c '%s %h %F' "$d/b" "$d/link"
    answer chmod 640 "$d/b"
    answer stat -c %a "$d/link"
    answer sh -c "yes $n | head -c 300000 >'$d/big' && sha256sum <'$d/big'"
    answer dd if=/dev/zero of="$d/big" bs=4096 seek=3 count=2 conv=notrunc status=none
    answer truncate -s 150001 "$d/big"
    answer sh -c "sha256sum <'$d/big'"
    answer ln -s b "$d/sym"
    answer readlink "$d/sym"
    answer cat "$d/sym"
    answer rmdir "$d"
    answer mkdir "$d/sub"
    answer mv "$d/b" "$d/sub"
    answer mv "$d/sub" "$d/big"
    answer rm "$d/nothing"
    answer rm "$d/link"
    answer rmdir "$d/sub"
    answer sh -c "cat '$d/.' >/dev/null"
    answer ls "$d"
    answer touch "$d/$(printf 'x%.0s' {1..300})"
    answer sync "$d/big"
    answer sync "$d"
}
kinds_of_files() { # what lies in the store, but for how many segments there are
    (cd "$STORE" && find . -mindepth 1 -printf '%P %y %m\n' | sed 's/^wal\/[0-9a-f]\{16\}\.seg /wal\/N.seg /' | sort -u)
}
run() { # OPTIONS AFTER-A-KILL: prints answers and trees
    rm -rf "$STORE"
    start -o "$1"
    steps 1
    crash
    start -o "$2"
    list_tree "$MNT"
    steps 2
    crash
    start -o "$1"
    list_tree "$MNT"
    steps 3
    stop
    check_store
    kinds_of_files
    start -o "$2"
    list_tree "$MNT"
    stop
}
run defaults defaults >answers.on
runs=1
# The choices that the simulated disk does not see (tests/crash/test_equivalence.c runs the others), off and alone, then all.
for choice in no-uring no-direct no-kernel-cache no-read-ahead baseline,uring,direct baseline,kernel-cache baseline; do
    run "$choice" defaults >answers
    cmp answers.on answers || fail "$choice: $(diff answers.on answers | head -n 5)"
    runs=$((runs + 1))
done
run defaults baseline >answers
cmp answers.on answers || fail "recovered by the baseline: $(diff answers.on answers | head -n 5)"
say "$((runs + 1)) runs, 3 mounts, 2 kills and $(grep -c ' | ' answers.on) answers each: equal"

# ---- nothing takes durability or checks away ----

grid=(defaults ro baseline sync async commit_open=0 cache=1M log=1M size=64M "cache=1M,log=1M,commit_open=0,async")
for name in "${names[@]}"; do
    grid+=("no-$name")
done
rm -rf "$STORE"
start
mark="a mark that stands once: $RANDOM$RANDOM"
head -c 200000 /dev/urandom >"$MNT/rotten"
printf '%s' "$mark" | dd of="$MNT/rotten" bs=1 seek=81920 conv=notrunc status=none
stop
at=$(grep -abo -m 1 "$mark" "$STORE/data" | head -n 1 | cut -d: -f1)
flip "$STORE/data" "$at"
real=$AEROFS_MOUNT
cp "$powercut" bin/aerofs-mount-powercut # by which lib.sh knows a daemon
for choice in "${grid[@]}"; do
    # kill -9 of powercut-mount is a power cut: what an fsync has promised is there, whatever the options are. A rotten byte is an error
    # with every option.
    AEROFS_MOUNT=$TEST_DIR/bin/aerofs-mount-powercut
    [ "$choice" != ro ] || AEROFS_MOUNT=$real
    start -o "$choice"
    fails_with 'Input/output error' cat "$MNT/rotten"
    if [ "$choice" = ro ]; then
        stop
        continue
    fi
    echo "synced with $choice" >"$MNT/key"
    limited sync "$MNT/key"
    crash
    AEROFS_MOUNT=$real
    start
    same "an fsync with $choice" "synced with $choice" "$(cat "$MNT/key")"
    stop
done
say "${#grid[@]} choices of options: each fsync is kept by a power cut, each rotten byte is found"
