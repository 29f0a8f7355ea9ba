#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# One inverted bit at a time in a real store, and what it takes: a block of file data is EIO for exactly its 4 KiB, a tree node for
# exactly what hangs below it; both are listed by name in .aerofs/damage, `aerofs status`, `aerofs check`, and found by `aerofs scrub`
# while the mount serves, also where every cache has the right bytes. Everything else keeps its content. A scrub of a sound store under
# load finds nothing, keeps to its rate, and ends when it is told to.
#   DEEP=1 AEROFS_TEST_SEED=7 tests/mount/test_damage.sh     every leaf, more data blocks, longer load
. "$(dirname "$0")/lib.sh"
needs_root
needs setfattr python3
set_seed

# flip_bit FILE OFFSET: one bit, chosen at random.
flip_bit() {
    local byte
    byte=$(od -An -tu1 -j "$2" -N1 "$1" | tr -d ' ')
    # shellcheck disable=SC2059 # the format is an octal escape
    printf "\\$(printf %o $((byte ^ (1 << RANDOM % 8))))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
damage_block() { flip_bit "$STORE/data" $(($1 * 4096 + RANDOM % 4096)); } # NUMBER: a block of data
take() {
    rm -rf "$STORE"
    cp -a --sparse=always "$TEST_DIR/clean" "$STORE"
}
# In the foreground, with the messages in $TEST_DIR/log.
serve() { # [OPTION…]
    : >"$TEST_DIR/log" # what an earlier daemon said must not be taken for this one
    "$AEROFS_MOUNT" -f "$@" "$STORE" "$MNT" >"$TEST_DIR/log" 2>&1 &
    DAEMON=$!
    DAEMONS+=("$DAEMON")
    wait_for 20 grep -q 'is mounted at' "$TEST_DIR/log" || fail "does not mount: $(cat "$TEST_DIR/log")"
}
leave() {
    limited umount "$MNT" || fail 'umount failed'
    wait_for 60 gone "$DAEMON" || fail 'the daemon does not end'
    wait "$DAEMON" || true
}
# The names in .aerofs/damage, without what is said of them, sorted; and the same of `aerofs check`.
named() { sed -n 's/^  \(\/[^ ]*\).*/\1/p' "$MNT/.aerofs/damage" | sort -u; }
named_by_check() { sed -n 's/^affected: \(\/[^ :]*\).*/\1/p' check.out | sort -u; }
named_are() { [ "$(named)" = "$1" ]; }
check_finds_damage() {
    local code=0
    limited "$AEROFS" check "$STORE" >check.out 2>&1 || code=$?
    same 'exit code of aerofs check' 1 $code
}
scrub_says() { # CODE [OPTION…]
    local code=0 want=$1
    shift
    limited "$AEROFS" scrub --rate 0 "$@" "$MNT" >scrub.out 2>scrub.err || code=$?
    [ $code -eq "$want" ] || fail "aerofs scrub exits with $code, not $want: $(cat scrub.out scrub.err "$MNT/.aerofs/damage")"
}
# Every file that can be read has its content; prints those that cannot, with EIO and nothing else.
unreadable() {
    python3 - "$MNT" "$TEST_DIR/sums" <<'PY'
import errno, hashlib, os, sys
mnt, sums = sys.argv[1:]
bad = []
for line in open(sums):
    digest, path = line.rstrip("\n").split("  ", 1)
    try:
        with open(mnt + path.replace("\\x0a", "\n"), "rb") as f:
            data = f.read()
    except OSError as e:
        if e.errno != errno.EIO:
            sys.exit(f"{path}: {e}")
        bad.append(path)
        continue
    if hashlib.sha256(data).hexdigest() != digest:
        sys.exit(f"{path}: other bytes than were written")
print("\n".join(sorted(bad)))
PY
}

# ---- a store ----

start -o size=256M
mkdir -p "$MNT/many" "$MNT/deep/a/b"
python3 - "$MNT" <<'PY'
import os, sys
mnt = sys.argv[1]
for i in range(3000):
    with open(f"{mnt}/many/file-{i:04}", "w") as f:
        f.write(f"contents of the small file {i}\n")
for i in range(3):
    with open(f"{mnt}/deep/a/b/large-{i}", "wb") as f:
        f.write(os.urandom(1000000 + i * 300000))
PY
ln "$MNT/deep/a/b/large-0" "$MNT/hard-link"
setfattr -n user.big -v "$(head -c 9000 /dev/zero | tr '\0' v)" "$MNT/deep/a/b/large-1"
printf odd >"$MNT/a
new-line"
stop
check_store
cp -a --sparse=always "$STORE" clean
serve
python3 - "$MNT" >sums <<'PY'
import hashlib, os, sys
mnt = sys.argv[1]
for folder, _, files in os.walk(mnt):
    for name in files:
        path = os.path.join(folder, name)
        with open(path, "rb") as f:
            print(f"{hashlib.sha256(f.read()).hexdigest()}  {path[len(mnt):]}".replace("\n", "\\x0a"))
PY
same 'files of the store' 3005 "$(wc -l <sums)"

# ---- a sound store ----

same 'files that cannot be read' '' "$(unreadable)"
scrub_says 0
grep -q 'is whole' scrub.out || fail "says $(cat scrub.out)"
same 'damage of a sound store' '' "$(cat "$MNT/.aerofs/damage")"
same 'data blocks that the scrub has read' "$(sed -n 's/.*data blocks \([0-9]*\)$/\1/p' <("$AEROFS" check clean))" \
    "$(sed -n 's/^data_blocks: //p' "$MNT/.aerofs/scrub")"
leave

# ---- file data: exactly its range, under each of its names ----

"$AEROFS" dump "$TEST_DIR/clean" >dump.clean
large=$("$AEROFS" dump clean | sed -n 's/^ *\([0-9]*\) extent of file block 0 at block .*/\1/p' | head -n 1)
extents() { sed -n "s/^ *$large extent of file block \([0-9]*\) at block \([0-9]*\), count \([0-9]*\),.*/\1 \2 \3/p" dump.clean; }
[ -n "$(extents)" ] || fail 'aerofs dump shows no extents'
for ((n = 0; n < (DEEP ? 12 : 2); n++)); do
    take
    read -r file_block block count < <(extents | sed -n "$((1 + RANDOM % $(extents | wc -l)))p")
    at=$((RANDOM % count))
    damage_block $((block + at))
    first=$(((file_block + at) * 4096)) last=$(((file_block + at) * 4096 + 4095))
    check_finds_damage
    same 'names in aerofs check' $'/deep/a/b/large-0\n/hard-link' "$(named_by_check)"
    grep -qF "affected: /hard-link (bytes $first-$last)" check.out || fail "aerofs check: $(cat check.out)"
    serve
    same 'files that cannot be read' $'/deep/a/b/large-0\n/hard-link' "$(unreadable)"
    python3 - "$MNT/hard-link" "$TEST_DIR/clean/data" $((file_block + at)) <(extents) <<'PY'
import errno, os, sys
path, data, bad, extents = sys.argv[1], sys.argv[2], int(sys.argv[3]), open(sys.argv[4]).read().split("\n")
fd, raw = os.open(path, os.O_RDONLY), os.open(data, os.O_RDONLY)
size = os.fstat(fd).st_size
where = {}
for line in filter(None, extents):
    block, address, count = map(int, line.split())
    where.update({block + i: address + i for i in range(count)})
for b in range((size + 4095) // 4096):
    try:
        got = os.pread(fd, 4096, b * 4096)
    except OSError as e:
        if e.errno != errno.EIO or b != bad:
            sys.exit(f"block {b}: {e}")
        continue
    if b == bad:
        sys.exit(f"block {b} is damaged and was read")
    if got != os.pread(raw, 4096, where[b] * 4096)[: size - b * 4096]:
        sys.exit(f"block {b}: other bytes")
PY
    wait_for 10 named_are $'/deep/a/b/large-0\n/hard-link' || fail "names: $(cat "$MNT/.aerofs/damage")"
    grep -q "^AF_E_DATA_CHECKSUM file=data inode=$large offset=$first bytes=4096 address=$((block + at)) " "$MNT/.aerofs/damage" ||
        fail "$(cat "$MNT/.aerofs/damage")"
    same 'damaged, says aerofs status' 1 "$(status_of damaged)"
    [[ $(status_of damage_1)$(status_of damage_2) == *"/hard-link (bytes $first-$last)"* ]] || fail "aerofs status: $("$AEROFS" status "$MNT")"
    "$AEROFS" status --json "$MNT" | python3 -c 'import json, sys; assert "AF_E_DATA_CHECKSUM" in json.load(sys.stdin)["damage_1"]'
    scrub_says 1
    same 'findings of the scrub' 1 "$(sed -n 's/^damage: //p' "$MNT/.aerofs/scrub")"
    same 'lines in the log' 1 "$(grep -c "block $((block + at)) of data: .* expected, .* found" log)"
    # The rest goes on, and what replaces the bytes is readable.
    head -c 4096 /dev/zero | dd of="$MNT/hard-link" bs=4096 seek=$((file_block + at)) conv=notrunc status=none
    sync "$MNT/hard-link"
    cat "$MNT/hard-link" >/dev/null || fail 'what was written over the damage cannot be read'
    leave
    check_store
done

# ---- a large xattr ----

take
block=$(sed -n 's/.*xattr "user.big".* at block \([0-9]*\).*/\1/p' dump.clean | head -n 1)
[ -n "$block" ] || block=$(grep -F user.big dump.clean | sed -n 's/.*block[s]* \([0-9]*\).*/\1/p' | head -n 1)
[ -n "$block" ] || fail "aerofs dump does not show the blocks of the xattr: $(grep -F user.big dump.clean)"
damage_block "$block"
check_finds_damage
same 'names in aerofs check' /deep/a/b/large-1 "$(named_by_check)"
serve
fails_with 'Input/output error' getfattr -n user.big "$MNT/deep/a/b/large-1"
same 'files that cannot be read' '' "$(unreadable)"
scrub_says 1
wait_for 10 named_are /deep/a/b/large-1 || fail "names: $(cat "$MNT/.aerofs/damage")"
leave

# ---- the tree: exactly what hangs below a node ----

nodes() { "$AEROFS" dump --nodes "$TEST_DIR/clean" | sed -n "s/^ *node at block \([0-9]*\), level $1,.*/\1/p"; }
# What a damaged node takes: for files whose inode is gone, the names in the list are those that cannot be read, neither more nor less.
damaged_node() { # BLOCK
    local found more
    take
    damage_block "$1"
    serve
    unreadable >bad
    find "$MNT" >/dev/null 2>find.err || true
    scrub_says 1
    if [ -s find.err ]; then # entries of a directory: nobody knows their names
        grep -q '(some of its entries)' "$MNT/.aerofs/damage" || grep -q ' more$' "$MNT/.aerofs/damage" ||
            fail "a directory cannot be read, and is not named: $(cat find.err "$MNT/.aerofs/damage")"
    else
        more=$(sed -n 's/^  and \([0-9]*\) more$/\1/p' "$MNT/.aerofs/damage")
        found=$(named | wc -l)
        same "files below the node $1" "$(grep -c . bad || true)" $((found + ${more:-0}))
        same "names that can be read all the same" '' "$(comm -23 <(named) bad)"
    fi
    listed=$(named | wc -l)
    leave
    check_finds_damage
    [ -s find.err ] || same 'names in aerofs check' '' "$(comm -23 <(named_by_check) bad)"
}
mapfile -t leaves < <(nodes 0)
mapfile -t inner < <(nodes 1)
[ ${#inner[@]} -gt 1 ] || fail 'the tree has no inner nodes below its root'
chosen=("${leaves[@]}")
[ "$DEEP" = 1 ] || chosen=("${leaves[1]}" "${leaves[RANDOM % ${#leaves[@]}]}" "${leaves[-1]}")
for leaf in "${chosen[@]}" "${inner[-1]}"; do
    damaged_node "$leaf"
done
same 'names listed of one damage' 16 "$listed" # of the inner node: bounded, with the number of the others

# ---- past the caches: the right bytes in memory, the wrong ones on disk ----

take
serve
cat "$MNT/hard-link" >/dev/null
find "$MNT" -ls >/dev/null
read -r file_block block count < <(extents | tail -n 1)
flip_bit "$STORE/data" $((block * 4096 + 17))
flip_bit "$STORE/data" $((leaves[${#leaves[@]} / 2] * 4096 + 1000))
sync
scrub_says 1
same 'findings of the scrub' 2 "$(sed -n 's/^damage: //p' "$MNT/.aerofs/scrub")"
wait_for 10 grep -q '/hard-link' "$MNT/.aerofs/damage" || fail "$(cat "$MNT/.aerofs/damage")"
leave
# The space map, a superblock, the log.
take
serve
echo new >"$MNT/new"
sync "$MNT/new"
sleep 0.1
log=wal/$(printf '%016x' "$(status_of log_current_segment)").seg
flip_bit "$STORE/$log" $((4096 + 50))
sync
scrub_says 1
grep -q "^AF_E_LOG_DAMAGED file=$log .*LSN [0-9]* is durable" "$MNT/.aerofs/damage" || fail "$(cat "$MNT/.aerofs/damage")"
leave
take
serve
flip_bit "$STORE/superblock" $((($("$AEROFS" dump --superblocks clean | sed -n 's/^superblock in force: slot //p') + 1) % 2 * 65536 + 300))
flip_bit "$STORE/superblock" $(($("$AEROFS" dump --superblocks clean | sed -n 's/^superblock in force: slot //p') * 65536 + 300))
sync
scrub_says 1
grep -q '^AF_E_SB_NONE file=superblock' "$MNT/.aerofs/damage" || fail "$(cat "$MNT/.aerofs/damage")"
leave
take
slot=$("$AEROFS" dump --space clean | sed -n 's/^ *group 0: slot \([01]\),.*/\1/p')
[ -n "$slot" ] || fail 'aerofs dump --space shows no group'
flip_bit "$STORE/data" $((slot * 4096 + 2000))
serve -o ro
exits 2 'read-only' "$AEROFS" scrub "$MNT"
leave

# ---- what only a snapshot holds ----

take
start
mkdir "$MNT/.aerofs/snapshots/kept"
rm "$MNT/hard-link" "$MNT/deep/a/b/large-0"
sync "$MNT"
stop
serve
scrub_says 0
same 'data blocks that the scrub has read' "$(sed -n 's/.*data blocks \([0-9]*\)$/\1/p' <("$AEROFS" check clean))" \
    "$(sed -n 's/^data_blocks: //p' "$MNT/.aerofs/scrub")"
read -r file_block block count < <(extents | head -n 1)
damage_block "$block"
sync
scrub_says 1
grep -q "address=$block .* in a snapshot, content of inode $large, bytes 0-4095" "$MNT/.aerofs/damage" || fail "$(cat "$MNT/.aerofs/damage")"
fails_with 'Input/output error' cat "$MNT/.aerofs/snapshots/kept/hard-link"
tail -c 4096 "$MNT/.aerofs/snapshots/kept/hard-link" >/dev/null || fail 'the rest of it cannot be read'
leave
check_finds_damage

# ---- under load ----

take
serve -o log=2M
load() {
    local i=0
    while [ ! -e "$TEST_DIR/enough" ]; do
        i=$((i + 1))
        head -c $((RANDOM * 8)) /dev/urandom >"$MNT/load-$1-$((i % 7))"
        [ $((i % 3)) -ne 0 ] || sync "$MNT/load-$1-$((i % 7))"
        rm -f "$MNT/load-$1-$((RANDOM % 7))" "$MNT/many/file-$(printf %04d $((RANDOM % 3000)))"
        mv "$MNT/load-$1-$((i % 7))" "$MNT/moved-$1-$((i % 5))" 2>/dev/null || true
        [ $((i % 11)) -ne 0 ] || truncate -s 5000 "$MNT/moved-$1-$((RANDOM % 5))"
    done
}
load 1 &
loads=$!
load 2 &
loads="$loads $!"
scrubs=0 end=$((SECONDS + (DEEP ? 120 : 3)))
while [ $SECONDS -lt $end ]; do
    scrub_says 0
    scrubs=$((scrubs + 1))
done
touch enough
# shellcheck disable=SC2086 # numbers
wait $loads
same 'damage after scrubs under load' '' "$(cat "$MNT/.aerofs/damage")"
say "$scrubs scrubs under load, without a false alarm"

# ---- control ----

exits 2 'no mount point' "$AEROFS" scrub "$STORE"
exits 2 'no number' "$AEROFS" scrub --rate fast "$MNT"
bytes=$(sed -n 's/^bytes: //p' "$MNT/.aerofs/scrub")
started=$(date +%s%N)
limited "$AEROFS" scrub --rate $((bytes * 2 / 3)) "$MNT" >/dev/null &
slow=$!
wait_for 5 grep -q '^state: running' "$MNT/.aerofs/scrub" || fail 'no scrub runs'
exits 2 'running already' "$AEROFS" scrub "$MNT"
wait $slow || fail "the slow scrub exits with $?"
took=$((($(date +%s%N) - started) / 1000000))
[ $took -ge 1200 ] && [ $took -lt 6000 ] || fail "a scrub bound to 1.5 s has taken $took ms"
"$AEROFS" scrub --rate 10000 "$MNT" >/dev/null 2>scrub.err &
slow=$!
wait_for 5 grep -q '^state: running' "$MNT/.aerofs/scrub" || fail 'no scrub runs'
kill -INT $slow 2>/dev/null || true
kill -TERM $slow
code=0
wait $slow || code=$?
same 'exit code of a scrub that was ended' 2 $code
grep -q 'ended early' scrub.err || fail "says $(cat scrub.err)"
"$AEROFS" scrub --rate 10000 "$MNT" >/dev/null 2>&1 &
slow=$!
wait_for 5 grep -q '^state: running' "$MNT/.aerofs/scrub" || fail 'no scrub runs'
kill -KILL $slow # the scrub ends with whoever asked for it
wait $slow 2>/dev/null || true
wait_for 5 grep -q '^state: ended early' "$MNT/.aerofs/scrub" || fail "$(cat "$MNT/.aerofs/scrub")"
echo start 10000 >"$MNT/.aerofs/scrub" # … unless it was started to run on
grep -q '^state: running' "$MNT/.aerofs/scrub" || fail "$(cat "$MNT/.aerofs/scrub")"
echo stop >"$MNT/.aerofs/scrub"
wait_for 5 grep -q '^state: ended early' "$MNT/.aerofs/scrub" || fail "$(cat "$MNT/.aerofs/scrub")"
if echo nonsense >"$MNT/.aerofs/scrub" 2>/dev/null; then fail '.aerofs/scrub takes nonsense'; fi
echo start 1000 >"$MNT/.aerofs/scrub"
leave # an unmount does not wait for the scrub
check_store
