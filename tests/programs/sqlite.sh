#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SQLite with a rollback journal (DELETE, TRUNCATE, PERSIST) and in WAL mode, with mmap off and on: every transaction that it has
# acknowledged survives kills and power cuts, none is there in part.
#   DEEP=1: ten times the rounds
. "$(dirname "$0")/lib.sh"
needs python3
rounds=$((DEEP ? 20 : 2))
sqlite() { limited python3 "$PROGRAMS_DIR/sqlite_load.py" "$@"; }

for kind in kill power; do
    crash_kind $kind
    for mode in WAL DELETE TRUNCATE PERSIST; do
        for mmap in 0 268435456; do
            fresh
            db=$MNT/test.db count=200
            sqlite write "$db" $mode $mmap 1 $count >acked || fail "sqlite ($mode, mmap $mmap)"
            same "transactions ($mode, mmap $mmap)" $count "$(sqlite check "$db" $count)"
            tried=0
            for ((r = 0; r < rounds; r++)); do
                : >acked
                client python3 "$PROGRAMS_DIR/sqlite_load.py" write "$db" $mode $mmap $((count + 1)) >acked 2>/dev/null
                wait_for 60 test -s acked || fail "sqlite ($mode, mmap $mmap) commits nothing"
                sleep_ms $((RANDOM % 1500))
                cut_off
                acknowledged=$(tail -n 1 acked) && acknowledged=${acknowledged:-$count}
                # DELETE: when the directory cannot be opened any more after the unlink, SQLite does not sync it and takes that for success
                # (unixDelete()). So of a daemon that dies right there, its last word is none.
                [ $mode != DELETE ] || [ "$acknowledged" -eq "$count" ] || acknowledged=$((acknowledged - 1))
                found=$(sqlite check "$db" "$acknowledged") || fail "$kind, $mode, mmap $mmap, round $r"
                tried=$((tried + found - count))
                count=$found
            done
            passed "SQLite $mode, mmap $((mmap / 1048576)) MiB, $kind: $rounds crashes, $tried transactions committed meanwhile, none lost"
        done
    done
done
stop
check_store
