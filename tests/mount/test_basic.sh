#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Ordinary operations with shell tools, and system calls that those do not make (calls.c). At the end everything is compared again
# after an unmount and after a SIGKILL.
. "$(dirname "$0")/lib.sh"
needs setfattr getfattr

start
cd "$MNT"

# ---- the mount itself ----
same 'the root of a new store' "directory 755 $(id -u):$(id -g)" "$(stat -c '%F %a %u:%g' .)"
same 'a new store lists' '' "$(ls -A)"
same 'mode of the store' 700 "$(stat -c %a "$STORE")"
grep -q ' - fuse\.aerofs ' <(grep -F " $MNT " /proc/self/mountinfo) || fail 'the type of the mount is not fuse.aerofs'
grep -q 'default_permissions' <(grep -F " $MNT " /proc/self/mountinfo) || fail 'no default_permissions'
df -P . >/dev/null
[ "$(stat -f -c %a .)" -gt 0 ] || fail 'statfs reports no space'
same 'longest name by statfs' 255 "$(stat -f -c %l .)"

# ---- files ----
echo one >file
same 'a new file' one "$(cat file)"
echo two >>file
same 'an appended file' $'one\ntwo' "$(cat file)"
echo three >file
same 'an overwritten file' three "$(cat file)"
: >empty
same 'size of an empty file' 0 "$(stat -c %s empty)"
truncate -s 3 file
same 'a truncated file' thr "$(cat file)"
truncate -s 10 file
same 'size after truncate' 10 "$(stat -c %s file)"
same 'a truncated file is filled with zeros' "$(printf 'thr\0\0\0\0\0\0\0' | sha256sum)" "$(sha256sum <file)"
touch -d '2001-02-03 04:05:06.789 UTC' file
same 'mtime' 981173106.789000000 "$(date -r file +%s.%N)"
chmod 4751 file
same 'mode' 4751 "$(stat -c %a file)"
if [ "$(id -u)" -eq 0 ]; then
    chown 12:34 file
    same 'owner; the set-id bit goes with chown' '12:34 751' "$(stat -c '%u:%g %a' file)"
fi
(set -C && fails_with 'cannot overwrite' bash -C -c 'echo x >file')
fails_with 'No such file' cat missing
head -c 3000000 /dev/urandom >"$TEST_DIR/big"
cp "$TEST_DIR/big" big
cmp "$TEST_DIR/big" big
printf X | dd of=big bs=1 seek=1234567 conv=notrunc status=none
printf X | dd of="$TEST_DIR/big" bs=1 seek=1234567 conv=notrunc status=none
cmp "$TEST_DIR/big" big
split -b 100000 big part.
cat part.* | cmp - big
rm part.*

# ---- directories ----
mkdir -p a/b/c
fails_with 'File exists' mkdir a
fails_with 'Directory not empty' rmdir a
touch a/b/c/f
mv a/b/c a/moved
same 'a moved directory' f "$(ls a/moved)"
rmdir a/b
mkdir over
mv -T a/moved over
same 'moved over an empty directory' f "$(ls over)"
mkdir full full/x
fails_with 'Directory not empty' mv -T over full
echo new >n1 && echo old >n2 && mv n1 n2
same 'moved over a file' new "$(cat n2)"
fails_with 'cannot overwrite' mv -T n2 over
fails_with 'subdirectory of itself' mv full full/x
rm -r full

# ---- links ----
ln n2 hard
same 'link count' 2 "$(stat -c %h n2)"
echo changed >hard
same 'a hard link' changed "$(cat n2)"
rm n2
same 'the other name' 'changed 1' "$(cat hard) $(stat -c %h hard)"
ln -s hard soft
same 'a symlink' 'hard changed' "$(readlink soft) $(cat soft)"
long=$(printf 'x%.0s' {1..3000})
ln -s "$long" longlink
same 'a long symlink' "$long" "$(readlink longlink)"
ln -sfn a soft
same 'a replaced symlink' a "$(readlink soft)"
mkfifo fifo
same 'a FIFO' fifo "$(stat -c %F fifo)"
name=$(printf 'n%.0s' {1..255})
touch "$name" 'a name with spaces' $'new\nline' -- -dash ünï
rm "$name"
fails_with 'File name too long' touch "${name}n"

# ---- attributes of all sorts ----
setfattr -n user.colour -v green hard
setfattr -n user.empty hard
value=$(head -c 3000 /dev/zero | tr '\0' v)
setfattr -n user.long -v "$value" hard
same 'an xattr' green "$(getfattr --only-values -n user.colour hard)"
same 'a long xattr' "$value" "$(getfattr --only-values -n user.long hard)"
same 'names of xattrs' 'user.colour user.empty user.long' "$(getfattr hard | grep '^user' | sort | tr '\n' ' ' | sed 's/ $//')"
setfattr -n user.colour -v red hard
setfattr -x user.empty hard
fails_with 'No such attribute' getfattr -n user.empty hard
same 'a replaced xattr' red "$(getfattr --only-values -n user.colour hard)"
setfattr -n user.on.dir -v 1 a

# ---- sparse files ----
truncate -s 4T sparse
printf 'far' | dd of=sparse bs=1 seek=3T conv=notrunc status=none
same 'a sparse file' "4398046511104 far" "$(stat -c %s sparse) $(dd if=sparse bs=1 skip=3T count=3 status=none)"
[ "$(stat -c %b sparse)" -lt 1000 ] || fail "the sparse file takes $(stat -c %b sparse) blocks"
cp --sparse=always "$TEST_DIR/big" punched
fallocate -p -o 100000 -l 1000000 punched
cp "$TEST_DIR/big" "$TEST_DIR/punched"
fallocate -p -o 100000 -l 1000000 "$TEST_DIR/punched"
cmp punched "$TEST_DIR/punched"
[ $(($(stat -c '%b' punched) * 512)) -lt 2200000 ] || fail 'punching a hole has freed nothing'
rm sparse

# ---- open files ----
echo still here >unlinked
exec 5<unlinked
rm unlinked
same 'an unlinked open file' 'still here' "$(cat <&5)"
exec 5<&-
exec 6>busy
echo visible at once >&6
same 'bytes of an open file' 'visible at once' "$(cat busy)"
exec 6>&-
# Locks are the kernel's.
exec 7>lockfile
flock 7
fails_with '' flock -n lockfile true
exec 7>&-
flock -n lockfile true

# ---- .aerofs ----
same '.aerofs is not listed' '' "$(find . -maxdepth 1 -name .aerofs)"
grep -q '^state: running$' .aerofs/status
same '.aerofs/damage of a whole store' '' "$(cat .aerofs/damage)"
fails_with '' rm -r .aerofs
fails_with '' mkdir .aerofs
fails_with '' touch .aerofs/x
fails_with '' mv hard .aerofs
fails_with '' mv .aerofs elsewhere
same '.aerofs is there still' 'status' "$(cd .aerofs && ls status)"

# ---- whole trees ----
mkdir tree
cp -a /usr/include/linux tree/ 2>/dev/null || cp -a "$TEST_TOP/tests" tree/linux
source=$([ -d /usr/include/linux ] && echo /usr/include/linux || echo "$TEST_TOP/tests")
same 'cp -a' "$(list_tree "$source" times)" "$(list_tree tree/linux times)"
tar cf "$TEST_DIR/t.tar" -C tree .
mkdir untarred
tar xf "$TEST_DIR/t.tar" -C untarred
same 'tar' "$(list_tree tree times)" "$(list_tree untarred times)"
diff -r tree untarred
same 'find counts' "$(find "$source" | wc -l)" "$(find tree/linux | wc -l)"
[ "$(du -s tree | cut -f1)" -gt 100 ] || fail "du: $(du -s tree)"
rm -r untarred

# ---- permissions ----
if [ "$(id -u)" -eq 0 ]; then
    cd "$TEST_DIR"
    stop
    start -o allow_other
    open_to_others
    cd "$MNT"
    echo secret >private && chmod 600 private
    fails_with 'Permission denied' as_nobody cat private
    fails_with 'Permission denied' as_nobody touch by-nobody
    mkdir -m 1777 public
    as_nobody touch public/theirs
    same 'owner of a new file' 65534:65534 "$(stat -c %u:%g public/theirs)"
    echo mine >public/mine
    fails_with 'Operation not permitted' as_nobody rm -f public/mine
fi

# ---- system calls ----
mkdir calls
limited "$(helper calls)" "$MNT/calls" || fail 'see above'

# ---- it lasts ----
cd "$TEST_DIR"
list_tree "$MNT" times >before
list_xattrs() { # dangling links are an error to getfattr
    find "$MNT" ! -type l -print0 | sort -z | xargs -0 getfattr -d -m - --absolute-names
}
list_xattrs >before.xattr
grep -q 'user.colour="red"' before.xattr || fail 'the list of xattrs is incomplete'
sync "$MNT"
restart
list_tree "$MNT" times | diff before - || fail 'the tree differs after a SIGKILL'
list_xattrs | diff before.xattr - || fail 'xattrs differ after a SIGKILL'
stop
check_store
start
list_tree "$MNT" times | diff before - || fail 'the tree differs after an unmount'
same 'the next mount finds it clean' yes "$(status_of recovery_clean)"
rm -rf "${MNT:?}"/*
same 'deleting everything' '' "$(ls -A "$MNT")"
stop
check_store
