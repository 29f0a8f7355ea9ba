#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# PostgreSQL: pgbench, and clients that note each row whose commit was acknowledged; the daemon is killed under them (or its power is cut),
# PostgreSQL with it; after recovery every acknowledged row is there, pgbench's sums agree, and pg_amcheck finds nothing.
#   DEEP=1: ten times the rounds
. "$(dirname "$0")/lib.sh"
bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
PATH=$PATH:$bin
needs initdb postgres pgbench psql runuser
rounds=$((DEEP ? 20 : 2))
PROGRAM_OPTIONS=(-o allow_other)
open_to_others
mkdir sockets && chown postgres sockets
export PGHOST=$TEST_DIR/sockets PGUSER=postgres PGDATABASE=postgres PGOPTIONS=
data=$MNT/data
as_postgres() { limited runuser -u postgres -- env PATH="$PATH" "$@"; }
server_start() {
    # Not limited: what is limited ends with its children.
    setsid runuser -u postgres -- "$bin/postgres" -D "$data" -k "$PGHOST" -c listen_addresses= >server.log 2>&1 &
    server=$!
    disown
    wait_for 120 pg_isready -q || fail "PostgreSQL does not start: $(tail -n 5 server.log)"
}
server_kill() { # with all its children, which are in its session
    local s
    for s in $(pgrep -s "$server" 2>/dev/null || true); do kill -KILL "$s" 2>/dev/null || true; done
    wait_for 20 eval '! pgrep -s "$server" >/dev/null' || fail 'PostgreSQL does not die'
}
insert() { # NUMBER FROM: inserts rows, prints the number of each when it is committed
    local i
    for ((i = $2; i < 10000000; i++)); do printf 'INSERT INTO acked VALUES(%d, %d, repeat(md5(%d::text), %d));\n\\echo %d\n' "$1" $i $i $((1 + i % 50)) $i; done |
        psql -q -v ON_ERROR_STOP=1 2>/dev/null || true # at the crash
}
sql() { limited psql -qtA -v ON_ERROR_STOP=1 -c "$1"; }

for kind in kill power; do
    crash_kind $kind
    fresh
    mkdir "$data" && chown postgres "$data"
    as_postgres initdb -D "$data" --auth=trust -k >initdb.log 2>&1 || fail "initdb: $(tail -n 5 initdb.log)"
    server_start
    limited pgbench -q -i -s 2 >pgbench.log 2>&1 || fail "pgbench -i: $(tail -n 5 pgbench.log)"
    sql 'CREATE TABLE acked(client int, n int, text text, PRIMARY KEY(client, n)); CREATE EXTENSION amcheck'
    limited pgbench -n -c 4 -T 3 >pgbench.log 2>&1 || fail "pgbench: $(tail -n 5 pgbench.log)"
    say "PostgreSQL: $(sed -n 's/^number of transactions actually processed: //p' pgbench.log) transactions of pgbench in 3 s"
    last=(0 0 0 0) total=0
    for ((r = 0; r < rounds; r++)); do
        clients=()
        for c in 0 1 2 3; do
            insert $c $((last[c] + 1)) >"acked$c" &
            clients+=($!)
        done
        pgbench -n -c 4 -T 60 >/dev/null 2>&1 &
        bench=$!
        sleep_ms $((1000 + RANDOM % 3000))
        kill -KILL "$DAEMON" # under PostgreSQL, which finds its disk gone
        wait_for 20 gone "$DAEMON"
        sleep 0.2
        server_kill
        umount -l "$MNT"
        wait "${clients[@]}" "$bench" 2>/dev/null || true
        start
        server_start
        for c in 0 1 2 3; do
            acknowledged=$(tail -n 1 "acked$c") && acknowledged=${acknowledged:-${last[c]}}
            found=$(sql "SELECT count(*) || ' ' || coalesce(max(n), 0) FROM acked WHERE client = $c")
            [ "${found% *}" = "${found#* }" ] || fail "$kind, round $r, client $c: rows are missing in between ($found)"
            [ "${found#* }" -ge "$acknowledged" ] || fail "$kind, round $r, client $c: $acknowledged acknowledged, ${found#* } there"
            total=$((total + ${found#* } - last[c]))
            last[c]=${found#* }
        done
        same "$kind, round $r: rows" 0 "$(sql 'SELECT count(*) FROM acked WHERE text <> repeat(md5(n::text), 1 + n % 50)')"
        same "$kind, round $r: sums of pgbench" t "$(sql 'SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(bbalance) FROM pgbench_branches) AND
            (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(bbalance) FROM pgbench_branches) AND
            (SELECT coalesce(sum(delta), 0) FROM pgbench_history) = (SELECT sum(bbalance) FROM pgbench_branches)')"
        limited pg_amcheck --heapallindexed >amcheck.log 2>&1 || fail "pg_amcheck: $(tail -n 5 amcheck.log)"
    done
    sql CHECKPOINT
    as_postgres pg_ctl -D "$data" -m fast stop >/dev/null
    as_postgres pg_checksums -D "$data" --check >checksums.log || fail "pg_checksums: $(tail -n 5 checksums.log)"
    passed "PostgreSQL, $kind: $rounds crashes under pgbench and 4 clients, $total acknowledged rows, none lost; sums, amcheck and checksums agree"
done
stop
check_store
