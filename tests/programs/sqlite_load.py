#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Transactions on an SQLite database, and the check of what a crash has left.
    sqlite_load.py write DB MODE MMAP FROM [TO]    prints the number of each transaction when it is committed
    sqlite_load.py check DB ACKNOWLEDGED           prints how many there are; fails when one is missing or in part
"""
import hashlib
import sqlite3
import sys


def rows_of(n):
    return [(n, k, hashlib.sha256(b"%d-%d" % (n, k)).hexdigest() * (1 + n % 7)) for k in range(1 + n % 5)]


def connect(path, mode, mmap):
    db = sqlite3.connect(path, isolation_level=None, timeout=60)
    db.execute(f"PRAGMA mmap_size={mmap}")
    db.execute(f"PRAGMA journal_mode={mode}")
    # With a rollback journal, FULL does not sync the removal of the journal, which is its commit.
    db.execute("PRAGMA synchronous=EXTRA")
    db.execute("CREATE TABLE IF NOT EXISTS t(n INTEGER, k INTEGER, text TEXT, PRIMARY KEY(n, k))")
    db.execute("CREATE TABLE IF NOT EXISTS total(rows INTEGER)")
    if not db.execute("SELECT count(*) FROM total").fetchone()[0]:
        db.execute("INSERT INTO total VALUES(0)")
    return db


def write(path, mode, mmap, first, last):
    db = connect(path, mode, mmap)
    for n in range(first, last + 1):
        rows = rows_of(n)
        db.execute("BEGIN IMMEDIATE")
        db.executemany("INSERT INTO t VALUES(?, ?, ?)", rows)
        db.execute("UPDATE total SET rows = rows + ?", (len(rows),))
        db.execute("COMMIT")
        print(n, flush=True)


def check(path, acknowledged):
    db = sqlite3.connect(path)
    result = db.execute("PRAGMA integrity_check").fetchone()[0]
    if result != "ok":
        sys.exit(f"integrity_check: {result}")
    found = db.execute("SELECT n, k, text FROM t ORDER BY n, k").fetchall()
    count = found[-1][0] if found else 0
    if found != [row for n in range(1, count + 1) for row in rows_of(n)]:
        sys.exit("a transaction is there in part, or altered")
    if db.execute("SELECT rows FROM total").fetchone()[0] != len(found):
        sys.exit("the total does not fit the rows")
    if count < acknowledged:
        sys.exit(f"{acknowledged} transactions were acknowledged, {count} are there")
    print(count)


if sys.argv[1] == "write":
    write(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6]) if len(sys.argv) > 6 else 10**9)
else:
    check(sys.argv[2], int(sys.argv[3]))
