#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Options, in every position and as mount(8) and fstab pass them; the limits that they set, under load; and how a mount ends.
. "$(dirname "$0")/lib.sh"
needs_root

mount_with() { # COMMAND…: mounts $STORE at $MNT in its own way
    limited "$@" >mount.out 2>mount.err || fail "$* failed with $?: $(cat mount.out mount.err)"
    note_daemon "$STORE"
}
mounted_as() { # PATTERN: the line in mountinfo
    grep -F " $MNT " /proc/self/mountinfo | grep -qE -- "$1" || fail "'$1' is not in: $(grep -F " $MNT " /proc/self/mountinfo)"
}

# ---- positions and forms ----

mount_with "$AEROFS_MOUNT" "$STORE" "$MNT" --create
same 'lines on stderr' 0 "$(wc -l <mount.err)"
grep -q "^aerofs: $STORE is mounted at $MNT" mount.out || fail "it says: $(cat mount.out)"
mounted_as 'nosuid,nodev.* - fuse.aerofs '"$STORE"
stop
mount_with "$AEROFS_MOUNT" -o log=32M "$STORE" -osize=10G,suid "$MNT" -o dev,noexec
mounted_as 'rw,noexec'
stop
mount_with "$AEROFS_MOUNT" -n -v -s -w -o rw,nofail -- "$STORE" "$MNT"
stop
mount_with "$AEROFS_MOUNT" "$STORE" "$MNT" -o 'fsname=a\,b,subtype=zzz,comment=hello'
mounted_as ' - fuse.aerofs a,b '
stop
mount_with "$AEROFS_MOUNT" ./store mnt/. # relative paths
same 'a relative store' "$STORE" "$(sed -n 's/^aerofs: \(.*\) is mounted.*/\1/p' mount.out)"
stop
# What fstab holds.
mount_with "$AEROFS_MOUNT" "$STORE" "$MNT" -o \
    defaults,default_permissions,auto,noauto,nofail,_netdev,user,nouser,users,owner,group,noatime,relatime,strictatime,lazytime
stop
mount_with "$AEROFS_MOUNT" "$STORE" "$MNT" -o x-systemd.automount,x-gvfs-hide,x-systemd.device-timeout=10,rw,nodev,nosuid
stop

# ---- mount(8) ----

# It looks for the program in the system's folders: in a mount namespace of our own /usr/local/bin is one of ours.
by_mount() { # what is mounted, then a function to run while it is
    cat >by_mount.sh <<'END'
set -euo pipefail
mount --bind "$TEST_DIR/system" /usr/local/bin
what=$1 && shift
"$@"
grep -F " $MNT " /proc/self/mountinfo >"$TEST_DIR/by_mount.info"
findmnt -n -o OPTIONS "$MNT" >/dev/null
cat "$MNT/$what"
umount "$MNT"
END
    MNT=$MNT limited unshare -m --propagation private bash by_mount.sh "$@" >by_mount.out 2>by_mount.err || fail "$*: $(cat by_mount.err)"
    same "$* serves" 'by umount' "$(tail -n 1 by_mount.out)"
}
if [ -x /sbin/mount.fuse3 ] || [ -x /sbin/mount.fuse ]; then
    mkdir -p system && cp "$AEROFS_MOUNT" system/aerofs-mount
    start
    echo 'by umount' >"$MNT/key"
    stop
    by_mount key mount -t fuse.aerofs-mount "$STORE" "$MNT"
    grep -q ' - fuse.aerofs ' by_mount.info || fail "$(cat by_mount.info)"
    by_mount key mount -t fuse.aerofs-mount -o allow_other,nofail,size=1G,noatime,ro "$STORE" "$MNT"
    grep -q '[ ,]ro[, ].*allow_other' by_mount.info || fail "$(cat by_mount.info)"
    printf '%s %s fuse.aerofs-mount allow_other,nofail,x-test=1,_netdev 0 0\n' "$STORE" "$MNT" >fstab
    by_mount key mount --fstab "$TEST_DIR/fstab" "$MNT"
    grep -q 'allow_other' by_mount.info || fail "$(cat by_mount.info)"
else
    say 'mount.fuse3 is not there: mount(8) not tried'
fi

# ---- how it ends ----

start
echo kept >"$MNT/key"
stop
start
same 'recovery_clean after umount' yes "$(status_of recovery_clean)"
# A mount right after umount waits for the last checkpoint.
for i in 1 2 3 4 5; do
    head -c 3000000 /dev/urandom >"$MNT/file$i"
    old=$DAEMON
    limited umount "$MNT"
    start
    gone "$old" || [ "$old" != "$DAEMON" ] || fail 'two daemons for one store'
    same 'recovery_clean after umount and an immediate mount' yes "$(status_of recovery_clean)"
done
stop
# Signals, in the foreground.
for signal in TERM INT; do
    "$AEROFS_MOUNT" -f "$STORE" "$MNT" >fg.out 2>fg.err &
    pid=$!
    DAEMONS+=($pid)
    wait_for 10 test -e "$MNT/.aerofs/status" || fail "no mount in the foreground: $(cat fg.err)"
    same 'the daemon in the foreground' $pid "$(holder_of "$STORE")"
    echo "by $signal" >"$MNT/key"
    kill -$signal $pid
    code=0
    wait $pid || code=$?
    same "exit code after SIG$signal" 0 $code
    [ -z "$(mounts_here)" ] || fail "still mounted after SIG$signal"
    start
    same "what was closed before SIG$signal" "by $signal" "$(cat "$MNT/key")"
    same "recovery_clean after SIG$signal" yes "$(status_of recovery_clean)"
    stop
done
# A signal while something is open: the mount goes lazily, everything completed is there.
start
exec 5>"$MNT/open-at-the-end"
echo 'not closed' >&5
echo 'closed' >"$MNT/closed"
kill -TERM "$DAEMON"
wait_for 30 gone "$DAEMON" || fail 'the daemon does not end while a file is open'
[ -z "$(mounts_here)" ] || fail 'still mounted'
exec 5>&-
start
same 'recovery_clean' yes "$(status_of recovery_clean)"
same 'what was closed' closed "$(cat "$MNT/closed")"
stop
# A busy mount: umount refuses, the daemon goes on.
start
(cd "$MNT" && exec sleep 100) &
sleeper=$!
sleep 0.2
fails_with 'busy' umount "$MNT"
same 'a mount that was busy' kept2 "$(echo kept2 >"$MNT/key" && cat "$MNT/key")"
kill $sleeper && wait $sleeper || true
stop
# SIGHUP is nothing.
start
kill -HUP "$DAEMON"
sleep 0.2
is_daemon "$DAEMON" || fail 'SIGHUP has ended the daemon'
# A dead mount is detached by the next one.
kill -KILL "$DAEMON"
wait_for 20 gone "$DAEMON"
fails_with 'not connected' ls "$MNT"
start
same 'mounts at the mount point' 1 "$(mounts_here | grep -cxF "$MNT")"
same 'a key after a dead mount' kept2 "$(cat "$MNT/key")"
# Right after the kill, without waiting for anything.
for i in 1 2 3; do
    echo "round $i" >"$MNT/key" && sync "$MNT/key"
    kill -KILL "$DAEMON"
    start
    same 'a key, mounted right after a kill' "round $i" "$(cat "$MNT/key")"
done
stop

# ---- ro ----

start
crash
start -o ro
mounted_as '[ ,]ro[, ]'
same 'ro: state' yes "$(status_of read_only)"
same 'ro: it has recovered' 'round 3' "$(cat "$MNT/key")"
fails_with 'Read-only' touch "$MNT/key"
fails_with 'Read-only' mkdir "$MNT/dir"
fails_with 'Read-only' rm -f "$MNT/key"
before=$(state_of "$STORE")
find "$MNT" -type f -exec cat {} + >/dev/null
sync "$MNT" 2>/dev/null || true
sleep 1.5
same 'ro: nothing is written' "$before" "$(state_of "$STORE")"
stop
same 'ro: nothing is written at the end' "$before" "$(state_of "$STORE")"
check_store

# ---- size= ----

rm -rf "$STORE"
start -o size=64M,log=8M
df=$(df -B1 --output=size "$MNT" | tail -n 1)
[ "$df" -le $((64 << 20)) ] || fail "df shows $df bytes for a store of 64 MiB"
echo precious >"$MNT/precious" && sync "$MNT/precious"
# ENOSPC comes when bytes are written: whoever has written all its bytes can sync them.
code=0
dd if=/dev/urandom of="$MNT/filler" bs=64K count=2000 status=none 2>dd.err || code=$?
[ $code -ne 0 ] && grep -q 'No space left' dd.err || fail "a full store: exit code $code, $(cat dd.err)"
limited sync "$MNT/filler" || fail 'fsync failed of what could be written'
same 'a full store reads' precious "$(cat "$MNT/precious")"
full=0
for i in {1..20000}; do
    echo "small file $i" 2>/dev/null >"$MNT/small-$i" || { full=$i && break; }
done
[ "$full" -gt 0 ] || fail 'a full store never refuses small files'
limited sync "$MNT"
for ((i = 1; i < full; i += 97)); do
    same "small file $i of a full store" "small file $i" "$(cat "$MNT/small-$i")"
done
# Deleting works, and gives the space back, to the writer that asks at once.
restart -o size=64M,log=8M
for ((i = 1; i < full; i += 97)); do
    same "small file $i after a kill" "small file $i" "$(cat "$MNT/small-$i")"
done
truncate -s 1000000 "$MNT/filler"
rm "$MNT/filler"
find "$MNT" -name 'small-*' -delete
for i in 1 2 3; do
    dd if=/dev/urandom of="$MNT/again" bs=64K count=400 status=none || fail "no space after deleting, round $i: $(status_of space_used_blocks) blocks used"
    sync "$MNT/again"
    rm "$MNT/again"
done
# Overwritten again and again in a store that holds it little more than once.
dd if=/dev/urandom of="$MNT/big" bs=64K count=400 status=none
for i in 1 2 3 4; do
    dd if=/dev/urandom of="$MNT/big" bs=64K count=400 conv=notrunc,fsync status=none || fail "no space to overwrite, round $i"
done
stop
check_store
# A smaller cap than what is stored: nothing can be written, all can be read and deleted.
start -o size=8M
fails_with 'No space' dd if=/dev/zero of="$MNT/more" bs=64K count=100 status=none
same 'a key above the cap' precious "$(cat "$MNT/precious")"
rm -f "$MNT/big" "$MNT/more"
sync "$MNT"
stop
check_store

# ---- small limits under load, and both ways to write ----

load() { # writes, overwrites, deletes; leaves a tree whose checksum it prints
    local i
    mkdir "$MNT/load"
    for i in {1..40}; do
        head -c $((i * 10000)) /dev/urandom >"$MNT/load/f$i"
        [ $((i % 3)) -ne 0 ] || cp "$MNT/load/f$((i / 3))" "$MNT/load/f$i"
        [ $((i % 7)) -ne 0 ] || sync "$MNT/load/f$i"
    done
    for i in {1..700}; do echo "$i" >"$MNT/load/s$i"; done
    find "$MNT/load" -name 's*3' -delete
    rm "$MNT"/load/f1?
    sync "$MNT"
    list_tree "$MNT" | md5sum
}
for options in log=1M cache=1M log=1M,cache=1M,io=plain log=4M,io=uring io=plain commit_open=0; do
    rm -rf "$STORE" # the log's segments keep the size that they were made with
    start -o $options
    case $options in *io=*) status_of io | grep -q "$(sed 's/.*io=//' <<<"$options")" || fail "$options: $(status_of io)" ;; esac
    sum=$(load)
    restart -o $options
    same "the tree after a kill with $options" "$sum" "$(list_tree "$MNT" | md5sum)"
    [ "$options" != log=4M,io=uring ] || say "bound of the log with log=4M: $(status_of log_bytes_max)"
    rm -r "$MNT/load"
    stop
    check_store
done
start
same 'an empty store' '' "$(ls -A "$MNT")"
stop

# ---- an ordinary user ----

if command -v fusermount3 >/dev/null && [ -u "$(command -v fusermount3)" ]; then
    open_to_others
    cp "$AEROFS_MOUNT" "$TEST_DIR/bin/aerofs-mount" # wherever the tree lies
    chmod 755 "$TEST_DIR/bin" "$TEST_DIR/bin/aerofs-mount"
    mkdir user && chown 65534:65534 user
    as_nobody mkdir user/mnt
    if as_nobody "$TEST_DIR/bin/aerofs-mount" --create "$TEST_DIR/user/store" "$TEST_DIR/user/mnt" >user.out 2>user.err; then
        DAEMONS+=("$(cat user/store/lock)")
        as_nobody bash -c 'echo mine >user/mnt/key && sync user/mnt/key'
        same "a user's key" 65534:mine "$(as_nobody bash -c 'stat -c %u user/mnt/key; cat user/mnt/key' | tr '\n' ':' | sed 's/:$//')"
        same "owner of a user's root" 65534 "$(as_nobody stat -c %u user/mnt)"
        as_nobody fusermount3 -u "$TEST_DIR/user/mnt"
        wait_for 20 gone "${DAEMONS[-1]}" || fail "a user's daemon does not end"
        check_store "$TEST_DIR/user/store"
    else
        say "an ordinary user cannot mount here: $(cat user.err)"
    fi
fi
