#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# `aerofs torture` finds nothing with the real daemon, and nothing on a disk with a volatile cache (powercut-mount), whatever of the
# unsynced bytes survives; and it does find what a disk loses whose syncs lie.
#   ROUNDS=1000 AEROFS_TEST_SEED=7 tests/mount/test_torture.sh
. "$(dirname "$0")/lib.sh"
set_seed
rounds=${ROUNDS:-$((DEEP ? 200 : 4))}
powercut=${AEROFS_POWERCUT:-$TEST_TOP/build/powercut-mount}
[ -x "$powercut" ] || fail "$powercut is not built: make powercut"

# torture EXPECTED [OPTION…]
torture() {
    local expected=$1 code=0
    shift
    rm -rf "$STORE"
    LIMIT=$((60 + rounds * 10)) limited "$AEROFS" torture --rounds "$rounds" --seed "$SEED" "$@" "$STORE" "$MNT" \
        >"$TEST_DIR/torture.out" 2>"$TEST_DIR/torture.err" || code=$?
    tail -n 1 "$TEST_DIR/torture.out"
    [ $code -eq "$expected" ] ||
        fail "torture $* exits with $code, not $expected (seed $SEED): $(tail -n 5 "$TEST_DIR/torture.out" "$TEST_DIR/torture.err")"
    [ -z "$(mounts_here)" ] || fail "torture $* leaves a mount behind"
}

torture 0
torture 0 --mount-command "$powercut"
torture 0 --mount-command "$powercut --survive $SEED"
torture 0 --mount-command "$powercut --survive $SEED --delay-us 300 -o log=8M,cache=1M"
# Rounds end at the first loss; a cut before the first acknowledgement loses nothing, so there are enough of them.
rounds=12
torture 1 --mount-command "$powercut --lie log"
grep -q '^round .*LOSS' "$TEST_DIR/torture.out" || fail 'a loss is not named'
torture 1 --mount-command "$powercut --lie data"
torture 1 --mount-command "$powercut --lie superblock -o log=1M" # checkpoints all the time
# What cannot run says so.
same 'a mount command that fails' 2 "$("$AEROFS" torture --mount-command false "$STORE" "$MNT" >/dev/null 2>&1 || echo $?)"
