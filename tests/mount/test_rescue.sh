#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# `aerofs rescue`: of a sound store everything, of a damaged one everything but what it names as lost, compared byte by byte with what the
# store held: data, leaves, inner nodes and the root damaged, the log damaged in the middle, the newest superblock or both lost, the space
# map damaged, `data` cut off, bytes inverted at random. The store is not changed. And what each of these refuses at the mount.
#   DEEP=1 AEROFS_TEST_SEED=7 tests/mount/test_rescue.sh     every node, more bytes at random
. "$(dirname "$0")/lib.sh"
needs_root
needs setfattr python3
set_seed
rescued() { python3 "$TEST_TOP/tests/mount/rescued.py" "$@"; }

# ---- a store with one of everything, closed ($TEST_DIR/clean) and killed ($TEST_DIR/killed) ----

START_OPTIONS=(-o size=128M)
start -o log=2M
mkdir -p "$MNT/many" "$MNT/deep/a/b/c" "$MNT/empty"
python3 - "$MNT" <<'PY'
import os, sys
mnt = sys.argv[1]
for i in range(600):  # three of them to a leaf
    with open(f"{mnt}/many/file-{i:04}", "w") as f:
        f.write(f"contents of the small file {i:04}\n" * 31)
for i in range(3):
    with open(f"{mnt}/deep/a/b/large-{i}", "wb") as f:
        f.write(os.urandom(700000 + i * 77777))
with open(f"{mnt}/sparse", "wb") as f:
    for i in range(5):
        f.seek(i * 10000000 + 12345)
        f.write(b"island %d" % i)
    f.truncate(90000000)
os.symlink("deep/a", f"{mnt}/short-link")
os.symlink("x" * 3000, f"{mnt}/long-link")
os.link(f"{mnt}/deep/a/b/large-0", f"{mnt}/hard-link")
os.mkfifo(f"{mnt}/fifo")
os.mknod(f"{mnt}/device", 0o20644, os.makedev(1, 3))
open(f"{mnt}/odd\nname\\", "w").close()
os.chmod(f"{mnt}/many/file-0000", 0o4751)
os.chown(f"{mnt}/many/file-0001", 12, 34)
os.utime(f"{mnt}/many/file-0002", ns=(123456789, 987654321012))
os.chmod(f"{mnt}/empty", 0o1777)
os.utime(f"{mnt}/empty", ns=(1, 2))
PY
setfattr -n user.short -v value "$MNT/many/file-0003"
setfattr -n user.big -v "$(head -c 3000 /dev/zero | tr '\0' v)" "$MNT/deep/a/b/large-1"
rescued list "$MNT" >clean.json
stop
check_store
cp -a --sparse=always "$STORE" clean
start -o log=2M
for i in {1..40}; do
    echo "acknowledged $i" >"$MNT/acked-$i"
    sync "$MNT/acked-$i"
done
rm "$MNT/many/file-0100"
mv "$MNT/deep/a/b/c" "$MNT/moved"
head -c 300000 /dev/urandom >"$MNT/acked-large"
sync "$MNT"
sleep 1.6 # the attestation of the last flush
crash
cp -a --sparse=always "$STORE" killed
start
rescued list "$MNT" >killed.json
stop

take() { # clean | killed
    rm -rf "$STORE"
    cp -a --sparse=always "$TEST_DIR/$1" "$STORE"
}
# rescue_gives CODE EXPECTED: exit code, and what comes out; prints how many paths differ. The store is left as it was.
rescue_gives() {
    local code=0 before differ
    rm -rf out out.report
    before=$(state_of "$STORE")
    limited "$AEROFS" rescue "$STORE" out >rescue.out 2>rescue.err || code=$?
    [ $code -eq "$1" ] || fail "aerofs rescue exits with $code, not $1: $(tail -n 4 rescue.out rescue.err)"
    cmp -s rescue.out out.report || fail 'the report and the output differ'
    same 'bytes of the store after a rescue' "$before" "$(state_of "$STORE")"
    differ=$(rescued compare "$2" out out.report) || fail "other than the report says: $(tail -n 6 out.report)"
    printf '%s' "$differ"
}
refused() { # CODE PATTERN
    local before
    before=$(state_of "$STORE")
    exits "$1" "$2" "$AEROFS_MOUNT" "$STORE" "$MNT"
    same 'bytes of the store after a refused mount' "$before" "$(state_of "$STORE")"
}
flip_bit() { # FILE OFFSET
    local byte
    byte=$(od -An -tu1 -j "$2" -N1 "$1" | tr -d ' ')
    # shellcheck disable=SC2059 # the format is an octal escape
    printf "\\$(printf %o $((byte ^ (1 << RANDOM % 8))))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# ---- sound stores ----

take clean
same 'paths that differ, clean' 0 "$(rescue_gives 0 clean.json)"
[ "$(du -k out/sparse | cut -f1)" -lt 200 ] || fail "a sparse file takes $(du -k out/sparse)"
same 'links of a hard link' 2 "$(stat -c %h out/hard-link)"
take killed
same 'paths that differ, killed' 0 "$(rescue_gives 0 killed.json)"
grep -q 'nothing of it had to be given up' out.report || fail "$(cat out.report)"

# ---- what it refuses ----

mkdir -p full && touch full/file
exits 15 'not empty' "$AEROFS" rescue "$STORE" full
exits 3 'cannot make' "$AEROFS" rescue "$STORE" nowhere/out
touch out2.report
exits 15 'cannot make the report' "$AEROFS" rescue "$STORE" out2
[ ! -e out2 ] || fail 'a refused rescue has made its directory'
mkdir -p empty-dir
exits 4 'not an AeroFS store' "$AEROFS" rescue empty-dir out3
start
exits 5 'in use' "$AEROFS" rescue "$STORE" out4
stop

# ---- the tree ----

nodes() { "$AEROFS" dump --nodes "$TEST_DIR/clean" | sed -n "s/^ *node at block \([0-9]*\), level $1,.*/\1/p"; }
mapfile -t leaves < <(nodes 0)
mapfile -t inner < <(nodes 1)
mapfile -t top < <(nodes 2)
[ ${#top[@]} -eq 1 ] || fail 'the tree does not have three levels'
# The leaves that tell where file data lies: without them a file seems to have a hole.
mapfile -t with_extents < <("$AEROFS" dump --nodes "$TEST_DIR/clean" |
    awk '/node at block [0-9]*, level/ { sub(",", "", $4); leaf = $4 } / extent of file block / && leaf != last { print leaf; last = leaf }')
[ ${#with_extents[@]} -gt 0 ] || fail 'no leaf has extents'
chosen=("${leaves[@]}")
[ "$DEEP" = 1 ] || chosen=("${leaves[0]}" "${with_extents[0]}" "${with_extents[-1]}")
for leaf in "${chosen[@]}"; do
    take clean
    flip_bit "$STORE/data" $((leaf * 4096 + RANDOM % 4096))
    differ=$(rescue_gives 1 clean.json)
    # The first leaf has the root with all names in it: everything is in lost+found then.
    [ "$leaf" = "${leaves[0]}" ] || [ "$differ" -le 120 ] || fail "one leaf takes too much: $differ paths: $(tail -n 3 out.report)"
    [ "$(find out ! -type d | wc -l)" -ge 550 ] || fail "only $(find out ! -type d | wc -l) files are there without leaf $leaf"
done
# Inner nodes: what hung below is found again, all of it.
nodes=("${inner[0]}" "${top[0]}")
[ "$DEEP" != 1 ] || nodes=("${inner[@]}" "${top[0]}")
for node in "${nodes[@]}"; do
    take clean
    flip_bit "$STORE/data" $((node * 4096 + RANDOM % 4096))
    same "paths that differ without the inner node $node" 0 "$(rescue_gives 1 clean.json)"
    grep -q 'a search has found' out.report || fail "$(cat out.report)"
done
take clean
flip_bit "$STORE/data" $((inner[0] * 4096 + 100))
code=0
rm -rf out out.report
"$AEROFS" rescue --no-search "$STORE" out >rescue.out 2>&1 || code=$?
same 'exit code without a search' 1 $code
grep -q 'what hung below it is lost' out.report || fail "$(cat out.report)"
# A log on top of a tree that has lost a node.
take killed
flip_bit "$STORE/data" $((inner[-1] * 4096 + RANDOM % 4096))
same 'paths that differ, killed, without an inner node' 0 "$(rescue_gives 1 killed.json)"

# ---- file data, the map ----

take clean
block=$("$AEROFS" dump clean | sed -n 's/^ *[0-9]* extent of file block 0 at block \([0-9]*\), count [0-9]*,.*/\1/p' | head -n 1)
flip_bit "$STORE/data" $((block * 4096 + RANDOM % 4096))
[ "$(rescue_gives 1 clean.json)" -ge 1 ] || fail 'nothing differs with a rotten data block'
grep -q '^lost: /.*: bytes 0-4095: file data does not match its checksum' out.report || fail "$(cat out.report)"
take killed
for slot in 0 1 2 3; do flip_bit "$STORE/data" $((slot * 4096 + 100)); done
refused 1 'aerofs rescue'
same 'paths that differ without the space map' 0 "$(rescue_gives 0 killed.json)"

# ---- superblocks ----

newest() { "$AEROFS" dump --superblocks "$STORE" | sed -n 's/^superblock in force: slot //p'; }
take killed
flip_bit "$STORE/superblock" $(($(newest) * 65536 + RANDOM % 280))
refused 7 'superblock.*aerofs rescue'
same 'paths that differ without the newest superblock' 0 "$(rescue_gives 1 killed.json)"
take clean
flip_bit "$STORE/superblock" $((RANDOM % 280))
flip_bit "$STORE/superblock" $((65536 + RANDOM % 280))
refused 7 'no valid slot.*aerofs rescue'
same 'paths that differ without superblocks' 0 "$(rescue_gives 1 clean.json)"
take clean
rm "$STORE/superblock"
refused 7 'aerofs rescue'
same 'paths that differ without the file superblock' 0 "$(rescue_gives 1 clean.json)"
take killed
rm "$STORE/superblock" # then the log is lost too: what was closed before is there
code=0
rm -rf out out.report
"$AEROFS" rescue "$STORE" out >rescue.out 2>&1 || code=$?
same 'exit code without superblocks and with a log' 1 $code
grep -q 'the log is given up: what is needed' out.report || fail "$(cat out.report)"
cmp out/many/file-0500 <(for _ in {1..31}; do echo 'contents of the small file 0500'; done) || fail 'another content'

# ---- the log ----

take killed
line=$("$AEROFS" log "$STORE" | grep '"acked-25"' | head -n 1)
lsn=$(sed -n 's/^[* ] lsn \([0-9]*\) .*/\1/p' <<<"$line")
offset=$(sed -n 's/.*segment 0x[0-9a-f]*+\([0-9]*\) .*/\1/p' <<<"$line")
log=wal/$(printf '%016x' "$(sed -n 's/.*segment \(0x[0-9a-f]*\)+.*/\1/p' <<<"$line")").seg
flip_bit "$STORE/$log" $((offset + 60))
refused 8 "$log, offset [0-9]*: record $lsn is unreadable.*aerofs rescue"
code=0
rm -rf out out.report
"$AEROFS" rescue "$STORE" out >rescue.out 2>&1 || code=$?
same 'exit code with a damaged log' 1 $code
grep -q "the log is given up behind LSN $((lsn - 1)): " out.report || fail "$(cat out.report)"
grep -q 'whole operations behind' out.report || fail "$(cat out.report)"
same 'keys before the damage' 24 "$(find out -name 'acked-*' | wc -l)"
same 'the last of them' 'acknowledged 24' "$(cat out/acked-24)"
[ -e out/many/file-0100 ] || fail 'an operation behind the damage was applied'
take killed
rm "$STORE/$log"
refused 9 "$log is missing.*aerofs rescue"
rm -rf out out.report
code=0
"$AEROFS" rescue "$STORE" out >rescue.out 2>&1 || code=$?
same 'exit code without a segment of the log' 1 $code
take killed
rm -r "$STORE/wal"
refused 9 'aerofs rescue'
same 'paths that differ without a log, against the closed store' 0 "$(rescue_gives 1 clean.json)"

# ---- coarse damage, and bytes at random ----

take clean
truncate -s $(($(stat -c %s "$STORE/data") / 3)) "$STORE/data"
refused 16 'data.*aerofs rescue'
differ=$(rescue_gives 1 clean.json)
say "$differ paths differ when two thirds of data are gone"
flips=${FLIPS:-$((DEEP ? 200 : 3))}
used_blocks() { # FILE: those that are not all zeros
    python3 -c 'import sys
f = open(sys.argv[1], "rb")
print("\n".join(str(i) for i, b in enumerate(iter(lambda: f.read(4096), b"")) if b.strip(b"\0")))' "$1"
}
mapfile -t used < <(used_blocks clean/data)
total=0
for ((n = 0; n < flips; n++)); do
    take clean
    for ((k = 0; k < 1 + n % 8; k++)); do
        flip_bit "$STORE/data" $((used[(RANDOM * 32768 + RANDOM) % ${#used[@]}] * 4096 + RANDOM % 4096))
    done
    code=0
    rm -rf out out.report
    limited "$AEROFS" rescue "$STORE" out >rescue.out 2>rescue.err || code=$?
    [ $code -le 1 ] || fail "aerofs rescue exits with $code (seed $SEED): $(cat rescue.err)"
    differ=$(rescued compare clean.json out out.report) || fail "other than the report says (seed $SEED, round $n): $(tail -n 6 out.report)"
    total=$((total + differ))
done
say "$flips stores with up to 8 inverted bits each: $total paths differ, each as reported"
