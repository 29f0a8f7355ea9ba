#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# C3, the order of the history, where it is hardest: close(2) returns before its RELEASE is answered, so a sync of the directory, or a
# mkdir, that comes after it must not overtake it, however busy the mount is with reads (read-ahead fills the kernel's background
# queue, in which a RELEASE waits too, and a cold read sends the daemon to its workers).
. "$(dirname "$0")/lib.sh"
set_seed
rounds=${ROUNDS:-$((DEEP ? 50 : 3))}
writers=$(helper writers)
readers=()

start_readers() {
    local i
    readers=()
    for i in 1 2 3 4; do
        (
            while :; do # drops the pages first, so that every read goes to the daemon, with read-ahead
                dd if="$MNT/cold$i" iflag=nocache count=0 status=none || exit 0
                cat "$MNT/cold$i" >/dev/null || exit 0
                find "$MNT/tree" -type f -exec cat {} + >/dev/null || exit 0
            done
        ) 2>/dev/null &
        readers+=($!)
    done
}
stop_readers() {
    kill "${readers[@]}" 2>/dev/null || true
    wait "${readers[@]}" 2>/dev/null || true
}
make_cold() {
    local i
    for i in 1 2 3 4; do
        head -c 40000000 /dev/urandom >"$MNT/cold$i"
    done
    mkdir "$MNT/tree"
    for i in $(seq 300); do
        head -c 3000 /dev/urandom >"$MNT/tree/$i"
    done
    sync "$MNT"
}

# ---- a sync of the directory covers every file closed before it ----

# close_many FROM TO: one process each, as shells do; in the first directory files made, in the second files overwritten.
close_many() {
    local i
    for ((i = $1; i <= $2; i++)); do
        echo "file $i, whole" >"$MNT/made/$i"
        echo "version $i, whole" >"$MNT/kept/$((i % 50))"
        [ $((i % 20)) -ne 0 ] || head -c 200000 /dev/zero | tr '\0' "$((i % 10))" >"$MNT/made/large$i"
    done
}
all_there() { # UP TO
    local i
    for ((i = 1; i <= $1; i++)); do
        same "file $i" "file $i, whole" "$(<"$MNT/made/$i")"
        [ $((i % 20)) -ne 0 ] || same "large file $i" "$(head -c 200000 /dev/zero | tr '\0' "$((i % 10))" | md5sum)" \
            "$(md5sum <"$MNT/made/large$i")"
    done
    for ((i = $1 - 49; i <= $1; i++)); do
        [[ $(<"$MNT/kept/$((i % 50))") =~ ^version\ ([0-9]+),\ whole$ ]] || fail "kept/$((i % 50)) is not whole"
        [ "${BASH_REMATCH[1]}" -ge "$i" ] || fail "kept/$((i % 50)) holds version ${BASH_REMATCH[1]}, not $i"
    done
}

start -o cache=1M
make_cold
mkdir "$MNT/made" "$MNT/kept"
done_so_far=0
for ((round = 1; round <= rounds; round++)); do
    start_readers
    sleep_ms $((100 + RANDOM % 200))
    batch=$((100 + RANDOM % 100))
    close_many $((done_so_far + 1)) $((done_so_far + batch))
    done_so_far=$((done_so_far + batch))
    sync "$MNT/made"
    kill -KILL "$DAEMON"
    wait_for 20 gone "$DAEMON"
    stop_readers
    umount -l "$MNT"
    start -o cache=1M
    all_there $done_so_far
done

# ---- what is there, is there in order: close, then mkdir ----

for ((round = 1; round <= rounds; round++)); do
    start_readers
    (
        for ((i = 1; i < 100000; i++)); do
            echo "before the directory $i" >"$MNT/made/r$round-$i"
            mkdir "$MNT/made/d$round-$i"
        done
    ) 2>/dev/null &
    writer=$!
    sleep_ms $((300 + RANDOM % 900))
    kill -KILL "$DAEMON"
    wait_for 20 gone "$DAEMON"
    wait $writer || true
    stop_readers
    umount -l "$MNT"
    start -o cache=1M
    count=0
    for d in "$MNT"/made/d"$round"-*; do
        [ -d "$d" ] || continue
        i=${d##*-}
        same "the file closed before mkdir $i" "before the directory $i" "$(<"$MNT/made/r$round-$i")"
        count=$((count + 1))
    done
    say "round $round: $count directories, each with what was closed before it"
done

# ---- the same in general (writers.c checks that each process's keys are one moment of its history) ----

mkdir journals
for ((round = 1; round <= rounds; round++)); do
    start_readers
    "$writers" run "$MNT" "$TEST_DIR/journals" 4 "$SEED" close &
    pid=$!
    sleep_ms $((300 + RANDOM % 1200))
    kill -KILL "$DAEMON"
    wait_for 20 gone "$DAEMON"
    wait $pid || fail "a writer failed (seed $SEED)"
    stop_readers
    umount -l "$MNT"
    start -o cache=1M
    limited "$writers" verify "$MNT" "$TEST_DIR/journals" 4 "$SEED" || fail "round $round (seed $SEED)"
done
stop
check_store
