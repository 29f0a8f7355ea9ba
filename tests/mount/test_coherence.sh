#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Many descriptors, maps and processes on one mount (coherence.c): each sees what the others have done, appenders lose nothing, listings
# are right in a storm of creates, renames and unlinks. And what is durable by other ways than an fsync of the writer's own descriptor.
. "$(dirname "$0")/lib.sh"
coherence=$(helper coherence)

start -o cache=2M
mkdir "$MNT/all"
LIMIT=120 limited "$coherence" "$MNT/all" || fail 'see above'
sync "$MNT"
list_tree "$MNT" >before
restart
list_tree "$MNT" | diff before - || fail 'the tree differs after a kill'

mkdir "$MNT/durable"
sync "$MNT"
"$coherence" "$MNT/durable" durable >out &
pid=$!
wait_for 30 test -s out || fail 'no answer from coherence durable'
kill -KILL "$DAEMON"
wait_for 20 gone "$DAEMON"
kill $pid
wait $pid || true
umount -l "$MNT"
start
for how in by-other-fd by-fdatasync by-o-sync by-o-dsync by-msync by-fsync-of-a-map by-rename by-link; do
    [ -e "$MNT/durable/$how" ] || fail "not durable: $how"
    same "$how" $how "$(cat "$MNT/durable/$how")"
done
same 'mode, durable with the fsync' 640 "$(stat -c %a "$MNT/durable/by-rename")"
same 'listing' '8' "$(ls "$MNT/durable" | wc -l)"
stop
check_store
