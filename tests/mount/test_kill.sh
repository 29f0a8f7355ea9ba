#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SIGKILL at random instants under parallel writers (writers.c): whatever was acknowledged is there, everything is whole, and what
# each process has left is a moment of its own history. Also in the middle of a recovery, of an unmount, and with small limits,
# so that spills, checkpoints and segment changes happen all the time.
#   ROUNDS=100 AEROFS_TEST_SEED=7 tests/mount/test_kill.sh
. "$(dirname "$0")/lib.sh"
set_seed
rounds=${ROUNDS:-$((DEEP ? 100 : 5))}
writers=$(helper writers)
processes=4
options=('' '-olog=8M' '-ocache=1M' '-oio=plain' '-olog=8M,cache=1M,io=plain')

# run_writers DIRECTORY MIX: in the background
run_writers() {
    mkdir -p "$TEST_DIR/journals"
    "$writers" run "$MNT" "$TEST_DIR/journals" $processes "$SEED" "$1" &
    WRITERS=$!
}
verify() {
    limited "$writers" verify "$MNT" "$TEST_DIR/journals" $processes "$SEED" || fail "$1 (seed $SEED)"
}

# Kills an aerofs-mount that is still recovering, if it is not too fast.
kill_in_recovery() {
    local pid child
    "$AEROFS_MOUNT" "$@" "$STORE" "$MNT" >"$TEST_DIR/recovery.out" 2>&1 &
    pid=$!
    sleep_ms $((RANDOM % 60))
    child=$(cat "/proc/$pid/task/$pid/children" 2>/dev/null || true)
    child=${child%% *}
    if is_daemon "$child"; then
        kill -KILL "$child" 2>/dev/null || true
        wait_for 20 gone "$child"
    fi
    wait $pid || true
    # It may have been ready already.
    child=$(holder_of "$STORE")
    if is_daemon "$child"; then
        kill -KILL "$child" 2>/dev/null || true
        wait_for 20 gone "$child"
    fi
    while mounts_here | grep -qxF "$MNT"; do umount -l "$MNT"; done
}

for ((round = 1; round <= rounds; round++)); do
    # shellcheck disable=SC2206 # an empty one is none
    with=(${options[RANDOM % ${#options[@]}]})
    if ((round % 5 == 1)); then # a new store now and then: journals grow
        rm -rf "$STORE" "$TEST_DIR/journals"
    fi
    start "${with[@]}"
    run_writers all
    sleep_ms $((200 + RANDOM % 2000))
    # The writers end first: without the mount, their paths would lead into the empty directory below it.
    kill -KILL "$DAEMON" || fail "the daemon $DAEMON had ended by itself"
    wait $WRITERS || fail "a writer failed (seed $SEED)"
    wait_for 20 gone "$DAEMON" || fail "the daemon $DAEMON does not die"
    umount -l "$MNT"
    [ $((RANDOM % 2)) -eq 0 ] && check_store
    ((round % 2)) || kill_in_recovery "${with[@]}"
    # shellcheck disable=SC2206
    with=(${options[RANDOM % ${#options[@]}]})
    start "${with[@]}"
    say "round $round: $(status_of recovery)"
    verify "after round $round"
    # Unmounted, and killed before it has finished; or not.
    if ((RANDOM % 2)); then
        run_writers all
        sleep_ms $((100 + RANDOM % 300))
        kill -TERM $WRITERS
        wait $WRITERS || fail "a writer failed (seed $SEED)"
        limited umount "$MNT" || fail 'umount failed'
        sleep_ms $((RANDOM % 20))
        is_daemon "$DAEMON" && kill -KILL "$DAEMON" 2>/dev/null || true
        wait_for 20 gone "$DAEMON"
        start
        verify "killed while unmounting, round $round"
    fi
    stop
    check_store
done

# ---- echo v2 > key: leaves v1 or v2 ----

rm -rf "$STORE"
start
for k in 1 2 3 4; do
    echo 'version 1 of the key' >"$MNT/key$k"
done
sync "$MNT"
for round in 1 2 3; do
    (
        for ((i = 2; i < 100000; i++)); do
            for k in 1 2 3 4; do
                echo "version $i of the key" >"$MNT/key$k" || exit 0
            done
            echo "$i" >"$TEST_DIR/last"
        done
    ) 2>/dev/null &
    writer=$!
    sleep_ms $((300 + RANDOM % 1000))
    restart
    wait $writer || true
    for k in 1 2 3 4; do
        text=$(cat "$MNT/key$k")
        [[ $text =~ ^version\ [0-9]+\ of\ the\ key$ ]] || fail "key$k holds '$text' (round $round, seed $SEED)"
    done
done
# C4: unsynced, but older than a second and a bit: there.
echo 'settled' >"$MNT/key1"
mkdir "$MNT/settled-directory"
sleep 2.5
restart
same 'an unsynced key after two seconds' settled "$(cat "$MNT/key1")"
[ -d "$MNT/settled-directory" ] || fail 'an unsynced mkdir is lost after two seconds'

# ---- what was never completed ----

# A new file that is still open is no file; an old one keeps what it had; a logger's lines come when they are synced.
echo old >"$MNT/open"
sync "$MNT"
exec 5>"$MNT/open" 6>"$MNT/new" 7>>"$MNT/log"
echo 'half' >&5
echo 'half' >&6
echo 'line 1' >&7
sync "$MNT/log"
echo 'line 2' >&7
sync "$MNT"
restart
exec 5>&- 6>&- 7>&-
same 'a file open for overwriting' old "$(cat "$MNT/open")"
[ ! -e "$MNT/new" ] || fail 'a file that was never completed is there'
same 'a log' 'line 1' "$(cat "$MNT/log")"
# The timer for appenders.
restart -o commit_open=1
exec 7>>"$MNT/log" 5>"$MNT/open"
echo 'line 2' >&7
echo 'half' >&5
sleep 4
restart
exec 7>&- 5>&-
same 'a log, with commit_open=1' $'line 1\nline 2' "$(cat "$MNT/log")"
same 'commit_open is for appenders only' old "$(cat "$MNT/open")"
# An unlinked open file leaves nothing.
exec 5>"$MNT/unlinked"
head -c 3000000 /dev/zero >&5
sync "$MNT/unlinked"
rm "$MNT/unlinked"
sync "$MNT"
restart
exec 5>&-
same 'the unlinked open file is removed' 1 "$(status_of recovery_orphans_removed)"
stop
check_store
