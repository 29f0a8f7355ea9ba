#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Unmodified programs on the mount, left alone and killed in the middle: cp -a of a tree, git, SQLite in WAL and in rollback mode.
# What was acknowledged is there afterwards, every file is whole and equal to its source or absent, the store is whole.
#   DEEP=1: 10,000 transactions and thousands of files
. "$(dirname "$0")/lib.sh"
needs_root
needs git sqlite3
set_seed
transactions=$((DEEP ? 10000 : 300))
kills=$((DEEP ? 6 : 2))

# ---- a source tree ----

tree=$TEST_DIR/tree
mkdir "$tree"
if [ "$DEEP" = 1 ]; then
    cp -a /usr/include/. "$tree/"
else
    cp -a "$TEST_TOP"/{base,wal,store,checkpoint,fs,mountutil,tests,docs,scripts,Makefile,README.md} "$tree/"
fi
say "$(find "$tree" -type f | wc -l) files"

start
limited cp -a "$tree" "$MNT/whole"
same 'the tree' "$(list_tree "$tree" times)" "$(list_tree "$MNT/whole" times)"

# Every file that is there is equal to its source.
equal_or_absent() { # COPY
    local f n=0
    while IFS= read -r -d '' f; do
        cmp -s "$1/$f" "$tree/$f" || fail "$f is there and is not equal to its source"
        n=$((n + 1))
    done < <(cd "$1" 2>/dev/null && find . -type f -print0)
    say "  $n files had made it"
}
for ((k = 0; k < kills; k++)); do
    limited rm -rf "$MNT/part"
    cp -a "$tree" "$MNT/part" 2>/dev/null &
    sleep_ms $((100 + RANDOM % (DEEP ? 4000 : 600)))
    restart
    wait $! || true
    say "cp -a killed:"
    [ ! -d "$MNT/part" ] || equal_or_absent "$MNT/part"
    same 'the tree that was there before' "$(list_tree "$tree")" "$(list_tree "$MNT/whole")"
done

# ---- git ----

git init -q "$TEST_DIR/origin"
cp -a "$tree/." "$TEST_DIR/origin/"
(cd "$TEST_DIR/origin" && git add -A && git -c user.name=t -c user.email=t@example.org commit -q -m all)
limited git clone -q "$TEST_DIR/origin" "$MNT/clone"
limited git -C "$MNT/clone" fsck --full >/dev/null 2>&1 || fail 'git fsck of the clone'
sync "$MNT"
for ((k = 0; k < kills; k++)); do
    (cd "$MNT/clone" && for i in $(seq 1000); do
        echo "$k $i" >>file && git add file && git -c user.name=t -c user.email=t@example.org commit -q -m "$i"
    done) >/dev/null 2>&1 &
    sleep_ms $((300 + RANDOM % 700))
    restart
    wait $! || true
    rm -f "$MNT/clone/.git/index.lock" "$MNT/clone/.git/HEAD.lock" "$MNT"/clone/.git/refs/heads/*.lock
    limited git -C "$MNT/clone" -c core.fsync=all fsck --full >"$TEST_DIR/fsck" 2>&1 || fail "git fsck after a kill: $(head -n 3 "$TEST_DIR/fsck")"
done

# ---- SQLite ----

# Transactions one by one, each acknowledged outside the mount once COMMIT has returned.
sqlite_work() { # MODE FROM JOURNAL
    local i
    {
        # In rollback mode the commit is an unlink: EXTRA syncs the directory behind it.
        echo "pragma synchronous=extra; pragma journal_mode=$1;"
        for ((i = $2; i < $2 + transactions; i++)); do
            echo "begin; insert into t values($i, hex(randomblob(100))); commit;"
            echo "select $i;"
        done
    } | sqlite3 -bail "$MNT/$1.db" >"$3" 2>/dev/null
}
sqlite_check() { # MODE JOURNAL
    local acked found
    acked=$(grep -E '^[0-9]+$' "$2" | tail -n 1 || true)
    same "integrity in $1 mode" ok "$(limited sqlite3 "$MNT/$1.db" 'pragma integrity_check')"
    found=$(limited sqlite3 "$MNT/$1.db" 'select coalesce(max(a), 0) from t')
    same "gaps in $1 mode" "$found" "$(limited sqlite3 "$MNT/$1.db" 'select count(*) from t')"
    [ "$found" -ge "${acked:-0}" ] || fail "$1: transaction $acked was acknowledged, $found is the last one"
    say "  $1: acknowledged ${acked:-0}, found $found"
}
for mode in wal delete; do
    limited sqlite3 "$MNT/$mode.db" "pragma journal_mode=$mode; create table t(a integer primary key, b text);" >/dev/null
    LIMIT=200 sqlite_work $mode 1 "$TEST_DIR/journal"
    sqlite_check $mode "$TEST_DIR/journal"
    same "transactions in $mode mode" $transactions "$(sqlite3 "$MNT/$mode.db" 'select count(*) from t')"
    for ((k = 0; k < kills; k++)); do
        from=$(($(sqlite3 "$MNT/$mode.db" 'select max(a) from t') + 1))
        sqlite_work $mode "$from" "$TEST_DIR/journal" &
        sleep_ms $((200 + RANDOM % 600))
        restart
        wait $! || true
        sqlite_check $mode "$TEST_DIR/journal"
    done
done
stop
check_store
