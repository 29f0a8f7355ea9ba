#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The commands: what they print of stores that are new, in use, killed, clean and damaged; their exit codes; that they change nothing.
. "$(dirname "$0")/lib.sh"
needs setfattr sqlite3

run() { # CODE COMMAND…: output in out and err; nothing in the store changes
    local code=$1 found=0 before
    shift
    before=$([ ! -d "$STORE" ] || [ -n "${IN_USE:-}" ] || state_of "$STORE")
    limited "$AEROFS" "$@" >out 2>err </dev/null || found=$?
    [ $found -eq "$code" ] || fail "exit code $found instead of $code: aerofs $*: $(cat out err | tail -n 3)"
    [ ! -d "$STORE" ] || [ -n "${IN_USE:-}" ] || same "the store after aerofs $*" "$before" "$(state_of "$STORE")"
}
prints() { grep -qE -- "$1" out || fail "'$1' is not in: $(head -n 20 out)"; }
is_json() { # of one object
    same 'valid JSON' 1 "$(sqlite3 :memory: "SELECT json_valid(readfile('$TEST_DIR/out')) AND json_type(readfile('$TEST_DIR/out')) = 'object';")"
}
json() { sqlite3 :memory: "SELECT json_extract(readfile('$TEST_DIR/out'), '\$.$1');"; }

# ---- help, versions, arguments ----

version=$(sed -n 's/.*AF_VERSION *"\(.*\)".*/\1/p' "$TEST_TOP/base/version.h")
for command in '' status check log dump; do
    # shellcheck disable=SC2086 # empty: none
    run 0 $command --help
    prints '[Uu]sage:.*aerofs'
    [ ! -s err ] || fail "aerofs $command --help prints to stderr"
    # shellcheck disable=SC2086
    run 0 $command --version
    prints "^aerofs.* $version$"
    [ -z "$command" ] || run 2 $command
    [ -z "$command" ] || { run 2 $command --colour "$STORE" && [ -s err ]; }
    [ -z "$command" ] || run 2 $command "$STORE" "$STORE"
done
run 2
run 2 frobnicate "$STORE"
limited "$AEROFS_MOUNT" --help >out
prints 'Exit status'
for option in create ro size= log= cache= commit_open= io= allow_other fsname=; do prints "^ *$option"; done
limited "$AEROFS_MOUNT" --version >out
prints "^aerofs-mount $version$"
# A full pipe is an error, not a success.
if [ -e /dev/full ]; then
    fails_with '' bash -c '"$0" --help >/dev/full' "$AEROFS"
    fails_with '' bash -c '"$0" --help >/dev/full' "$AEROFS_MOUNT"
fi

# ---- no store ----

run 3 status "$TEST_DIR/nowhere"
run 2 check "$TEST_DIR/nowhere"
run 3 log "$TEST_DIR/nowhere"
run 3 dump "$TEST_DIR/nowhere"
mkdir "$TEST_DIR/empty"
run 4 status "$TEST_DIR/empty"
run 2 check "$TEST_DIR/empty"
run 4 log "$TEST_DIR/empty"
run 4 dump "$TEST_DIR/empty"
touch "$TEST_DIR/file"
run 3 status "$TEST_DIR/file"

# ---- in use ----

start
mkdir "$MNT/dir"
echo 'a value' >"$MNT/dir/key"
head -c 100000 /dev/urandom >"$MNT/large"
ln -s dir/key "$MNT/link"
setfattr -n user.colour -v green "$MNT/dir/key"
sync "$MNT"
IN_USE=1
run 0 status "$MNT"
prints '^state: running$'
for key in lsn_appended lsn_applied lsn_durable lsn_checkpoint log_bytes cache_blocks space_used_blocks epoch inodes errors recovery io; do
    prints "^$key: ."
done
same 'inodes' 5 "$(sed -n 's/^inodes: //p' out)"
cp out text
run 0 status --json "$MNT"
is_json
same 'state in JSON' running "$(json state)"
same 'keys as text and as JSON' "$(cut -d: -f1 text)" "$(sqlite3 :memory: "SELECT key FROM json_each(readfile('$TEST_DIR/out'));")"
run 0 status --json "$STORE"
is_json
same 'state of a store in use' 'in use' "$(json state)"
same 'pid' "$DAEMON" "$(json pid)"
run 2 check "$STORE"
grep -q "$DAEMON" err || fail "aerofs check of a store in use: $(cat err)"
run 0 log "$STORE" # it is read as it stands, and says so
grep -q "in use" err || fail "aerofs log of a store in use: $(cat err)"
run 0 dump "$STORE"
grep -q "in use" err || fail "aerofs dump of a store in use: $(cat err)"
run 2 check "$MNT"
IN_USE=
# What is durable is what status says.
before=$(status_of lsn_durable)
echo more >"$MNT/more"
sync "$MNT/more"
[ "$(status_of lsn_durable)" -gt "$before" ] || fail 'lsn_durable has not moved with an fsync'
[ "$(status_of lsn_durable)" -le "$(status_of lsn_appended)" ] || fail 'more is durable than was appended'

# ---- dead ----

sleep 2.2 # let it say that the last flush is durable: a quiet log
kill -KILL "$DAEMON"
wait_for 20 gone "$DAEMON"
run 14 status "$MNT"
umount -l "$MNT"
run 0 status "$STORE"
prints '^state: needs recovery$'
run 0 status --json "$STORE"
is_json
same 'state of a killed store' 'needs recovery' "$(json state)"
run 0 check "$STORE"
prints 'replay'
prints 'no damage'
run 0 check --quiet "$STORE"
same 'lines of a quiet check' 1 "$(wc -l <out)"
run 0 check "$STORE" --skip-data
run 0 log "$STORE"
prints 'complete .*"key".* size=8'
prints 'make .*"dir"'
prints 'set-xattr .*user\.colour'
prints '^end: clean'
cp out log.out
run 0 log --all "$STORE"
prints '"key"'
segment=$(sed -n 's/.*segment \(0x[0-9a-f]*\)+.*/\1/p' log.out | head -n 1)
run 0 log --segment "$segment" "$STORE"
prints '"key"'
run 0 dump "$STORE"
prints 'superblock in force'
run 0 dump --superblocks "$STORE"
prints '^superblock slot [01]: sequence'
# A torn tail is reported and is no damage.
log=$(printf '%s/wal/%016x.seg' "$STORE" $((segment)))
offset=$(sed -n 's/^end: .*segment 0x[0-9a-f]*+\([0-9]*\),.*/\1/p' log.out)
next=$(((offset + 4095) / 4096 * 4096))
head -c 3000 /dev/urandom | dd of="$log" bs=1 seek=$next conv=notrunc status=none
run 0 check "$STORE"
prints 'no damage'
run 0 status "$STORE"
prints 'state: needs recovery'

# ---- clean ----

start
stop
run 0 status "$STORE"
prints '^state: clean$'
run 0 check "$STORE"
prints 'unmounted cleanly'
same 'what check has counted' '5' "$(sed -n 's/^inodes \([0-9]*\) .*/\1/p' out | awk '{ print $1 - 1 }')"
run 0 dump "$STORE"
prints 'entry .*"dir" -> inode'
prints 'xattr .*"user.colour"'
prints 'inline 8 bytes'
ino=$(sed -n 's/.*"key" -> inode \([0-9]*\).*/\1/p' out)
run 0 dump --inode "$ino" "$STORE"
prints 'inline 8 bytes "a value'
! grep -q '"dir"' out || fail 'dump --inode prints more than the inode'
run 0 dump --nodes "$STORE"
prints 'node at block'
run 0 dump --space "$STORE"
prints 'group 0'
# Without the lock's file, as in a copy.
cp -a --sparse=always "$STORE" copy
rm copy/lock
limited "$AEROFS" check copy >out || fail "check of a copy without lock: $(cat out)"
[ ! -e copy/lock ] || fail 'check has made a lock'

# ---- damaged ----

block=$("$AEROFS" dump copy | sed -n 's/^.* extent of file block 0 at block \([0-9]*\), count .*/\1/p' | head -n 1)
flip copy/data $((block * 4096 + 5))
STORE=$TEST_DIR/copy
run 1 check "$STORE"
prints "^damage: .*block $block"
prints 'is damaged: 1 finding'
run 0 check --skip-data "$STORE"
root=$("$AEROFS" dump --superblocks copy | sed -n 's/.*root at block \([0-9]*\),.*/\1/p' | tail -n 1)
flip copy/data $((root * 4096 + 100))
run 1 check "$STORE"
run 0 dump "$STORE"
prints "node at block $root.*not valid"
run 0 status "$STORE" # reads nothing of the tree
run 0 log "$STORE"
flip copy/superblock 100
flip copy/superblock $((65536 + 100))
run 7 status "$STORE"
prints '^state: damaged$'
run 7 status --json "$STORE"
is_json
run 1 check "$STORE"
run 7 dump "$STORE"
run 7 log "$STORE"
prints 'lsn' # everything that validates by itself
