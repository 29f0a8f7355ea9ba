#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Ordinary users mount their own stores, through fusermount3: keys, options, dead mounts, umount, and what root and other users may.
# In a mount namespace with a /dev/fuse that everybody may open, as udev makes it; not every container has that.
if [ -z "${IN_NAMESPACE:-}" ] && [ "$(id -u)" -eq 0 ]; then
    IN_NAMESPACE=1 exec unshare -m --propagation private bash "$0"
fi
. "$(dirname "$0")/lib.sh"
needs_root
needs setpriv fusermount3
[ -u "$(command -v fusermount3)" ] || skip 'fusermount3 is not set-uid'

mkdir dev && mount -t tmpfs tmpfs dev && mknod -m 666 dev/fuse c 10 229 && mount --bind dev/fuse /dev/fuse
open_to_others
mkdir user && chown 65534:65534 user
cp "$AEROFS_MOUNT" bin/aerofs-mount && cp "$AEROFS" bin/aerofs # wherever the tree lies
chmod 755 bin bin/*
STORE=$TEST_DIR/user/store MNT=$TEST_DIR/user/mnt
as_nobody mkdir "$MNT"
as_other() { limited setpriv --reuid=1 --regid=1 --clear-groups "$@"; }
user_start() {
    as_nobody "$TEST_DIR/bin/aerofs-mount" "$@" "$STORE" "$MNT" >user.out 2>user.err || fail "an ordinary user cannot mount: $(cat user.err)"
    DAEMON=$(holder_of "$STORE")
    DAEMONS+=("$DAEMON")
}
is_free() { flock -n "$STORE/lock" true || fail "the store is not free, held by $(cat "$STORE/lock")"; }

user_start --create
as_nobody bash -c "echo mine >$MNT/key && sync $MNT/key"
same 'a key' 65534:mine "$(as_nobody stat -c %u "$MNT/key"):$(as_nobody cat "$MNT/key")"
same 'the root' 65534 "$(as_nobody stat -c %u "$MNT")"
grep -F " $MNT " /proc/self/mountinfo | grep -q 'nosuid,nodev.*user_id=65534' || fail "$(grep -F " $MNT " /proc/self/mountinfo)"
fails_with 'Permission denied' cat "$MNT/key" # not even root
fails_with 'Permission denied' as_other ls "$MNT"
exits 5 'is busy|another' as_other "$TEST_DIR/bin/aerofs" umount "$MNT"
same 'still there' mine "$(as_nobody cat "$MNT/key")"
as_nobody "$TEST_DIR/bin/aerofs" umount "$MNT"
is_free

# Another user's store, and options that an ordinary user may not give.
exits 10 'no permission|ermission denied' as_other "$TEST_DIR/bin/aerofs-mount" "$STORE" "$MNT"
if ! grep -qs '^user_allow_other' /etc/fuse.conf; then
    fails_with 'user_allow_other' as_nobody "$TEST_DIR/bin/aerofs-mount" -o allow_other "$STORE" "$MNT"
fi
user_start -o noatime,noexec,uid=1,umask=077
fails_with 'Permission denied' as_nobody touch "$MNT/key" # shown as somebody else's, who alone may write it
as_nobody "$TEST_DIR/bin/aerofs" umount "$MNT"
is_free

# A dead mount, found and detached by the next one.
user_start
as_nobody bash -c "echo again >$MNT/key && sync $MNT/key"
kill -KILL "$DAEMON"
wait_for 20 gone "$DAEMON"
fails_with 'not connected' as_nobody ls "$MNT"
user_start
same 'mounts' 1 "$(mounts_here | grep -cxF "$MNT")"
same 'a key after a kill' again "$(as_nobody cat "$MNT/key")"
# fusermount3 may return before the daemon has ended; the next mount waits.
as_nobody bash -c "echo soon >$MNT/key"
as_nobody fusermount3 -u "$MNT"
user_start
same 'a key after fusermount3 -u' soon "$(as_nobody cat "$MNT/key")"
# SIGTERM: the daemon unmounts with fusermount3.
kill -TERM "$DAEMON"
wait_for 20 gone "$DAEMON" || fail 'SIGTERM does not end it'
! grep -qF " $MNT " /proc/self/mountinfo || fail 'still mounted after SIGTERM'
# Root may unmount what it may not enter, and waits as well: where the store is, the source says.
user_start
limited "$AEROFS" umount "$MNT"
is_free
check_store
