#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# What is large: a file, a sparse file, a directory; and the daemon's memory, which grows with none of them.
#   DEEP=1: a file of 20 GiB (less where the disk is short) and a directory of 1,000,000 entries; takes several minutes
. "$(dirname "$0")/lib.sh"
mib=$((DEEP ? 20480 : 1024))
entries=$((DEEP ? 1000000 : 20000))
export LIMIT=$((DEEP ? 3600 : 120))

cache_mib=32
# VmHWM is the most that it ever had; the budget: the cache, 100 MiB, and the buffers of what is written.
memory() {
    local rss peak
    rss=$(($(awk '/^VmRSS/ { print $2 }' "/proc/$DAEMON/status") / 1024))
    peak=$(($(awk '/^VmHWM/ { print $2 }' "/proc/$DAEMON/status") / 1024))
    say "$1: daemon $rss MiB, at most $peak MiB"
    [ "$rss" -le $((cache_mib + 100)) ] || fail "$1: the daemon has $rss MiB, its cache is $cache_mib MiB"
}
# A stream that is the same each time and does not repeat: AES of zeros where there is openssl, else numbered lines.
stream() { # MiB
    if command -v openssl >/dev/null; then
        { openssl enc -aes-128-ctr -nosalt -K 00112233445566778899aabbccddeeff -iv 00000000000000000000000000000000 </dev/zero 2>/dev/null || true; } |
            head -c $(($1 << 20)) || true
    else
        { seq 1 999999999999 || true; } | head -c $(($1 << 20)) || true
    fi
}
checksum() { md5sum | cut -d' ' -f1; }

free_mib=$(df -BM --output=avail "$TEST_DIR" | tail -n 1 | tr -dc 0-9)
if [ $((mib * 3 / 2 + 2048)) -gt "$free_mib" ]; then
    mib=$(((free_mib - 2048) * 2 / 3))
    [ $mib -ge 256 ] || skip "needs room: $free_mib MiB are free"
    say "the disk has $free_mib MiB: a file of $mib MiB"
fi
start -o cache=${cache_mib}M
memory 'at the start'

# ---- a large file ----

begin=$SECONDS
stream $mib | tee >(checksum >expected) | dd of="$MNT/large" bs=1M iflag=fullblock status=none
wait_for 10 test -s expected
limited sync "$MNT/large"
say "$mib MiB written and synced in $((SECONDS - begin)) s"
memory 'after the large file'
same 'size' $((mib << 20)) "$(stat -c %s "$MNT/large")"
restart -o cache=${cache_mib}M
begin=$SECONDS
same 'the large file after a kill' "$(cat expected)" "$(checksum <"$MNT/large")"
say "read after a kill in $((SECONDS - begin)) s"
memory 'after reading it'
# A piece in the middle is overwritten: the rest keeps its place.
dd if="$MNT/large" bs=1M skip=$((mib / 2 - 20)) count=40 status=none >middle
stream 1 | dd of=middle bs=1M seek=20 conv=notrunc status=none
stream 1 | dd of="$MNT/large" bs=1M seek=$((mib / 2)) conv=notrunc,fsync status=none
dd if="$MNT/large" bs=1M skip=$((mib / 2 - 20)) count=40 status=none | cmp - middle
# Deleted: the space comes back; at once for df, for others with the next checkpoint.
in_use() { echo $(($(status_of space_used_blocks) - $(status_of space_waiting_blocks))); }
less_used() { [ "$(in_use)" -lt $((used / 10)) ]; }
used=$(in_use)
rm "$MNT/large"
limited sync "$MNT"
wait_for 60 less_used || fail "$(in_use) blocks in use after deleting; before: $used"

# ---- a sparse one ----

truncate -s 4T "$MNT/sparse"
for at in 0 1 1000 3000 4095; do
    printf 'at %d GiB' $at | dd of="$MNT/sparse" bs=1M seek=$((at * 1024)) conv=notrunc status=none
done
limited sync "$MNT/sparse"
restart -o cache=${cache_mib}M
same 'size of the sparse file' $((4 << 40)) "$(stat -c %s "$MNT/sparse")"
[ "$(stat -c %b "$MNT/sparse")" -lt 200 ] || fail "the sparse file takes $(stat -c %b "$MNT/sparse") blocks"
for at in 0 1 1000 3000 4095; do
    same "the sparse file at $at GiB" "at $at GiB" "$(dd if="$MNT/sparse" bs=1M skip=$((at * 1024)) count=1 status=none | tr -d '\0')"
done
same 'a hole' 0 "$(dd if="$MNT/sparse" bs=1M skip=2000000 count=1 status=none | tr -d '\0' | wc -c)"
printf end >>"$MNT/sparse"
same 'the end of the sparse file' end "$(tail -c 3 "$MNT/sparse")"
truncate -s 2T "$MNT/sparse" # holes go in no time
rm "$MNT/sparse"
memory 'after the sparse file'

# ---- a large directory ----

mkdir "$MNT/many"
begin=$SECONDS
(cd "$MNT/many" && seq -f 'entry-%.0f' $entries | xargs -n 5000 touch)
limited sync "$MNT/many"
say "$entries files made in $((SECONDS - begin)) s"
memory 'after making them'
begin=$SECONDS
same 'entries' $entries "$(find "$MNT/many" -mindepth 1 -printf x | wc -c)"
say "listed in $((SECONDS - begin)) s"
memory 'after listing'
restart -o cache=${cache_mib}M
say "mounted after a kill: $(status_of recovery)"
find "$MNT/many" -mindepth 1 -printf '%f\n' | sort >found
seq -f 'entry-%.0f' $entries | sort | cmp - found || fail 'the listing differs after a kill'
[ -f "$MNT/many/entry-$((entries / 2))" ] && [ ! -e "$MNT/many/entry-0" ] || fail 'lookup'
memory 'after listing again'
# Half of them goes while others are made.
(cd "$MNT/many" && seq -f 'entry-%.0f' 1 2 $entries | xargs -n 5000 rm) &
pid=$!
(cd "$MNT/many" && seq -f 'other-%.0f' 1000 | xargs -n 100 touch)
wait $pid
same 'entries after deleting half' $((entries / 2 + 1000)) "$(find "$MNT/many" -mindepth 1 -printf x | wc -c)"
rm -r "$MNT/many"
memory 'after deleting'
stop
check_store
