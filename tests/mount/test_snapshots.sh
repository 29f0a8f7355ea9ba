#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Snapshots through a mount: what they show and refuse, that they outlive a kill, and that their space comes back.
. "$(dirname "$0")/lib.sh"

used() { df --output=used "$MNT" | tail -n 1; }
tree_sum() { (cd "$1" && find . -printf '%P %y %m %n %s %T@\n' | sort && find . -type f -print0 | sort -z | xargs -0 -r sha256sum) | sha256sum; }
little_used() { [ "$(used)" -le "$1" ]; }

start -o log=8M
snapshots=$MNT/.aerofs/snapshots
mkdir -p "$MNT/d/e"
for i in $(seq 200); do echo "value $i" >"$MNT/d/k$i"; done
head -c 3000000 /dev/urandom >"$MNT/big"
ln "$MNT/big" "$MNT/d/link"
ln -s ../big "$MNT/d/symlink"
sync "$MNT" # the last close has been seen
before=$(tree_sum "$MNT")
empty=$(used)

# ---- what it shows ----

limited mkdir "$snapshots/one"
same 'the snapshot' "$before" "$(tree_sum "$snapshots/one")"
rm -r "$MNT/d/e" "$MNT/big"
for i in $(seq 1 2 200); do echo "other $i" >"$MNT/d/k$i"; done
: >"$MNT/d/k2"
mv "$MNT/d/k4" "$MNT/k4"
same 'the snapshot after changes' "$before" "$(tree_sum "$snapshots/one")"
[ "$(stat -c %i "$MNT/d")" != "$(stat -c %i "$snapshots/one/d")" ] || fail "the same inode number in two views"
for where in . .aerofs; do
    ! ls -A "$MNT/$where" | grep -qx one || fail "$where lists the snapshot"
done
same 'the list' one "$(ls "$snapshots")"

# ---- what it refuses ----

fails_with 'Read-only file system' touch "$snapshots/one/d/k1"
fails_with 'Read-only file system' bash -c 'echo x >"$0"' "$snapshots/one/new"
fails_with 'Read-only file system' rm "$snapshots/one/d/k1"
fails_with 'Read-only file system' mkdir "$snapshots/one/dir"
fails_with 'Read-only file system' mv "$MNT/k4" "$snapshots/one/k4"
fails_with 'Read-only file system' chmod 600 "$snapshots/one/d/k1"
fails_with 'Read-only file system' truncate -s 0 "$snapshots/one/d/k1"
fails_with 'Read-only file system' setfattr -n user.x -v y "$snapshots/one/d/k1"
fails_with 'cross-device link' ln "$snapshots/one/d/k1" "$MNT/linked"
fails_with 'File exists' mkdir "$snapshots/one"
fails_with 'not permitted' mv "$snapshots/one" "$snapshots/two"
fails_with 'not permitted' touch "$snapshots/file"
fails_with 'No such file' rmdir "$snapshots/none"
fails_with 'Permission denied' setpriv --reuid=12345 --regid=12345 --clear-groups mkdir "$snapshots/theirs"

# ---- the command ----

limited "$AEROFS" snapshot create "$MNT" 'with space'
fails_with 'there is one of that name' "$AEROFS" snapshot create "$MNT" 'with space'
fails_with 'there is none of that name' "$AEROFS" snapshot delete "$MNT" nothing
fails_with 'no mount point' "$AEROFS" snapshot list "$TEST_DIR"
limited "$AEROFS" snapshot list "$MNT" >list
same 'lines of the list' 2 "$(grep -c 'lsn .*inodes' list)"
grep -q '  with space$' list || fail "the list lacks a name: $(cat list)"

# ---- a kill ----

second=$(tree_sum "$MNT")
limited mkdir "$snapshots/two"
head -c 500000 /dev/urandom >"$MNT/more"
crash
start -o log=8M
same 'the first snapshot after a kill' "$before" "$(tree_sum "$snapshots/one")"
same 'the second one after a kill' "$second" "$(tree_sum "$snapshots/two")"
limited cp -a "$snapshots/one/big" "$MNT/restored"
cmp "$MNT/restored" "$snapshots/one/d/link" || fail "the copy of a file differs"
exec 5<"$snapshots/one/d/k7"
limited rmdir "$snapshots/one"
[ ! -e "$snapshots/one" ] || fail "it is still there"

exec 5<&-
same 'the second one after the deletion' "$second" "$(tree_sum "$snapshots/two")"

# ---- going back ----

third=$(tree_sum "$MNT")
exec 5<"$MNT/d/k9" 6>"$MNT/open" 7<"$MNT"
echo 'not completed' >&6
cat "$MNT/d/k1" "$MNT/d/k3" >/dev/null
[ ! -e "$MNT/d/e" ] || fail "d/e is there"
printf 'mine' >"$MNT/only-now"
third=$(sync "$MNT" && rm "$MNT/only-now" && tree_sum "$MNT")
limited "$AEROFS" snapshot rollback "$MNT" two --keep third
fails_with 'Stale file handle' cat <&5
same 'the tree after going back' "$second" "$(tree_sum "$MNT")"
[ ! -e "$MNT/open" ] || fail "a file that was not completed is there"
[ ! -e "$MNT/restored" ] || fail "a file that was made later is there"
fails_with 'Stale file handle' bash -c 'echo x >&6'
exec 5<&- 6>&- 7<&-
fails_with 'there is none of that name' "$AEROFS" snapshot rollback "$MNT" nothing
fails_with 'there is one of that name' "$AEROFS" snapshot rollback "$MNT" two --keep third
ls "$snapshots" | grep -qx third || fail "the state before is not listed: $(ls "$snapshots")"
crash
start -o log=8M
same 'the tree after going back and a kill' "$second" "$(tree_sum "$MNT")"
limited "$AEROFS" snapshot rollback "$MNT" third >out
grep -q "the state before is snapshot 'before-rollback-" out || fail "says $(cat out)"
[ -f "$MNT/restored" ] || fail "not back where it was"
echo new >"$MNT/after-all" && sync "$MNT/after-all"
for name in third $(ls "$snapshots" | grep before-rollback); do limited rmdir "$snapshots/$name"; done
sync "$MNT"

# ---- the space ----

for i in $(seq 40); do
    head -c 200000 /dev/urandom >"$MNT/d/churn$((i % 5))"
    limited mkdir "$snapshots/s$i"
done
[ "$(used)" -gt $((empty + 5000)) ] || fail "40 snapshots of 200 kB each hold nothing"
for i in $(seq 40 -2 1) $(seq 1 2 40); do limited rmdir "$snapshots/s$i"; done
limited rmdir "$snapshots/two"
limited "$AEROFS" snapshot delete "$MNT" 'with space'
rm -rf "${MNT:?}"/*
sync "$MNT"
wait_for 30 little_used 200 || fail "$(used) kB are in use after everything was deleted"
stop
check_store
