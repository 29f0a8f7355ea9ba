#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# What a user can ask about durability: user.aerofs.state, aerofs wait, .aerofs/metrics.
. "$(dirname "$0")/lib.sh"
needs getfattr setfattr

state() { getfattr --only-values -n user.aerofs.state "$1" 2>/dev/null; }
number() { sed -n "s/^$1: //p" "$MNT/.aerofs/status"; }
metric() { sed -n "s/^aerofs_$1 //p" "$MNT/.aerofs/metrics"; }

# A disk whose syncs take a while, so that there is something to see in between.
powercut=${AEROFS_POWERCUT:-$TEST_TOP/build/powercut-mount}
mkdir -p "$STORE"
limited "$powercut" --delay-us 200000 --create "$STORE" "$MNT" || fail "powercut-mount failed"
note_daemon "$STORE"

# ---- user.aerofs.state ----

exec 5>"$MNT/key"
echo value >&5
[[ $(state "$MNT/key") == 'pending open lsn='* ]] || fail "an open file is '$(state "$MNT/key")'"
exec 5>&-
wait_for 5 bash -c '[[ $(getfattr --only-values -n user.aerofs.state "$0") != *open* ]]' "$MNT/key" || fail "it stays open"
seen=$(state "$MNT/key")
[[ $seen == 'pending lsn='* || $seen == 'durable lsn='* ]] || fail "a closed file is '$seen'"
sync "$MNT/key"
seen=$(state "$MNT/key")
[[ $seen == 'durable lsn='* ]] || fail "a synced file is '$seen'"
[ "${seen#*=}" -le "$(number lsn_durable)" ] || fail "durable at $seen, the log at $(number lsn_durable)"
[[ $(state "$MNT") == *lsn=* ]] || fail "the root has no state"
! getfattr -d -m - "$MNT/key" | grep -q aerofs || fail "it is listed"
fails_with 'not permitted' setfattr -n user.aerofs.state -v x "$MNT/key"
fails_with 'not permitted' setfattr -x user.aerofs.state "$MNT/key"

# ---- aerofs wait ----

echo more >"$MNT/other"
wait_for 5 bash -c '[[ $(getfattr --only-values -n user.aerofs.state "$0") != *open* ]]' "$MNT/other" || fail "it stays open"
before=$(number lsn_appended)
limited "$AEROFS" wait "$MNT" >waited
[ "$(cat waited)" -ge "$before" ] || fail "waited for $(cat waited), not for $before"
[[ $(state "$MNT/other") == 'durable lsn='* ]] || fail "not durable after the wait: $(state "$MNT/other")"
limited "$AEROFS" wait "$MNT" "$before" >waited
next=$(($(number lsn_appended) + 20))
limited "$AEROFS" wait "$MNT" $next >waited &
pid=$!
sleep 0.3
kill -0 $pid || fail "it does not wait for an LSN that has not been given"
for i in $(seq 25); do mkdir "$MNT/d$i"; done
wait $pid || fail "aerofs wait failed with $?"
[ "$(cat waited)" -ge $next ] || fail "waited for $(cat waited), not for $next"
exits 3 'no mount point' "$AEROFS" wait "$TEST_DIR"
exits 2 'no log sequence number' "$AEROFS" wait "$MNT" soon
stop

# ---- metrics ----

start
same 'up' 1 "$(metric up)"
same 'TYPE lines' "$(grep -c '^# TYPE aerofs_[a-z_]* \(gauge\|counter\)$' "$MNT/.aerofs/metrics")" "$(grep -c '^aerofs_[a-z_]* [0-9]*$' "$MNT/.aerofs/metrics")"
same 'lines of metrics' 0 $(($(wc -l <"$MNT/.aerofs/metrics") % 3))
flushes=$(metric log_flushes_total)
echo x >"$MNT/z" && sync "$MNT/z"
[ "$(metric log_flushes_total)" -gt "$flushes" ] || fail "a flush is not counted"
mkdir "$MNT/.aerofs/snapshots/s"
same 'snapshots' 1 "$(metric snapshots)"
stop
check_store
