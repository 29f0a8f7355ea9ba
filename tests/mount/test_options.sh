#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Options in every form and place, bounds that hold (size=, log=, cache=), both ways of I/O, ends by umount and by signal, dead mounts.
. "$(dirname "$0")/lib.sh"
needs_root

# ---- forms and places ----

limited "$AEROFS_MOUNT" "$STORE" "$MNT" -o create,nofail,_netdev,x-systemd.automount,noatime,dev,suid -o size=1G >/dev/null 2>&1
note_daemon "$STORE"
echo one >"$MNT/key"
sync "$MNT/key"
same 'type' fuse.aerofs "$(findmnt -no FSTYPE "$MNT")"
same 'source' "$STORE" "$(findmnt -no SOURCE "$MNT")"
exits 5 "in use.*$DAEMON" "$AEROFS_MOUNT" "$STORE" "$TEST_DIR/bin"
stop
exits 2 'nosuchoption' "$AEROFS_MOUNT" -o nosuchoption "$STORE" "$MNT"
exits 2 'size' "$AEROFS_MOUNT" -o size=12Q "$STORE" "$MNT"
exits 2 'io' "$AEROFS_MOUNT" -o io=magic "$STORE" "$MNT"

for io in plain uring; do
    start -o io=$io
    [[ $(status_of io) == $io* ]] || fail "io=$io runs with $(status_of io)"
    same 'key' one "$(cat "$MNT/key")"
    echo "$io" >"$MNT/$io"
    sync "$MNT/$io"
    restart -o io=$io
    same "key written with io=$io" "$io" "$(cat "$MNT/$io")"
    stop
done

# ---- clean ends ----

for signal in TERM INT; do
    "$AEROFS_MOUNT" -f "$STORE" "$MNT" >"$TEST_DIR/foreground" 2>&1 &
    pid=$!
    DAEMONS+=($pid)
    wait_for 20 mountpoint -q "$MNT" || fail 'not mounted in the foreground'
    echo "$signal" >"$MNT/signal"
    kill -HUP $pid
    kill -$signal $pid
    code=0
    wait $pid || code=$?
    same "exit code after SIG$signal" 0 $code
    ! mountpoint -q "$MNT" || fail "still mounted after SIG$signal"
    start
    grep -q 'closed cleanly' "$TEST_DIR"/mount.out "$TEST_DIR"/mount.err || fail "not clean after SIG$signal"
    same 'what was closed before the signal' "$signal" "$(cat "$MNT/signal")"
    stop
done

# A daemon that died leaves its mount; the next one takes it away.
start
echo dead >"$MNT/key"
sync "$MNT/key"
kill -KILL "$DAEMON"
wait_for 20 gone "$DAEMON"
fails_with 'not connected' ls "$MNT"
start
same 'key after a kill' dead "$(cat "$MNT/key")"
stop

# ---- read-only ----

start
echo last >"$MNT/key"
sync "$MNT/key"
restart -o ro
same 'key' last "$(cat "$MNT/key")"
fails_with 'Read-only' touch "$MNT/new"
fails_with 'Read-only' rm "$MNT/key"
stop

# ---- size=: the write fails, not the fsync; a full store still deletes ----

STORE=$TEST_DIR/small
start -o size=64M
mkdir "$MNT/d"
! dd if=/dev/zero of="$MNT/d/big" bs=64K count=4096 status=none 2>"$TEST_DIR/dd" || fail '256 MiB fit into 64'
grep -q 'No space' "$TEST_DIR/dd" || fail "dd says $(cat "$TEST_DIR/dd")"
i=0
while head -c 50000 /dev/zero >"$MNT/d/$i" 2>/dev/null; do
    i=$((i + 1))
    [ $i -lt 2000 ] || fail 'a full store takes more and more'
done
sync "$MNT" || fail 'fsync on a full store'
limited cat "$MNT/d/0" >/dev/null || fail 'a full store does not read'
restart -o size=64M
limited rm -r "$MNT/d" || fail 'a full store does not delete'
sync "$MNT"
freed() { limited dd if=/dev/zero of="$MNT/again" bs=1M count=20 conv=fsync status=none 2>/dev/null; }
wait_for 30 freed || fail 'space does not come back'
stop
check_store

# ---- small log and cache under load ----

STORE=$TEST_DIR/tight
start -o log=1M,cache=1M,size=512M
for d in 1 2 3; do
    mkdir "$MNT/$d"
    for i in $(seq 150); do
        head -c $((i * 97)) /dev/urandom >"$MNT/$d/$i"
    done
    cp -a "$MNT/$d" "$TEST_DIR/copy$d"
done
sync "$MNT"
restart -o log=1M,cache=1M,size=512M
for d in 1 2 3; do
    same "tree $d" "$(list_tree "$TEST_DIR/copy$d")" "$(list_tree "$MNT/$d")"
done
stop
check_store
