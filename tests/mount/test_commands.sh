#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The commands: what they print, their exit codes, and that they change nothing.
. "$(dirname "$0")/lib.sh"
needs_root

limited "$AEROFS" --help >/dev/null || fail 'aerofs --help'
for command in status check log dump; do
    limited "$AEROFS" $command --help >"$TEST_DIR/help" || fail "aerofs $command --help"
    grep -qi 'exit' "$TEST_DIR/help" || fail "aerofs $command --help names no exit codes"
done
limited "$AEROFS" --version | grep 'aerofs' || fail 'aerofs --version'
limited "$AEROFS_MOUNT" --help | grep -- '--create' || fail 'aerofs-mount --help'
limited "$AEROFS_MOUNT" --version | grep 'aerofs' || fail 'aerofs-mount --version'
code=0
limited "$AEROFS" nosuch 2>"$TEST_DIR/err" || code=$?
same 'exit code of an unknown command' 2 $code
grep -q nosuch "$TEST_DIR/err" || fail 'an unknown command is not named'
code=0
limited "$AEROFS" check 2>"$TEST_DIR/err" || code=$?
same 'exit code without a store' 2 $code
grep -q usage "$TEST_DIR/err" || fail 'no usage'

start
for i in $(seq 20); do
    echo "value $i" >"$MNT/key$i"
done
head -c 300000 /dev/urandom >"$MNT/large"
sync "$MNT/large"
sync "$MNT"

# The same from outside and from the file in the mount.
same 'state' running "$(status_of state)"
same 'durable' "$(status_of lsn_appended)" "$(status_of lsn_durable)"
grep -q '^state: running$' "$MNT/.aerofs/status" || fail '.aerofs/status'
same 'damage' '' "$(grep -v '^#' "$MNT/.aerofs/damage" | grep -i 'block' || true)"
[[ " $(ls -a "$MNT" | tr '\n' ' ') " != *' .aerofs '* ]] || fail '.aerofs is listed'
if command -v python3 >/dev/null; then
    limited "$AEROFS" status --json "$MNT" | python3 -m json.tool >/dev/null || fail 'status --json of a mount'
fi
code=0
limited "$AEROFS" check "$STORE" >/dev/null 2>&1 || code=$?
same 'aerofs check of a store in use' 2 $code
crash

before=$(state_of "$STORE")
limited "$AEROFS" status "$STORE" >"$TEST_DIR/status" || fail 'status of a store that is not mounted'
if command -v python3 >/dev/null; then
    limited "$AEROFS" status --json "$STORE" | python3 -m json.tool >/dev/null || fail 'status --json of a store'
fi
limited "$AEROFS" log "$STORE" >"$TEST_DIR/log"
for i in $(seq 20); do
    grep -q "\"key$i\"" "$TEST_DIR/log" || fail "aerofs log does not show key$i"
done
limited "$AEROFS" dump "$STORE" | grep 'superblock' >/dev/null || fail 'aerofs dump shows no superblock'
check_store # unreplayed log is no damage
same 'bytes of the store' "$before" "$(state_of "$STORE")"

start
stop
limited "$AEROFS" dump "$STORE" | grep 'key20' >/dev/null || fail 'aerofs dump shows no entries'
before=$(state_of "$STORE")
check_store
same 'bytes of the store' "$before" "$(state_of "$STORE")"
code=0
limited "$AEROFS" check "$TEST_DIR/bin" >/dev/null 2>&1 || code=$?
same 'aerofs check of what is no store' 2 $code
