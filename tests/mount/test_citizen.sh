#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# A good citizen of the machine: what is installed and how mount(8), umount(8), fstab and systemd find it; umount that returns when
# the store is free; dead mounts; ownership that is only shown; messages; limits on open files.
. "$(dirname "$0")/lib.sh"
needs_root
needs make python3 unshare setpriv

# ---- umount ----

# Half a second for every write of the log and every sync: a daemon that takes long to close its store.
slow_start() { AEROFS_MOUNT=$AEROFS_POWERCUT start --delay-us 300000; }
is_free() { flock -n "${1:-$STORE}/lock" true || fail "the store is not free, held by $(cat "${1:-$STORE}/lock")"; }
if [ -n "${AEROFS_POWERCUT:-}" ]; then
    slow_start
    echo slow >"$MNT/key"
    limited "$AEROFS" umount "$MNT" || fail "aerofs umount exits with $?"
    is_free
    same 'state after aerofs umount' clean "$(status_of state "$STORE")"
    # Without it, umount(2) returns at once: the test can tell the difference.
    slow_start
    echo slower >"$MNT/key"
    limited umount -i "$MNT"
    ! flock -n "$STORE/lock" true || fail 'the disk is not slow enough to tell aerofs umount from umount -i'
    wait_for 60 gone "$DAEMON"
fi
start
same 'what was written before aerofs umount' "${AEROFS_POWERCUT:+slower}" "$(cat "$MNT/key" 2>/dev/null || true)"
exec 5>"$MNT/held"
exits 5 "is busy" "$AEROFS" umount "$MNT"
echo 'still there' >"$MNT/key"
# Lazily: what is completed is durable at once, and the daemon ends with the last user.
limited "$AEROFS" umount --lazy "$MNT"
[ -z "$(mounts_here)" ] || fail 'still mounted after aerofs umount --lazy'
is_daemon "$DAEMON" || fail 'the daemon has ended while a file was open'
echo 'written after' >&5
exec 5>&-
wait_for 20 gone "$DAEMON" || fail 'the daemon does not end with its last user'
start
same 'a key, lazily unmounted' 'still there' "$(cat "$MNT/key")"
same 'a file held open across a lazy unmount' 'written after' "$(cat "$MNT/held")"
# The same file system at two places: the daemon goes on, and umount does not wait for it.
mkdir -p other
mount --bind "$MNT" other
limited "$AEROFS" umount "$MNT"
same 'at the other place' 'still there' "$(cat other/key)"
limited "$AEROFS" umount other
wait_for 20 gone "$DAEMON" || fail 'the daemon outlives its last mount'
exits 4 'no mount point of AeroFS' "$AEROFS" umount "$MNT"
exits 4 'but of proc' "$AEROFS" umount /proc
exits 3 'No such file' "$AEROFS" umount "$TEST_DIR/nowhere/at all"
# A dead mount.
start
kill -KILL "$DAEMON"
wait_for 20 gone "$DAEMON"
limited "$AEROFS" umount "$MNT" 2>err || fail "of a dead mount: exit code $?, $(cat err)"
grep -q 'had ended before' err || fail "$(cat err)"
[ -z "$(mounts_here)" ] || fail 'a dead mount is still there'
# A daemon that hangs.
start
kill -STOP "$DAEMON"
limited "$AEROFS" umount --force "$MNT" &
pid=$!
wait_for 20 eval '[ -z "$(mounts_here)" ]' || fail 'a daemon that hangs keeps its mount'
kill -CONT "$DAEMON"
wait $pid || fail "aerofs umount --force exits with $?"
# In a path that mountinfo escapes, from a relative one, and of a store with a name of its own.
mkdir -p 'a b'
limited "$AEROFS_MOUNT" -o fsname=whatever "$STORE" 'a b' >/dev/null
pid=$(holder_of "$STORE")
DAEMONS+=("$pid")
(cd 'a b/..' && limited "$AEROFS" umount './a b/')
is_free
check_store

# ---- dead mounts ----

# Of ours: detached by the next mount, found by statfs(2) although the kernel still answers stat(2) from its cache.
start
echo alive >"$MNT/key" && sync "$MNT"
stat "$MNT" >/dev/null # in the kernel's cache, for ever
kill -KILL "$DAEMON"
wait_for 20 gone "$DAEMON"
stat "$MNT" >/dev/null || fail 'the kernel no longer answers from its cache: this tests nothing'
start
same 'mounts at the mount point' 1 "$(mounts_here | grep -cxF "$MNT")"
same 'a key' alive "$(cat "$MNT/key")"
stop

# ---- ownership that is shown ----

open_to_others
start -o allow_other
chmod 755 "$MNT"
echo '#!/bin/sh' >"$MNT/tool" && chmod 4711 "$MNT/tool"
mkdir "$MNT/sticky" && chmod 1700 "$MNT/sticky"
echo private >"$MNT/private" && chmod 600 "$MNT/private"
stop
start -o allow_other,uid=65534,gid=12,umask=027
same 'shown' '65534:12 750' "$(stat -c '%u:%g %a' "$MNT/private")"
same 'set-id bits' '65534:12 4750' "$(stat -c '%u:%g %a' "$MNT/tool")"
same 'a listing' '65534:12 1750' "$(find "$MNT" -name sticky -printf '%U:%G %m')"
same 'the root' '65534:12 750' "$(stat -c '%u:%g %a' "$MNT")"
same 'read by who is shown as the owner' private "$(as_nobody cat "$MNT/private")"
as_nobody bash -c 'echo changed >>'"$MNT/private"
as_nobody bash -c 'echo new >'"$MNT/new"
same 'a new file' '65534:12 750' "$(stat -c '%u:%g %a' "$MNT/new")"
# chown and chmod succeed and change what is stored.
chown 33:33 "$MNT/private"
chmod 604 "$MNT/private"
same 'chown and chmod change nothing that is shown' '65534:12 750' "$(stat -c '%u:%g %a' "$MNT/private")"
# A write by an ordinary user takes the set-id bit, and nothing else.
as_nobody bash -c 'echo more >>'"$MNT/tool"
same 'set-id bit after a write' 750 "$(stat -c %a "$MNT/tool")"
cp -a "$MNT/private" "$MNT/copied" || fail 'cp -a'
exits 2 "uid=me is no number" "$AEROFS_MOUNT" -o uid=me "$STORE" "$TEST_DIR/other"
exits 2 "gid=-1 is no number" "$AEROFS_MOUNT" -o gid=-1 "$STORE" "$TEST_DIR/other"
exits 2 "umask=888 is no octal" "$AEROFS_MOUNT" -o umask=888 "$STORE" "$TEST_DIR/other"
exits 2 "unknown option 'fmask='" "$AEROFS_MOUNT" -o fmask=1 "$STORE" "$TEST_DIR/other"
exits 2 "unknown option 'sparkle'" "$AEROFS_MOUNT" -o sparkle "$STORE" "$TEST_DIR/other"
stop
start
same 'stored: chown and chmod' '33:33 604' "$(stat -c '%u:%g %a' "$MNT/private")"
same 'stored: the rest' '0:0 1700' "$(stat -c '%u:%g %a' "$MNT/sticky")"
same 'stored: the owner of a new file' 65534 "$(stat -c %u "$MNT/new")"
same 'stored: set-id taken, permissions as they were' 711 "$(stat -c %a "$MNT/tool")"
stop

# ---- flags ----

start -o noexec,noatime,nosuid,nodev
for flag in noexec noatime nosuid nodev; do
    grep -F " $MNT " /proc/self/mountinfo | grep -q "[ ,]$flag[ ,]" || fail "$flag does not show: $(grep -F " $MNT " /proc/self/mountinfo)"
done
printf '#!/bin/sh\necho ran\n' >"$MNT/script" && chmod 755 "$MNT/script"
fails_with 'Permission denied' "$MNT/script"
mknod "$MNT/null" c 1 3
fails_with 'Permission denied' dd if=/dev/zero of="$MNT/null" bs=1 count=1 conv=notrunc
stop
start -o dev,suid,relatime
same 'a script without noexec' ran "$("$MNT/script")"
echo discarded >"$MNT/null"
stop

# ---- open files ----

# The daemon has no descriptor for a file that a client has open: thousands of them under a limit of 32.
open_many=$(
    cat <<'END'
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (5000, 5000))
files = [os.open(f"{sys.argv[1]}/many-{i}", os.O_CREAT | os.O_RDWR, 0o644) for i in range(4000)]
for i, f in enumerate(files):
    os.write(f, b"%d\n" % i)
os.fsync(files[0])
for i, f in enumerate(files):
    assert os.pread(f, 10, 0) == b"%d\n" % i
END
)
(ulimit -n 32 && start && echo "$DAEMON" >daemon)
DAEMON=$(cat daemon) && DAEMONS+=("$DAEMON")
limited python3 -c "$open_many" "$MNT"
[ "$(find "/proc/$DAEMON/fd" -mindepth 1 | wc -l)" -lt 32 ] || fail 'descriptors for the files of clients'
same 'files' 4000 "$(find "$MNT" -name 'many-*' | wc -l)"
stop
# The soft limit is raised to the hard one.
(ulimit -S -n 64 && start && echo "$DAEMON" >daemon)
DAEMON=$(cat daemon) && DAEMONS+=("$DAEMON")
same 'soft limit' "$(awk '/Max open files/ { print $5 }' "/proc/$DAEMON/limits")" "$(awk '/Max open files/ { print $4 }' "/proc/$DAEMON/limits")"
stop
# Too few to work with: refused, named, nothing changed.
code=0
(ulimit -n 7 && exec timeout 60 "$AEROFS_MOUNT" "$STORE" "$MNT") >out 2>err || code=$?
[ $code -ne 0 ] && grep -q 'Too many open files' err || fail "with 7 descriptors: exit code $code, $(cat err)"
[ -z "$(mounts_here)" ] || fail 'mounted all the same'
check_store

# ---- the service manager ----

# listen NAME SECONDS COMMAND…: what arrives at the socket while the command runs.
cat >listen.py <<'END'
import os, socket, subprocess, sys, time
address, command = sys.argv[1], sys.argv[2:]
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(address.replace("@", "\0", 1))
os.environ["NOTIFY_SOCKET"] = address
p = subprocess.Popen(command)
s.settimeout(0.1)
end = time.monotonic() + 60
while time.monotonic() < end:
    try:
        print(s.recv(4096).decode().replace("\n", "|"), flush=True)
    except socket.timeout:
        if p.poll() is not None:
            break
sys.exit(p.wait(1))
END
for address in "$TEST_DIR/notify" "@aerofs-test-$$"; do
    rm -f notify
    python3 listen.py "$address" "$AEROFS_MOUNT" -f "$STORE" "$MNT" >notified 2>fg.err &
    pid=$!
    wait_for 20 grep -q READY=1 notified || fail "no READY=1 at $address: $(cat notified fg.err)"
    same 'mounted at READY=1' 1 "$(mounts_here | grep -cxF "$MNT")"
    note_daemon "$STORE"
    grep -q "^READY=1|MAINPID=$DAEMON|STATUS=$STORE is mounted at $MNT" notified || fail "$(cat notified)"
    kill -TERM "$DAEMON"
    wait $pid || fail "the daemon under a service manager exits with $?"
    same 'the last word' 'STOPPING=1|STATUS=Unmounted, closing the store' "$(tail -n 1 notified)"
done
# A socket that nobody reads is no reason not to serve.
NOTIFY_SOCKET=$TEST_DIR/nobody start
stop

# ---- installed ----

mkdir -p root
run_make() { limited make -s -C "$TEST_TOP" DEPS=no VARIANT=obj PREFIX=/usr/local DESTDIR="$TEST_DIR/root" "$1" >install.out 2>&1 || fail "make $1: $(cat install.out)"; }
run_make install
for page in aerofs aerofs-mount mount.aerofs umount.fuse umount.fuse.aerofs; do
    [ -s "root/usr/local/share/man/man8/$page.8" ] || fail "no manual $page.8"
done
if command -v man >/dev/null; then
    MANPATH=$TEST_DIR/root/usr/local/share/man man -P cat 8 mount.aerofs 2>/dev/null | grep -q 'mount an AeroFS store' || fail 'man mount.aerofs'
fi
install -m 755 "$AEROFS" "$AEROFS_MOUNT" root/usr/local/bin

# In a mount namespace of its own, with our folders in place of the system's, mount(8) and umount(8) find what was installed.
helpers=$(readlink -f /sbin)
mkdir -p sbin && cp -a "$helpers/." sbin/ && cp -a root/sbin/. sbin/
printf '%s %s aerofs allow_other,nofail,noatime,x-test=1,_netdev 0 0\n' "$STORE" "$MNT" >fstab
printf '%s %s fuse.aerofs-mount defaults 0 0\n' "$STORE" "$MNT" >fstab.fuse
cat >inside.sh <<'END'
set -euo pipefail
fail() { echo "FAILED: $*" >&2; exit 1; }
mount --bind "$TEST_DIR/sbin" "$HELPERS"
mount --bind "$TEST_DIR/root/usr/local/bin" /usr/local/bin
type_of() { findmnt -n -o FSTYPE "$MNT"; }
free() { flock -n "$STORE/lock" true || fail "after $*: the store is not free"; ! mountpoint -q "$MNT" || fail "after $*: still mounted"; }
# As each of the lines in fstab, and by hand.
mount -a -T "$TEST_DIR/fstab"
[ "$(type_of)" = fuse.aerofs ] || fail "type $(type_of)"
[ "$(findmnt -n -o SOURCE "$MNT")" = "$STORE" ] || fail "source $(findmnt -n -o SOURCE "$MNT")"
findmnt -n -o OPTIONS "$MNT" | grep -q noatime.*allow_other || fail "$(findmnt -n -o OPTIONS "$MNT")"
mount -a -T "$TEST_DIR/fstab" # again: it is there
[ "$(grep -cF " $MNT " /proc/self/mountinfo)" = 1 ] || fail 'mounted twice'
cmp -s "/proc/$(cat "$STORE/lock")/comm" <(echo aerofs-mount) || fail "the daemon is called $(cat "/proc/$(cat "$STORE/lock")/comm")"
echo "by fstab" >"$MNT/key"
umount "$MNT"; free umount
mount -a -T "$TEST_DIR/fstab.fuse"
[ "$(cat "$MNT/key")" = 'by fstab' ] || fail 'fuse.aerofs-mount'
cd "$MNT/.." && umount "${MNT##*/}"; free 'umount, relative'
mount -t aerofs "$STORE" "$MNT"
(cd "$MNT" && ! umount "$MNT" 2>"$TEST_DIR/busy") || fail 'umount of a busy mount'
grep -q 'is busy' "$TEST_DIR/busy" || fail "$(cat "$TEST_DIR/busy")"
umount "$MNT"; free 'mount -t aerofs'
mount -t fuse.aerofs -o ro "$STORE" "$MNT"
umount "$MNT"; free 'mount -t fuse.aerofs'
mount -f -t aerofs "$STORE" "$MNT" # only as if
! mountpoint -q "$MNT" || fail 'mount -f mounts'
mount -t aerofs "$STORE" "$MNT"
umount -l "$MNT"
! mount -t aerofs -o sparkle "$STORE" "$MNT" 2>"$TEST_DIR/sparkle" || fail 'sparkle'
grep -q "unknown option 'sparkle'" "$TEST_DIR/sparkle" || fail "$(cat "$TEST_DIR/sparkle")"
# umount.fuse passes the mounts of others back: a bind mount is none of ours, nor is nothing.
! "$HELPERS/umount.fuse" /usr/local 2>"$TEST_DIR/other.err" || fail 'nothing is mounted there'
grep -q 'not mounted' "$TEST_DIR/other.err" || fail "$(cat "$TEST_DIR/other.err")"
mount --bind /usr "$TEST_DIR/other"
"$HELPERS/umount.fuse" "$TEST_DIR/other"
! mountpoint -q "$TEST_DIR/other" || fail 'umount.fuse did not pass it on'
if command -v systemd-analyze >/dev/null; then
    systemd-analyze verify --man=no "$TEST_DIR/root/usr/local/lib/systemd/system/aerofs@.service" >"$TEST_DIR/verify.out" 2>&1 || fail "systemd-analyze: $(cat "$TEST_DIR/verify.out")"
    ! grep -q aerofs "$TEST_DIR/verify.out" || fail "systemd-analyze: $(cat "$TEST_DIR/verify.out")"
fi
END
export HELPERS=$helpers STORE MNT
limited unshare -m --propagation private bash inside.sh >inside.out 2>&1 || fail "in its own name space: $(cat inside.out)"
run_make uninstall
same 'left after make uninstall' '' "$(cd root && find . ! -type d)"
# The helper of somebody else is left alone, by both.
mkdir -p root/sbin && echo '#!/bin/sh' >root/sbin/umount.fuse
run_make install
run_make uninstall
same 'a umount.fuse of somebody else' './sbin/umount.fuse' "$(cd root && find . ! -type d)"

# ---- the system log ----

# A /dev of our own, with a log that we read. One line when it is mounted, one when it ends; none for an operation.
mkdir -p dev
cat >logged.sh <<'END'
set -euo pipefail
mount -t tmpfs tmpfs "$TEST_DIR/dev"
for node in "null c 1 3" "zero c 1 5" "urandom c 1 9" "fuse c 10 229"; do
    # shellcheck disable=SC2086
    set -- $node
    mknod -m 666 "$TEST_DIR/dev/$1" "$2" "$3" "$4"
done
python3 - "$TEST_DIR/dev/log" >"$TEST_DIR/syslog" <<'PY' &
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
s.settimeout(60)
while True:
    line = s.recv(8192).decode()
    print(line, flush=True)
    if "is closed" in line:
        break
PY
reader=$!
while [ ! -S "$TEST_DIR/dev/log" ]; do sleep 0.02; done
mount --bind "$TEST_DIR/dev" /dev
"$AEROFS_MOUNT" "$STORE" "$MNT" >/dev/null
rm -rf "$MNT/many"* && mkdir "$MNT/many"
for i in {1..500}; do echo "$i" >"$MNT/many/$i"; done
cat "$MNT"/many/* >/dev/null
ls "$MNT/absent" 2>/dev/null || true
mkdir "$MNT/many" 2>/dev/null || true
rm -r "$MNT/many"
kill -HUP "$(cat "$STORE/lock")"
sync "$MNT"
"$AEROFS" umount "$MNT"
wait $reader
END
limited unshare -m --propagation private bash logged.sh >logged.out 2>&1 || fail "$(cat logged.out)"
same 'lines in the system log' 2 "$(wc -l <syslog)"
grep -q "aerofs\[[0-9]*\]: $STORE is mounted at $MNT" syslog && grep -q "aerofs\[[0-9]*\]: $MNT is unmounted" syslog || fail "$(cat syslog)"
