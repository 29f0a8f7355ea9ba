#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Everything that lasts lies in the store: what the daemon has open, mapped or made anywhere else is looked at under load; then the store
# moves, the page cache is dropped, and nothing is missed.
. "$(dirname "$0")/lib.sh"

mkdir home tmp cache
export HOME=$TEST_DIR/home TMPDIR=$TEST_DIR/tmp XDG_CACHE_HOME=$TEST_DIR/cache XDG_RUNTIME_DIR=$TEST_DIR/cache
shm_before=$(ls /dev/shm)
start

# Descriptors and shared or writable maps of the daemon that lie outside of the store, but for what a process cannot do without.
outside() {
    local link
    for fd in "/proc/$DAEMON"/fd/*; do
        link=$(readlink "$fd") || continue
        case $link in
        "$STORE" | "$STORE"/* | /dev/fuse | /dev/null | pipe:* | socket:* | anon_inode:* | "$TEST_DIR"/mount.out | "$TEST_DIR"/mount.err) ;;
        *) echo "descriptor: $link" ;;
        esac
    done
    awk '$2 ~ /w/ && $6 ~ /^\// { print "map: " $2 " " $6 }' "/proc/$DAEMON/maps" |
        grep -vE "$(readlink -f "$AEROFS_MOUNT")|\.so(\.[0-9.]+)?$|/anon_hugepage|anon_inode:" || true
}

for i in 1 2 3 4 5 6 7 8; do
    mkdir "$MNT/d$i"
    head -c $((i * 100000)) /dev/urandom >"$MNT/d$i/file"
    sync "$MNT/d$i/file"
    found=$(outside)
    [ -z "$found" ] || fail "outside of the store: $found"
done
echo 'durable by the log alone' >"$MNT/last"
sync "$MNT/last"
list_tree "$MNT" x >before
crash

same 'home' '' "$(ls -A home)"
same 'tmp' '' "$(ls -A tmp)"
same 'cache' '' "$(ls -A cache)"
same '/dev/shm' "$shm_before" "$(ls /dev/shm)"
rmdir home tmp cache
export TMPDIR=$TEST_DIR
mv "$STORE" "$TEST_DIR/elsewhere"
STORE=$TEST_DIR/elsewhere
sync
[ "$(id -u)" -ne 0 ] || echo 3 2>/dev/null >/proc/sys/vm/drop_caches || say 'the page cache cannot be dropped here'
start
list_tree "$MNT" x | diff before - || fail 'the tree differs after the move'
stop
check_store
