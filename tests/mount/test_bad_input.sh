#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# What is no store, what is damaged, and what the machine does not give: each is one clear message and its own exit code, changes no
# byte, and never crashes. What can still be served is served, and what cannot is EIO and a line in .aerofs/damage, never other bytes.
#   FLIPS=500 AEROFS_TEST_SEED=7 tests/mount/test_bad_input.sh
. "$(dirname "$0")/lib.sh"
needs_root
needs setfattr getfattr
set_seed
flips=${FLIPS:-$((DEEP ? 500 : 12))}

# refused CODE PATTERN [OPTION…]: mounting $STORE fails so, leaves every byte of it alone and nothing mounted.
refused() {
    local code=$1 pattern=$2 before
    shift 2
    before=$([ ! -d "$STORE" ] || state_of "$STORE")
    exits "$code" "$pattern" "$AEROFS_MOUNT" "$@" "$STORE" "$MNT"
    same 'bytes of the store' "$before" "$([ ! -d "$STORE" ] || state_of "$STORE")"
    ! mounts_here | grep -qxF "$MNT" || fail 'it is mounted'
}
# checked CODE: aerofs check, and no command crashes or changes anything.
checked() {
    local code=0 before command
    before=$(state_of "$STORE")
    limited "$AEROFS" check "$STORE" >"$TEST_DIR/check.out" 2>&1 || code=$?
    [[ " $1 " == *" $code "* ]] || fail "aerofs check exits with $code, not $1: $(tail -n 3 "$TEST_DIR/check.out")"
    for command in status 'status --json' log 'log --all' dump 'dump --nodes --space --superblocks'; do
        code=0
        # shellcheck disable=SC2086 # words
        limited "$AEROFS" $command "$STORE" >/dev/null 2>"$TEST_DIR/command.err" || code=$?
        [ "$code" -lt 20 ] || fail "aerofs $command exits with $code: $(cat "$TEST_DIR/command.err")"
    done
    same 'bytes of the store after the commands' "$before" "$(state_of "$STORE")"
}

# ---- what is no store ----

refused 3 'there is no store: .* does not exist.*--create'
mkdir "$STORE"
refused 4 'there is no store: .* is empty.*--create'
mkdir "$STORE/lost+found"
refused 4 'there is no store: .* is empty'
echo something >"$STORE/file"
refused 4 'is not an AeroFS store'
refused 4 'is not an AeroFS store' --create
rm -r "$STORE"
echo text >"$STORE"
refused 4 'is not a directory' --create
rm "$STORE"
mkdir "$STORE"
touch "$STORE/superblock"
refused 7 'superblock'
refused 7 'superblock' --create
head -c 131072 /dev/urandom >"$STORE/superblock"
refused 7 'no valid slot'
rm -r "$STORE"
mkdir "$STORE" "$STORE/wal"
touch "$STORE/data"
refused 7 "lost its file 'superblock'"
refused 7 "lost its file 'superblock'" --create # no interrupted creation: superblock.new is missing
rm -r "$STORE"

# ---- arguments ----

mkdir "$STORE" "$STORE/inside" "$TEST_DIR/file.d"
exits 2 'contain each other' "$AEROFS_MOUNT" --create "$STORE" "$STORE/inside"
exits 2 'contain each other' "$AEROFS_MOUNT" --create "$STORE" "$STORE"
exits 2 'contain each other' "$AEROFS_MOUNT" --create "$STORE/inside/new" "$STORE"
ln -s "$STORE/inside" "$TEST_DIR/link"
exits 2 'contain each other' "$AEROFS_MOUNT" --create "$STORE" "$TEST_DIR/link"
same 'refused stores' inside "$(ls -A "$STORE")"
rm -r "$STORE"
exits 3 'no such directory' "$AEROFS_MOUNT" --create "$STORE" "$TEST_DIR/nowhere"
touch "$TEST_DIR/file"
exits 3 'not a directory' "$AEROFS_MOUNT" --create "$STORE" "$TEST_DIR/file"
[ ! -e "$STORE" ] || fail 'a refused mount has made the store'
exits 2 "unknown option 'colour'" "$AEROFS_MOUNT" -o colour --create "$STORE" "$MNT"
exits 2 "unknown option 'colour='" "$AEROFS_MOUNT" -o ro,colour=red --create "$STORE" "$MNT"
exits 2 "unknown option '--colour'" "$AEROFS_MOUNT" --colour --create "$STORE" "$MNT"
exits 2 "unknown option '-x'" "$AEROFS_MOUNT" -x --create "$STORE" "$MNT"
exits 2 'MOUNTPOINT is missing' "$AEROFS_MOUNT" --create "$STORE"
exits 2 'STORE is missing' "$AEROFS_MOUNT"
exits 2 'too much' "$AEROFS_MOUNT" "$STORE" "$MNT" "$MNT"
exits 2 'needs a list' "$AEROFS_MOUNT" "$STORE" "$MNT" -o
for size in 0 x 1Q 1KK -1 '' 99999999999999999999 9999999T; do
    exits 2 'is no size' "$AEROFS_MOUNT" -o "size=$size" --create "$STORE" "$MNT"
done
exits 2 'io=magic' "$AEROFS_MOUNT" -o io=magic --create "$STORE" "$MNT"
exits 2 'commit_open=' "$AEROFS_MOUNT" -o commit_open=soon --create "$STORE" "$MNT"
[ ! -e "$STORE" ] || fail 'a refused mount has made the store'

# ---- a store with every kind of block in it, closed cleanly ($TEST_DIR/clean) and killed ($TEST_DIR/killed) ----

START_OPTIONS=(-o size=40M) # keeps the files small, which are hashed and copied again and again
start -o log=2M
mkdir "$MNT/dir"
for i in {1..400}; do
    echo "contents of the small file $i" >"$MNT/dir/small-$i"
done
for i in {1..20}; do
    head -c 100000 /dev/urandom >"$MNT/large-$i"
done
truncate -s 100M "$MNT/sparse"
echo end >>"$MNT/sparse"
ln -s "$(printf 'l%.0s' {1..2000})" "$MNT/link"
setfattr -n user.short -v value "$MNT/dir/small-1"
setfattr -n user.long -v "$(head -c 5000 /dev/zero | tr '\0' v)" "$MNT/dir/small-2"
stop
check_store
cp -a --sparse=always "$STORE" clean
start
for i in {1..50}; do
    echo "acknowledged $i" >"$MNT/acked-$i"
    sync "$MNT/acked-$i"
done
head -c 200000 /dev/urandom >"$MNT/acked-large"
sync "$MNT"
sleep 2.5 # the attestation of the last flush
list_tree "$MNT" >tree.killed
crash
check_store
cp -a --sparse=always "$STORE" killed
start
rm "$MNT"/acked-*
list_tree "$MNT" >tree.clean
stop

take() { # clean | killed: a fresh copy as $STORE
    rm -rf "$STORE"
    cp -a --sparse=always "$TEST_DIR/$1" "$STORE"
}
# What a mount of the damaged store shows: the tree of `which` byte for byte, or EIO.
compare_or_eio() { # clean | killed
    local errors
    list_tree "$MNT" >tree.found 2>tree.err || true
    errors=$(grep -vc 'Input/output error' tree.err || true)
    [ "$errors" -eq 0 ] || fail "an error that is not EIO: $(grep -v 'Input/output error' tree.err | head -n 3)"
    # Every line that is there must be one of the true ones.
    if grep -vxFf "tree.$1" tree.found >tree.wrong; then
        fail "not what was written: $(head -n 3 tree.wrong)"
    fi
    if [ -s tree.err ]; then
        [ -n "$(cat "$MNT/.aerofs/damage")" ] || fail 'an error, but .aerofs/damage is empty'
    else
        cmp -s tree.found "tree.$1" || fail "something is missing without an error: $(diff tree.found "tree.$1" | head -n 3)"
    fi
}
is_tree() { # FILE: what is mounted is what the file lists
    list_tree "$MNT" >tree.found && cmp -s tree.found "$1"
}
mount_whole() { # clean | killed: mounts, and everything is there
    start
    list_tree "$MNT" | diff - "tree.$1" >tree.diff || fail "the tree differs: $(head -n 3 tree.diff)"
    same 'damage' '' "$(cat "$MNT/.aerofs/damage")"
    stop
    check_store
}
newest_slot() { "$AEROFS" dump --superblocks "$STORE" | sed -n 's/^superblock in force: slot //p'; }
segments() { (cd "$STORE/wal" && printf '%s\n' *.seg); }
current_segment() { printf 'wal/%016x.seg' "$(($(status_of log_end_segment "$STORE")))"; }

# The copies are good: otherwise nothing below means anything.
for which in clean killed; do
    take $which
    mount_whole $which
done

# ---- versions ----

reseal=$(helper reseal -lxxhash)
for which in clean killed; do
    for slot in 0 1; do
        take $which
        "$reseal" "$STORE/superblock" $slot 8 4 2
        refused 6 'version'
        checked 2
        exits 6 'version' "$AEROFS" dump "$STORE"
    done
done
take clean
"$reseal" "$STORE/superblock" 0 16 8 0x100 # an incompatible feature
refused 6 'version|feature'
checked 2
take clean
"$reseal" "$STORE/superblock" 0 24 8 0x100 # one that permits reading
"$reseal" "$STORE/superblock" 1 24 8 0x100
refused 6 'version|feature'
checked '0 2'

# ---- superblocks that are whole and say what cannot be: offset, bytes, value ----

# Nobody can tell that such a value is wrong when it is a possible one; but it may not crash anything.
for field in '64 8 0' '72 8 0' '72 8 99' '80 8 0xffffffffffffffff' '88 8 0xffffffff' '96 8 0' '96 8 0xffffffff' '104 8 0' '104 8 4095' \
    '104 8 0xffffffffffff0000' '104 8 4096' '112 8 0' '120 8 0' '120 8 0xffffffffffffff' '120 8 7' '128 8 5' '136 8 99' '144 4 15' \
    '144 4 0xffffffff' '152 8 0' '152 8 0xffffffffffffffff' '168 8 0' '168 8 0xffffffffffff' '168 8 0xffffffffffffffff' '176 8 0' \
    '176 8 0xffffffffffffffff' '184 8 0' '208 4 0' '208 4 5000' '208 4 0xffffffff' '12 4 0' '12 4 0xffffffff' '56 8 1' '216 8 1' '240 8 1' \
    '264 8 0' '280 8 1' '512 8 1' '524 1 7'; do
    # One in four, another one each time; all of them with DEEP=1.
    [ "$DEEP" = 1 ] || [ $((RANDOM % 4)) -eq 0 ] || continue
    take killed
    # shellcheck disable=SC2086 # three words
    for slot in 0 1; do "$reseal" "$STORE/superblock" $slot $field; done
    checked '0 1 2'
    before=$(state_of "$STORE")
    code=0
    limited "$AEROFS_MOUNT" "$STORE" "$MNT" >/dev/null 2>mount.err || code=$?
    if [ $code -eq 0 ]; then
        note_daemon "$STORE"
        list_tree "$MNT" >tree.found 2>&1 || true
        is_daemon "$DAEMON" || fail "superblock field $field: the daemon has died"
        limited umount "$MNT"
        wait_for 60 gone "$DAEMON" || fail 'the daemon does not end'
    else
        [[ $code =~ ^(1|7|8|9|16)$ ]] || fail "superblock field $field: exit code $code: $(cat mount.err)"
        same "lines on stderr ($(cat mount.err))" 1 "$(wc -l <mount.err)"
        same "bytes of the store (superblock field $field)" "$before" "$(state_of "$STORE")"
    fi
done

# ---- superblocks ----

take killed
slot=$(newest_slot)
flip "$STORE/superblock" $((slot * 65536 + 200))
refused 7 'superblock'
checked 1
take killed
flip "$STORE/superblock" $(((1 - slot) * 65536 + 200)) # the older one: its loss costs nothing
checked '0 1'
mount_whole killed
take killed
flip "$STORE/superblock" 200
flip "$STORE/superblock" 65736
refused 7 'no valid slot'
checked 1
take clean
slot=$(newest_slot)
flip "$STORE/superblock" $((slot * 65536 + 200)) # the second publication of a clean end: the first one is the same tree
mount_whole clean
take killed
dd if=/dev/zero of="$STORE/superblock" bs=65536 count=2 status=none
refused 7 'superblock'
for size in 0 4096 65535; do
    take killed
    truncate -s $size "$STORE/superblock"
    checked '1 2'
    exits_with=$("$AEROFS_MOUNT" "$STORE" "$MNT" >/dev/null 2>&1 || echo $?)
    [[ ${exits_with:-0} =~ ^(7|16)$ ]] || fail "a superblock of $size bytes: exit code ${exits_with:-0}"
done
take killed
rm "$STORE/superblock"
refused 7 "lost its file 'superblock'"
refused 7 "lost its file 'superblock'" --create
checked '1 2'

# ---- the log ----

take killed
log=$(current_segment)
flip "$STORE/$log" 200 # header
refused '8' 'log|segment'
checked 1
# A record in the middle, with acknowledged ones behind it.
take killed
offset=$("$AEROFS" log "$STORE" | sed -n 's/^.*segment 0x[0-9a-f]*+\([0-9]*\) .*"acked-25".*/\1/p' | head -n 1)
[ -n "$offset" ] || fail 'aerofs log does not show the record of acked-25'
flip "$STORE/$log" $((offset + 60))
refused 8 "$log, offset [0-9]*: record [0-9]* is unreadable"
checked 1
code=0
"$AEROFS" log "$STORE" >log.out 2>/dev/null || code=$?
same 'exit code of aerofs log' 8 $code
grep -q 'acked-40' log.out || fail 'aerofs log does not show what can still be read'
# The last acknowledged record: the attestation behind it proves that it was durable.
take killed
offset=$("$AEROFS" log "$STORE" | sed -n 's/^.*segment 0x[0-9a-f]*+\([0-9]*\) .*"acked-large".*/\1/p' | tail -n 1)
flip "$STORE/$log" $((offset + 60))
refused 8 'log'
# Missing and short segments.
take killed
first=$(printf 'wal/%016x.seg' "$("$AEROFS" dump --superblocks "$STORE" | sed -n 's/.* log_segment \([0-9]*\),.*/\1/p' | sort -n | tail -n 1)")
after=$(printf 'wal/%016x.seg' $(($(status_of log_end_segment "$STORE") + 1)))
for segment in $(segments); do
    take killed
    rm "$STORE/wal/$segment"
    code=0
    before=$(state_of "$STORE")
    limited "$AEROFS_MOUNT" "$STORE" "$MNT" >/dev/null 2>"$TEST_DIR/mount.err" || code=$?
    if [ $code -eq 0 ]; then # what a checkpoint has made unnecessary may go, and a standby behind the successor
        note_daemon "$STORE"
        [[ "wal/$segment" < "$first" || "wal/$segment" > "$after" ]] || fail "mounts without $segment ($first to $after)"
        is_tree "tree.killed" || fail "the tree differs without $segment"
        stop
    else
        same "exit code without $segment" 9 $code
        same 'bytes of the store' "$before" "$(state_of "$STORE")"
    fi
done
take killed
truncate -s 5000 "$STORE/$log"
refused 9 'segment|short|log'
checked 1
take killed
rm -r "$STORE/wal"
refused 9 'wal|log|segment'
checked '1 2'

# ---- data ----

take killed
truncate -s 100000 "$STORE/data"
refused 16 'data'
checked '1 2'
take killed
rm "$STORE/data"
refused 16 'data'
checked '1 2'
block_of_large=$("$AEROFS" dump "$TEST_DIR/clean" | sed -n 's/^.* extent of file block 0 at block \([0-9]*\), count .*/\1/p' | head -n 1)
take clean
flip "$STORE/data" $((block_of_large * 4096 + 100))
checked 1
grep -q "block $block_of_large" check.out || fail "aerofs check does not name block $block_of_large: $(cat check.out)"
start
compare_or_eio clean
[ -s tree.err ] || fail 'a rotten data block was read without an error'
grep -q AF_E_DATA_CHECKSUM "$MNT/.aerofs/damage" || fail ".aerofs/damage: $(cat "$MNT/.aerofs/damage")"
same 'files that cannot be read' 1 "$(grep -c 'Input/output' tree.err)"
echo 'the rest goes on' >"$MNT/dir/new" && sync "$MNT/dir/new"
rm "$MNT"/large-*
stop
checked 0 # the file is gone, and the damage with it

# ---- the tree ----

nodes() { "$AEROFS" dump --nodes "$1" | sed -n 's/^ *node at block \([0-9]*\), level \([0-9]*\),.*/\2 \1/p'; }
root=$(nodes clean | sort -rn | head -n 1 | cut -d' ' -f2)
take clean
flip "$STORE/data" $((root * 4096 + 1000))
refused 1 "block $root"
checked 1
leaves=($(nodes clean | sed -n 's/^0 //p'))
for leaf in "${leaves[@]: -1}" "${leaves[1]}"; do
    take clean
    flip "$STORE/data" $((leaf * 4096 + 100))
    checked 1
    grep -q "block $leaf" check.out || fail "aerofs check does not name block $leaf: $(cat check.out)"
    start
    compare_or_eio clean
    [ -s tree.err ] || fail "a rotten leaf ($leaf) was read without an error"
    stop
    checked 1
done

# ---- the space map ----

for which in clean killed; do
    for name in index bitmap; do
        take $which
        slot=$("$AEROFS" dump --space "$STORE" |
            if [ $name = index ]; then sed -n 's/^index 0: slot \([01]\),.*/\1/p'; else sed -n 's/^ *group 0: slot \([01]\),.*/\1/p'; fi)
        block=$([ $name = index ] && echo $((2 + slot)) || echo "$slot")
        flip "$STORE/data" $((block * 4096 + 80))
        checked 1
        code=0
        limited "$AEROFS_MOUNT" -o size=40M "$STORE" "$MNT" >/dev/null 2>"$TEST_DIR/mount.err" || code=$?
        if [ $code -eq 0 ]; then # it is read when something is allocated; all that is stored can be read
            note_daemon "$STORE"
            is_tree "tree.$which" || fail "the tree differs with a rotten $name"
            (head -c 500000 /dev/urandom >"$MNT/try" && sync "$MNT/try") 2>try.err && fail "blocks were allocated from a rotten $name"
            grep -q 'Input/output error\|Read-only' try.err || fail "allocation from a rotten $name: $(cat try.err)"
            limited umount "$MNT"
            wait_for 60 gone "$DAEMON" || fail 'the daemon does not end'
        else
            same "exit code for a rotten $name" 1 $code
        fi
    done
done

# ---- bytes at random, in what is in use ----

used_offsets() { # FILE: offsets of blocks that are not all zeros
    { cmp -l -n "$(stat -c %s "$1")" "$1" /dev/zero || true; } | awk '{ b = int(($1 - 1) / 512); if (b != last) { print $1 - 1; last = b } }'
}
for which in clean killed; do
    for file in superblock data $(cd $which && echo wal/*.seg); do
        used_offsets "$which/$file" | sed "s|^|$file |"
    done >"offsets.$which"
done
served=0 refusals=0
for ((n = 0; n < flips; n++)); do
    which=clean
    ((n % 2)) || which=killed
    kind=$([ $((n % 3)) -eq 0 ] && echo superblock || { [ $((n % 3)) -eq 1 ] && echo wal || echo data; })
    grep "^$kind" "offsets.$which" >offsets.kind
    line=$((1 + (RANDOM * 32768 + RANDOM) % $(wc -l <offsets.kind)))
    read -r file offset < <(sed -n "${line}p" offsets.kind)
    offset=$((offset + RANDOM % 64))
    take $which
    [ "$offset" -lt "$(stat -c %s "$STORE/$file")" ] || continue
    flip "$STORE/$file" "$offset"
    what="byte $offset of $file ($which, seed $SEED)"
    checked '0 1 2'
    before=$(state_of "$STORE")
    code=0
    limited "$AEROFS_MOUNT" "$STORE" "$MNT" >/dev/null 2>"$TEST_DIR/mount.err" || code=$?
    if [ $code -eq 0 ]; then
        served=$((served + 1))
        note_daemon "$STORE"
        compare_or_eio $which || fail "$what"
        is_daemon "$DAEMON" || fail "the daemon has died: $what"
        limited umount "$MNT"
        wait_for 60 gone "$DAEMON" || fail "the daemon does not end: $what"
    else
        refusals=$((refusals + 1))
        [[ $code =~ ^(1|6|7|8|9|16)$ ]] || fail "exit code $code: $what: $(cat "$TEST_DIR/mount.err")"
        same "lines on stderr ($(cat mount.err))" 1 "$(wc -l <mount.err)"
        same "bytes of the store ($what)" "$before" "$(state_of "$STORE")"
    fi
done
say "$flips bytes inverted: $refusals stores refused, $served served"

# ---- in use ----

take clean
start
mkdir mnt2
exits 5 "in use by PID $DAEMON" "$AEROFS_MOUNT" "$STORE" "$TEST_DIR/mnt2"
exits 2 "process $DAEMON" "$AEROFS" check "$STORE"
echo 1 >"$STORE/lock" # the text decides nothing
exits 5 'in use' "$AEROFS_MOUNT" "$STORE" "$TEST_DIR/mnt2"
same 'the first mount goes on' 'contents of the small file 7' "$(cat "$MNT/dir/small-7")"
stop

# ---- permissions ----

take clean
open_to_others
before=$(state_of "$STORE")
exits 10 'permission' as_nobody "$AEROFS_MOUNT" "$STORE" "$MNT"
exits 2 'Permission denied' as_nobody "$AEROFS" check "$STORE"
exits 10 'Permission denied' as_nobody "$AEROFS" status "$STORE"
same 'bytes of the store' "$before" "$(state_of "$STORE")"
mkdir -m 755 locked
exits 10 'Permission denied|permission' as_nobody "$AEROFS_MOUNT" --create "$TEST_DIR/locked/store" "$MNT"
same 'what a refused --create has made' '' "$(ls -A locked)"

# ---- no FUSE ----

take clean
before=$(state_of "$STORE")
if unshare -m true 2>/dev/null; then
    without_device() { limited unshare -m bash -c 'mount -t tmpfs none /dev && exec "$@"' _ "$@"; }
    null_device() { limited unshare -m bash -c 'mount --bind /dev/null /dev/fuse && exec "$@"' _ "$@"; }
    exits 13 '/dev/fuse' without_device "$AEROFS_MOUNT" "$STORE" "$MNT"
    exits 13 'mount' null_device "$AEROFS_MOUNT" "$STORE" "$MNT"
    exits 13 '/dev/fuse' without_device "$AEROFS_MOUNT" --create "$TEST_DIR/never" "$MNT"
    [ ! -e never ] || fail 'a store was made without FUSE'
    mount_whole clean
fi

# ---- disks ----

loop_disk disk 64
STORE=$TEST_DIR/disk/store
# Full before there is a store.
head -c 200000000 /dev/zero >disk/ballast 2>/dev/null || true
exits 11 'space' "$AEROFS_MOUNT" --create "$STORE" "$MNT"
rm disk/ballast
rm -rf "$STORE"
start -o log=2M
echo kept >"$MNT/kept"
head -c 5000000 /dev/urandom >"$MNT/large"
sync "$MNT"
md5sum <"$MNT/large" >large.sum
crash
mount -o remount,ro "$TEST_DIR/disk" || fail 'cannot remount the disk read-only'
refused 12 'read-only'
refused 12 'recover' -o ro
checked 0
mount -o remount,rw "$TEST_DIR/disk"
# Full when the store is to be recovered.
head -c 200000000 /dev/zero >disk/ballast 2>/dev/null || true
code=0
limited "$AEROFS_MOUNT" "$STORE" "$MNT" >/dev/null 2>mount.err || code=$?
if [ $code -eq 0 ]; then
    note_daemon "$STORE"
    same 'a key on the full disk' kept "$(cat "$MNT/kept")"
    md5sum <"$MNT/large" | cmp - large.sum
    rm "$MNT/large"
    stop
else
    same 'exit code on a full disk' 11 $code
    same "lines on stderr ($(cat mount.err))" 1 "$(wc -l <mount.err)"
fi
rm disk/ballast
start
same 'a key after the disk was full' kept "$(cat "$MNT/kept")"
stop
check_store
# Clean, on a read-only disk.
mount -o remount,ro "$TEST_DIR/disk"
refused 12 'read-only.*-o ro'
start -o ro
same 'a key on a read-only disk' kept "$(cat "$MNT/kept")"
fails_with 'Read-only file system' touch "$MNT/new"
stop
check_store
wait_for 10 umount "$TEST_DIR/disk" || fail 'the disk is still in use'
