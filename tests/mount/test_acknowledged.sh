#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Single calls, each with what acknowledges it, and then a power cut (powercut-mount: what was not synced is gone): O_TMPFILE and linkat,
# exchange, holes, ACLs, orphans, fsync by another descriptor or name, msync, O_SYNC appends, a directory synced right after a close, mkdir
# and a sync of the parent; and what is open is completed by nobody else's sync. acknowledged.c has the stories.
. "$(dirname "$0")/lib.sh"
powercut=${AEROFS_POWERCUT:-$TEST_TOP/build/powercut-mount}
[ -x "$powercut" ] || fail "$powercut is not built: make powercut"
acknowledged=$(helper acknowledged)

mount_powercut() { # [--create]
    limited "$powercut" "$@" "$STORE" "$MNT" >mount.out 2>mount.err || fail "$(cat mount.err)"
    note_daemon "$STORE"
}
# story NAME: a new store, the story, the cut, the next mount.
story() {
    local pid
    rm -rf "$STORE"
    mount_powercut --create
    "$acknowledged" prepare "$MNT"
    stop
    mount_powercut # cold
    rm -f out # of the story before
    "$acknowledged" "$1" "$MNT" >out 2>err &
    pid=$!
    wait_for 20 grep -qs acknowledged out || fail "$1: $(cat err)"
    kill -KILL "$DAEMON"
    wait_for 20 gone "$DAEMON"
    kill $pid 2>/dev/null || true
    wait $pid 2>/dev/null || true
    umount -l "$MNT"
    start
}
finish() { # NAME
    stop
    check_store
    say "$1"
}
letters() { head -c "$2" /dev/zero | tr '\0' "$1" | md5sum; }
holds() { # FILE LETTER BYTES
    same "$1" "$(letters "$2" "$3")" "$(md5sum <"$MNT/$1")"
}

story tmpfile
holds new t 100000
same 'links' 1 "$(stat -c %h "$MNT/new")"
finish tmpfile
story tmpfile-fsync
holds new t 100
finish tmpfile-fsync
story exchange
holds a b 100000
holds b a 100000
finish exchange
story hole
same 'file with a hole' "$({
    head -c 5000 /dev/zero | tr '\0' a
    head -c 60000 /dev/zero
    head -c 35000 /dev/zero | tr '\0' a
} | md5sum)" "$(md5sum <"$MNT/a")"
finish hole
story acl
same 'mode with the ACL' 670 "$(stat -c %a "$MNT/a")"
same 'ACL' 'user:1000:rwx' "$(getfacl -n "$MNT/a" 2>/dev/null | grep '^user:1000')"
finish acl
story orphan
same 'names' 'b' "$(ls "$MNT")"
grep -q 'removed 1 files that were unlinked while open' "$TEST_DIR/mount.out" || fail "$(cat "$TEST_DIR/mount.out")"
finish orphan
story one-link
same 'names' 'b c' "$(cd "$MNT" && echo *)"
same 'links' 1 "$(stat -c %h "$MNT/c")"
holds c a 100000
finish one-link
for how in second-descriptor hard-link; do
    story $how
    holds a x 100000
    finish $how
done
story msync
holds a m 100000
finish msync
story append
same 'appended' 11111111112222222222 "$(tail -c 20 "$MNT/a")"
same 'size' 100020 "$(stat -c %s "$MNT/a")"
finish append
story close
holds new n 100000
finish close
story mkdir
same 'links of dir' 3 "$(stat -c %h "$MNT/dir")"
[ -d "$MNT/dir/sub" ] || fail 'no dir/sub'
finish mkdir
story copy
holds b a 100000
finish copy
# A race, which the daemon used to lose in most rounds; the story itself kills it, at once.
rm -rf "$STORE"
start -o cache=1M
"$acknowledged" prepare-big "$MNT"
for try in 1 2 3 4; do
    dd if=/dev/zero of="$MNT/big" bs=4096 count=1 seek=$((46 * 256)) conv=notrunc,fsync status=none
    stop
    start -o cache=1M # cold
    rm -f out
    KILL=$DAEMON "$acknowledged" read-ahead "$MNT" >out 2>err &
    pid=$!
    wait_for 20 gone "$DAEMON" || fail "$(cat err)"
    kill $pid 2>/dev/null || true
    wait $pid 2>/dev/null || true
    umount -l "$MNT"
    start -o cache=1M
    same "closed before the sync, round $try" x "$(dd if="$MNT/big" bs=1 skip=$((46 << 20)) count=1 status=none | tr '\0' 0)"
done
finish read-ahead
story one-fsync
same 'everything before one fsync' "$({
    printf first
    head -c 29995 /dev/zero | tr '\0' a
    printf second
    head -c 29994 /dev/zero | tr '\0' a
    printf third
    head -c 24995 /dev/zero | tr '\0' a
    head -c 5000 /dev/zero | tr '\0' a
    printf fourth
} | md5sum)" "$(md5sum <"$MNT/a")"
holds renamed n 100000
finish one-fsync
story truncate-open
holds a a 100000
finish truncate-open
story write-open
same 'names' 'a b' "$(cd "$MNT" && echo *)"
holds a a 100000
finish write-open
