#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# aerofs log --verify: segment files of real stores, away from them; what each kind of trouble is called, and its exit code.
. "$(dirname "$0")/lib.sh"

verify() { # CODE FILE…: output in out
    local code=$1 found=0
    shift
    limited "$AEROFS" log --verify "$@" >out 2>err </dev/null || found=$?
    [ $found -eq "$code" ] || fail "exit code $found instead of $code: --verify $*: $(cat out err)"
}
prints() { grep -qE -- "$1" out || fail "'$1' is not in: $(cat out)"; }
seg() { printf '%s/%016x.seg' "$COPY" "$1"; } # by number, in the copy

commit_many() { # PREFIX COUNT
    local i
    for i in $(seq "$2"); do
        echo "$1 $i" >"$MNT/$1-$i"
        sync "$MNT/$1-$i"
    done
}

# ---- a store in use, and a copy of its log ----

start -o log=2M
commit_many a 150
verify 0 "$STORE"/wal/*.seg # the standby segments with it
prints '^files: .*whole'
COPY=$TEST_DIR/copy
cp -r "$STORE/wal" "$COPY"
crash
verify 0 "$COPY"/*.seg
last=$(sed -n 's/^usable: lsn [0-9]* to \([0-9]*\),.*/\1/p' out)
prints "^store: [0-9a-f]{8}-"
[ -e "$(seg 5)" ] || fail "fewer than three segments in use: $(ls "$COPY")"
prints "$(seg 4): whole, continues; segment 0x4, epoch 2"

# ---- cut, at lengths of every kind ----

bytes=$(stat -c %s "$(seg 4)")
for length in 0 1 7 8 100 4095; do
    head -c "$length" "$(seg 4)" >cut
    verify 18 cut
    prints "^cut: partial, $length bytes; cut in the segment header"
done
for length in 4096 4100 8191 8193 $((bytes / 2 + 3)) $((bytes - 1)); do
    head -c "$length" "$(seg 4)" >cut
    verify 18 cut
    prints '^cut: partial, first; segment 0x4,'
done
head -c $((2 * 4096)) "$(seg 4)" >cut # one record to sync one small file: a block each
verify 0 cut
prints "^cut: prefix, first; .*, ends at offset [0-9]*, 8192 bytes of $bytes$"
verify 0 "$(seg 3)" cut
prints '^cut: prefix, continues'
verify 9 "$(seg 3)" cut "$(seg 5)"
prints "$(seg 5): whole, gap: lsn [0-9]+ to [0-9]+ before it are missing"

# ---- order ----

verify 9 "$(seg 3)" "$(seg 5)"
verify 20 "$(seg 4)" "$(seg 3)"
prints "$(seg 4): whole, reordered"
cp "$(seg 4)" again
verify 20 "$(seg 3)" "$(seg 4)" again
prints "^again: whole, duplicate: compare $(seg 4)"

# ---- damage ----

cp "$(seg 4)" rotten
flip rotten 8250
verify 8 rotten
prints '^rotten: damaged, first; .*offset [0-9]+: record [0-9]+ is unreadable, but offset [0-9]+ says that LSN [0-9]+ was durable'
cp "$(seg 4)" rotten
flip rotten 60
verify 8 rotten
prints '^rotten: damaged, .*the checksum of the segment header is wrong'

# ---- what is not of this log ----

echo 'no segment at all' >text
verify 19 text
prints '^text: no segment'
verify 19 "$(seg 3)" text "$(seg 4)"
truncate -s 65536 zeros
verify 0 zeros
prints '^zeros: unused'
FIRST=$STORE
STORE=$TEST_DIR/other
start -o log=2M
commit_many b 5
cp "$STORE/wal/$(basename "$(seg 3)")" foreign
stop
verify 19 "$(seg 3)" foreign
prints '^foreign: whole, foreign'
STORE=$FIRST

# ---- the next epoch ----

start -o log=2M
commit_many c 5
epoch=$(status_of epoch)
crash
mkdir new
for f in "$STORE"/wal/*.seg; do
    cmp -s "$f" "$COPY/${f##*/}" || cp "$f" new
done
verify 0 "$COPY"/*.seg new/*.seg
prints "continues; segment 0x[0-9a-f]*, epoch $epoch, lsn"
prints "^usable: lsn [0-9]* to [0-9]*, .*, epoch [0-9]* to $epoch$"
[ "$(sed -n 's/^usable: lsn [0-9]* to \([0-9]*\),.*/\1/p' out)" -gt "$last" ] || fail "the new epoch is not used: $(cat out)"
check_store

# ---- what cannot be read ----

verify 3 "$TEST_DIR/nowhere"
verify 17 "$TEST_DIR" # a directory
mkfifo pipe
verify 17 pipe
limited "$AEROFS" log --verify >out 2>err && fail 'without a file it succeeds'
same 'exit code' 2 "$(limited "$AEROFS" log --verify >out 2>err || echo $?)"
same 'exit code' 2 "$(limited "$AEROFS" log --verify --all "$(seg 3)" >out 2>err || echo $?)"
