#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Real programs: git clone, SQLite in both of its journal modes, cp -a of a source tree; undisturbed, then with a SIGKILL of the daemon in
# the middle. Whatever was acknowledged is there, every file is whole, SQLite has every transaction that it has committed.
#   DEEP=1: 10,000 transactions in each mode, several kills
. "$(dirname "$0")/lib.sh"
needs git sqlite3
set_seed
transactions=$((DEEP ? 10000 : 1000))
kills=$((DEEP ? 5 : 1))

# A tree of at least 5,000 files, with links, empty files and odd names.
source=$TEST_DIR/source
make_source() {
    local d i
    mkdir "$source"
    if [ "$(find /usr/include -type f 2>/dev/null | head -n 5000 | wc -l)" -ge 4500 ]; then
        cp -a /usr/include "$source/include"
    fi
    for ((d = 0; d < 60 && $(find "$source" -type f | wc -l) < 5200; d++)); do
        mkdir "$source/dir$d"
        for i in {1..90}; do
            printf 'file %d of directory %d: %0*d\n' "$i" "$d" $((RANDOM % 3000)) 7 >"$source/dir$d/file$i.c"
        done
    done
    mkdir "$source/odd"
    : >"$source/odd/empty"
    head -c 5000000 /dev/urandom >"$source/odd/large"
    truncate -s 50M "$source/odd/sparse"
    ln -s ../include "$source/odd/link"
    ln -s nowhere "$source/odd/dangling"
    ln "$source/odd/large" "$source/odd/hard"
    touch "$source/odd/ünï cödé" $'new\nline'
    chmod 2750 "$source/odd"
    [ "$(find "$source" -type f | wc -l)" -ge 5000 ] || fail 'the source tree is too small'
}

# whole_or_absent COPY: every file below is equal to its source. Directories may be there without their files.
whole_or_absent() {
    local count
    count=$(cd "$1" && find . -type f | wc -l)
    (cd "$1" && find . -type f -print0) | (cd "$source" && xargs -0 -r -n 200 ls -d -- >/dev/null) || fail 'a file that the source has not'
    diff -rq --no-dereference "$1" "$source" 2>&1 | grep -v "^Only in $source" >differ || true
    [ ! -s differ ] || fail "not whole after a kill: $(head -n 5 differ)"
    say "cp -a, killed: $count files, each whole"
}

# ---- git ----

start
repository=$TEST_DIR/repository
if git -C "$TEST_TOP" rev-parse --git-dir >/dev/null 2>&1; then
    git clone -q --bare "$TEST_TOP" "$repository"
else # a tree without its history: make one
    git init -q -b main work
    tar cf - -C "$TEST_TOP" --exclude=./build --exclude=./demo . | tar xf - -C work
    git -C work add -A
    git -C work -c user.name=test -c user.email=test@localhost commit -q -m all
    git clone -q --bare work "$repository"
fi
git clone -q --no-local "$repository" "$MNT/clone"
git -C "$MNT/clone" fsck --full --strict >/dev/null 2>fsck.err || fail "git fsck: $(cat fsck.err)"
git -C "$MNT/clone" status --porcelain >status.out
[ ! -s status.out ] || fail "git status: $(head -n 3 status.out)"
for i in 1 2 3; do
    echo "line $i" >>"$MNT/clone/README.md"
    git -C "$MNT/clone" -c user.name=test -c user.email=test@localhost commit -q -a -m "change $i"
done
git -C "$MNT/clone" gc -q
git clone -q "$repository" "$TEST_DIR/native"
git -C "$MNT/clone" checkout -q "$(git -C "$repository" rev-parse HEAD)"
diff -r --exclude .git "$TEST_DIR/native" "$MNT/clone" || fail 'the clones differ'
sync "$MNT"
restart
git -C "$MNT/clone" fsck --full --strict >/dev/null 2>fsck.err || fail "git fsck after a kill: $(cat fsck.err)"
# A clone, killed in the middle: begun again it comes to its end.
for ((k = 0; k < kills; k++)); do
    rm -rf "$MNT/clone2"
    git clone -q --no-local "$repository" "$MNT/clone2" 2>/dev/null &
    pid=$!
    sleep_ms $((50 + RANDOM % 500))
    restart
    wait $pid || true
    git -C "$MNT/clone" fsck --full >/dev/null 2>fsck.err || fail "git fsck of the older clone: $(cat fsck.err)"
done
rm -rf "$MNT/clone2"
git clone -q --no-local "$repository" "$MNT/clone2"
git -C "$MNT/clone2" fsck --full >/dev/null
stop
check_store

# ---- SQLite ----

# writer DB MODE FROM TO: one transaction after the other; what sqlite3 has acknowledged goes into a file outside of the mount. EXTRA: with
# FULL, and a rollback journal, SQLite does not sync the unlink of the journal, which is its commit, and a crash may undo the last one.
sqlite_writer() {
    {
        printf '.bail on\n.output /dev/null\nPRAGMA journal_mode=%s;\nPRAGMA synchronous=EXTRA;\n.output stdout\n' "$2"
        echo 'CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, square INTEGER, pad BLOB);'
        awk -v from="$3" -v to="$4" 'BEGIN { for (i = from; i <= to; i++)
            printf "BEGIN; INSERT INTO t VALUES(%d, %d, randomblob(%d)); UPDATE t SET square = square WHERE id = %d; COMMIT;\nSELECT %d;\n",
                i, i * i, i % 700, i / 2, i }'
    } | sqlite3 "$1"
}
sqlite_checked() { # DB ACKNOWLEDGED TRIED
    local count
    same "integrity of $1" ok "$(sqlite3 "$1" 'PRAGMA integrity_check;')"
    count=$(sqlite3 "$1" 'SELECT count(*) FROM t;')
    [ "$count" -ge "$2" ] && [ "$count" -le "$3" ] || fail "$1 holds $count transactions; acknowledged $2, tried $3"
    same 'rows' "$count|$count|0" "$(sqlite3 "$1" 'SELECT count(*), max(id), sum(square <> id * id) FROM t;')"
    SQLITE_COUNT=$count
}
start
for mode in WAL TRUNCATE DELETE; do
    db=$MNT/$mode.db
    sqlite_writer "$db" $mode 1 "$transactions" >acked || fail "sqlite3 ($mode) failed"
    sqlite_checked "$db" "$transactions" "$transactions"
    last=$transactions
    for ((k = 0; k < kills; k++)); do
        sqlite_writer "$db" $mode $((last + 1)) $((last + 1000000)) >acked 2>/dev/null &
        pid=$!
        sleep_ms $((300 + RANDOM % 900))
        restart
        wait $pid 2>/dev/null || true
        acknowledged=$(tail -n 1 acked)
        acknowledged=${acknowledged:-$last}
        # DELETE: when the directory cannot be opened any more after the unlink, SQLite does not sync it and takes that for success
        # (unixDelete()). So of a daemon that dies right there, its last word is none.
        unsure=$([ $mode = DELETE ] && [ "$acknowledged" -gt "$last" ] && echo 1 || echo 0)
        sqlite_checked "$db" $((acknowledged - unsure)) $((acknowledged + 1))
        say "SQLite, $mode, killed: $((SQLITE_COUNT - last)) transactions committed, all there"
        last=$SQLITE_COUNT
    done
done
stop
check_store

# ---- cp -a ----

make_source
start
cp -a "$source" "$MNT/copy"
same 'cp -a' "$(list_tree "$source" times | md5sum)" "$(list_tree "$MNT/copy" times | md5sum)"
sync "$MNT"
restart
same 'cp -a, synced and killed' "$(list_tree "$source" times | md5sum)" "$(list_tree "$MNT/copy" times | md5sum)"
for ((k = 0; k < kills; k++)); do
    rm -rf "$MNT/copy"
    cp -a "$source" "$MNT/copy" 2>/dev/null &
    pid=$!
    sleep_ms $((400 + RANDOM % 1000))
    [ $((k % 2)) -eq 0 ] || limited sync "$MNT"
    crash
    wait $pid || true
    check_store
    start
    [ ! -e "$MNT/copy" ] || whole_or_absent "$MNT/copy"
done
stop
check_store
