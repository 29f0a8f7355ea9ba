#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Syncs of the real daemon that fail, take long or never return, under many clients (clients.c); the failures are injected at its
# system calls (trace.c). After a failure every waiter gets an error, nobody is acknowledged, a second fsync never returns 0, the mount is
# read-only and says why, and the next mount has everything acknowledged. A sync that takes long delays, and nothing else. And the
# order of events: no answer to an fsync leaves before the write that covers it has returned.
. "$(dirname "$0")/lib.sh"
[ "$(uname -m)" = x86_64 ] || skip 'trace.c knows the registers of x86-64 only'
needs_root
needs fsfreeze
set_seed
trace=$(helper trace)
clients=$(helper clients)
long=$((DEEP ? 60 : 2))
TRACE=

# Unlike lib.sh's start: in the foreground, so that the messages of the daemon are in daemon.err.
serve() { # [OPTION…]
    local create=()
    [ -e "$STORE/superblock" ] || create=(--create)
    rm -f daemon.err # the message of the last one must not be taken for this one's
    "$AEROFS_MOUNT" -f "${create[@]}" "$@" "$STORE" "$MNT" >daemon.out 2>daemon.err &
    DAEMON=$!
    disown "$DAEMON" # its end is no news
    DAEMONS+=("$DAEMON")
    wait_for 30 grep -qsF ' is mounted at ' daemon.err || fail "no mount: $(cat daemon.err)"
}
run_clients() { # COUNT BYTES
    COUNT=$1 BYTES=$2
    rm -f result result.*
    "$clients" "$MNT" "$1" "$2" "$TEST_DIR/result" &
    CLIENTS=$!
}
acked() { cat result.acked 2>/dev/null | wc -l; }
has_acked() { [ "$(acked)" -ge "$1" ]; }
attach() { # OPTION…
    "$trace" attach --store "$STORE" "$@" "$DAEMON" >trace.out 2>trace.err &
    TRACE=$!
}
# What a hang looks like: is it the daemon, or who traces it?
show_threads() {
    local t
    limited "$AEROFS" status "$MNT" | head -12 || true
    say "acknowledged: $(acked); trace: $(cat trace.err trace.out)"
    for t in /proc/"$DAEMON"/task/*; do
        say "${t##*/} $(cat "$t/wchan") $(grep -E '^(State|TracerPid)' "$t/status" | tr '\n' ' ')"
    done
}
end_clients() {
    local pid=$CLIENTS
    CLIENTS=
    wait_for $((40 + long)) gone "$pid" || { show_threads && fail "$1: clients hang"; }
    wait "$pid" || fail "$1: a client could not do its work"
}
kill_daemon() {
    kill -KILL "$DAEMON" 2>/dev/null || true
    wait_for 30 gone "$DAEMON" || fail 'the daemon does not die'
    [ -z "$TRACE" ] || wait "$TRACE" || fail "trace: $(cat trace.err)"
    TRACE=
    while mounts_here | grep -qxF "$MNT"; do umount -l "$MNT"; done
}
verify() { # WHAT
    limited "$clients" verify "$MNT" "$COUNT" "$BYTES" "$TEST_DIR/result" || fail "$1: lost (seed $SEED)"
}
# Recovered, verified, and it goes on with numbers that were never given. The report says what nobody can know: what lies behind what was
# surely durable, which is never more than what really was.
recovered() { # WHAT HIGHEST_LSN [DURABLE_LSN]
    serve
    if [ -n "${3:-}" ]; then
        [ "$(status_of recovery_proven_lsn)" -le "$3" ] || fail "$1: recovery takes LSN $(status_of recovery_proven_lsn) for proven, $3 was durable"
        [ "$(status_of recovery_last_lsn)" -ge "$3" ] || fail "$1: recovery ends at LSN $(status_of recovery_last_lsn), $3 was durable"
        same "$1: records whose outcome is open" $(($(status_of recovery_last_lsn) - $(status_of recovery_proven_lsn))) \
            "$(status_of recovery_records_unproven)"
        [ "$(status_of recovery_records_unproven)" -eq 0 ] || grep -q 'may or may not have been acknowledged' daemon.err ||
            fail "$1: the report does not say what is open: $(cat daemon.err)"
    fi
    verify "$1"
    grep -q '^state: running$' "$MNT/.aerofs/status" || fail "$1: the next mount does not run"
    echo new >"$MNT/afterwards" && limited sync "$MNT/afterwards"
    [ "$(status_of lsn_durable)" -gt "$2" ] || fail "$1: LSN $(status_of lsn_durable) after $2"
    stop
    check_store
}

# ---- failures ----

# failure NAME CALLS PATH ERRNO COUNT CLIENTS OPTIONS BYTES [WITHIN]: one of the next WITHIN calls fails, in the middle of the load
failure() {
    local name=$1 high durable client first again after write create rest
    rm -rf "$STORE"
    serve -o io=plain,"$7"
    run_clients "$6" "${8}"
    wait_for 30 has_acked 20 || fail "$name: clients do not get on"
    attach --calls "$2" --path "$3" --fail "$4" --count "$5" --at $((1 + RANDOM % ${9:-10}))
    end_clients "$name"
    same "$name: clients" "$6" "$(wc -l <result)"
    while read -r client rest first again after write create; do
        case $first in EIO | EROFS) ;; *) fail "$name: client $client got $first" ;; esac
        case $again in EIO | EROFS) ;; *) fail "$name: client $client: a later fsync got $again" ;; esac
        case $after in EIO | EROFS) ;; *) fail "$name: client $client: fsync after a write got $after" ;; esac
        same "$name: write" EROFS "$write"
        same "$name: create" EROFS "$create"
    done <result
    high=$(status_of lsn_appended) durable=$(status_of lsn_durable)
    same "$name: state" failed "$(status_of state)"
    status_of failure | grep -q . || fail "$name: the status gives no reason"
    grep -q "read-only from now on: .*E" daemon.err || fail "$name: no message: $(cat daemon.err)"
    fails_with 'Read-only file system' rm "$MNT/client0"
    fails_with 'Read-only file system' mkdir "$MNT/directory"
    limited cat "$MNT/client0" >/dev/null || fail "$name: a failed store does not read"
    say "$name: $(acked) acknowledged, $(status_of failure)"
    kill_daemon
    recovered "$name" "$high" "$durable"
}
failure 'a log write, once' pwritev2 wal/ EIO 1 16 log=8M 4096
failure 'a log write without space' pwritev2 wal/ ENOSPC 1 8 log=8M 4096
failure 'a log write over quota' pwritev2 wal/ EDQUOT 1 8 log=8M 4096
failure 'a log write, transient' pwritev2 wal/ EAGAIN 1 8 log=8M 4096
failure 'a sync of data, once' fdatasync data EIO 1 8 log=8M 300000
failure 'a sync of the superblock, once' fdatasync superblock EIO 1 8 log=1M 20000 2
failure 'a write of the superblock' pwritev,pwritev2,pwrite64 superblock EROFS 0 8 log=1M 20000 1

# A segment that cannot be made or opened: told, and nothing lost, whether the log gets on with those it has or not.
for errno in EACCES EROFS EMFILE; do
    rm -rf "$STORE"
    serve -o io=plain,log=1M
    run_clients 8 20000
    wait_for 30 has_acked 20 || fail "$errno: clients do not get on"
    attach --calls openat,renameat,fallocate --path wal --fail $errno --count 0 --at 1
    sleep 1.5
    touch result.end
    end_clients "$errno"
    grep -qE 'cannot make a log segment|read-only from now on' daemon.err || fail "$errno: no message: $(cat daemon.err)"
    if [ "$(status_of state)" = failed ]; then
        ! grep -qE '^[0-9]+ [0-9]+ [^ ]+ 0 ' result || fail "$errno: a later fsync succeeds"
    fi
    say "no access to segments ($errno): $(status_of state), $(acked) acknowledged"
    high=$(status_of lsn_appended)
    kill_daemon
    recovered "$errno" "$high"
done

# ---- a sync that takes long, or never ends ----

rm -rf "$STORE"
serve -o io=plain,log=4M,cache=16M
run_clients 12 4096
wait_for 30 has_acked 20 || fail 'clients do not get on'
attach --calls pwritev2 --path wal/ --at 5 --hold $((long * 1000))
wait_for 10 grep -q holds trace.err || fail 'no write was held'
sleep 0.3
before=$(acked)
# One client dies in its fsync; others write without end: they have to wait.
victim=$(cat "/proc/$CLIENTS/task/$CLIENTS/children")
victim=${victim%% *}
kill -KILL "$victim"
timeout $((long + 60)) dd if=/dev/zero of="$MNT/flood" bs=1M count=600 status=none &
flood=$!
sleep $((long - 1))
same 'acknowledgements while the sync does not return' "$before" "$(acked)"
memory=$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$DAEMON/status")
[ "$memory" -lt 300000 ] || fail "the daemon has grown to $memory KiB"
wait_for 30 has_acked $((before + 24)) || fail 'after the sync has returned, nobody is answered'
wait_for 30 gone "$victim" || fail 'a client that was killed in fsync hangs'
wait $flood || fail 'who wrote meanwhile has failed'
rm "$MNT/flood"
touch result.end
pid=$CLIENTS CLIENTS=
wait_for 60 gone "$pid" || fail 'clients hang'
say "a sync of $long s: $before acknowledged before, $(acked) afterwards, memory $memory KiB"
limited umount "$MNT"
wait_for 60 gone "$DAEMON"
TRACE=
serve
verify 'a sync that took long'
stop

# Never: killed while it is held.
for n in 1 2; do
    rm -rf "$STORE"
    serve -o io=plain,log=4M
    run_clients 12 $((n == 1 ? 4096 : 200000))
    wait_for 30 has_acked 20 || fail 'clients do not get on'
    attach --calls $([ $n -eq 1 ] && echo pwritev2 || echo fdatasync) --path $([ $n -eq 1 ] && echo wal/ || echo data) --at 4 \
        --hold 0 --hold-kill 1000
    pid=$CLIENTS CLIENTS=
    wait_for 30 gone "$DAEMON" || fail 'it was not killed'
    wait_for 30 gone "$pid" || fail 'clients hang'
    grep -q 'while it was held' trace.out || wait_for 5 grep -q 'while it was held' trace.out || fail "trace: $(cat trace.out)"
    kill_daemon
    recovered 'killed while a sync does not return' 0
done

# The same by the file system itself, with io_uring: it is frozen.
loop_disk disk 256
STORE=$TEST_DIR/disk/store
serve -o log=4M
run_clients 12 4096
wait_for 30 has_acked 20 || fail 'clients do not get on'
fsfreeze -f "$TEST_DIR/disk"
sleep 0.5
before=$(acked)
sleep $long
frozen=$(acked)
kill -KILL "$DAEMON"
pid=$CLIENTS CLIENTS=
sleep 0.2
fsfreeze -u "$TEST_DIR/disk"
same 'acknowledgements on a frozen disk' "$before" "$frozen"
wait_for 30 gone "$pid" || fail 'clients hang'
kill_daemon
recovered 'killed while the disk was frozen' 0
wait_for 20 umount "$TEST_DIR/disk"
STORE=$TEST_DIR/store

# ---- the order of events ----

# Of each fsync that is answered with 0: a write of the log began after the request was read and returned before the answer left; and
# no write of the log that names new blocks of data begins before the sync of data has returned.
for options in io=plain io=plain,baseline; do
    rm -rf "$STORE"
    serve -o $options
    run_clients 6 5000
    wait_for 30 has_acked 20 || fail 'clients do not get on'
    attach --log "$TEST_DIR/events"
    sleep 1.5
    kill_daemon # before the clients call fsync with nothing to write, which may be answered at once
    end_clients 'order of events'
    awk '
    $1 == "R" && $3 == 20 { read_at[$2] = NR }
    $1 == "B" && $4 ~ /^wal\// { begun[$2] = NR }
    $1 == "E" && $4 ~ /^wal\// && $5 > 0 && begun[$2] { covers = begun[$2] > covers ? begun[$2] : covers }
    $1 == "A" && $3 == 0 && read_at[$2] { total++; if (covers < read_at[$2]) { early++; print "answered early: " $0 } }
    END { print total + 0, early + 0 }' events >order
    read -r total early < <(tail -n 1 order)
    [ "$total" -ge 20 ] || fail "$options: only $total answers seen"
    same "$options: answers before the covering write" 0 "$early"
    say "$options: $total answers to fsync, each behind the write that covers it"
done
