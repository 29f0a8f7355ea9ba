#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SIGKILL at the system calls of the real daemon (trace.c): before each of them and right behind it, while a store is made, recovered,
# written, checkpointed and closed; some thousand instructions behind a call; and with threads stopped one by one before it. What was
# acknowledged is there afterwards, what is there is a prefix, and the image is whole.
#   DEEP=1 tests/mount/test_syscalls.sh     every call, before and behind
#   ROUNDS=100 AEROFS_TEST_SEED=7 tests/mount/test_syscalls.sh
. "$(dirname "$0")/lib.sh"
[ "$(uname -m)" = x86_64 ] || skip 'trace.c knows the registers of x86-64 only'
set_seed
rounds=${ROUNDS:-$((DEEP ? 40 : 1))}
trace=$(helper trace)
base=$TEST_DIR/base

# traced OPTION… -- COMMAND…: leaves what trace said in $SAID
traced() {
    SAID=$(limited "$trace" run --store "$STORE" "$@" 2>"$TEST_DIR/trace.err" | tail -n 1) || fail "trace: $(cat "$TEST_DIR/trace.err")"
    note_any
    while mounts_here | grep -qxF "$MNT"; do umount -l "$MNT"; done
}
# Should anything outlive trace, the test ends it.
note_any() {
    local pid
    pid=$(cat "$STORE/lock" 2>/dev/null || true)
    ! is_daemon "$pid" || DAEMONS+=("$pid")
}
# The numbers at which to kill, of calls 1 to TOTAL: all, or so many at random.
choose() { # TOTAL COUNT
    local i
    if ((DEEP)); then seq "$1"; return; fi
    for ((i = 0; i < $2; i++)); do
        echo $((1 + (i * $1 + SEED % $1) / $2 % $1)) # spread evenly, from a random start
    done
}

# ---- a store is made ----

rm -rf "$STORE"
traced "$AEROFS_MOUNT" --create "$STORE" "$MNT"
total=${SAID#ended after }
[[ $total =~ ^[0-9]+$ ]] || fail "making a store: $SAID"
say "a store is made, opened and closed in $total calls"
for when in entry exit; do
    for n in $(choose "$total" 4); do
        rm -rf "$STORE"
        traced --at "$n" --kill $when "$AEROFS_MOUNT" --create "$STORE" "$MNT"
        [[ $SAID == killed* ]] || continue # the number of calls varies a little
        echo "$SAID" >>kills
        start --create
        echo key >"$MNT/key" || fail "$SAID: cannot write"
        stop
        check_store
    done
done

# ---- recovery, commits, checkpoints, the last checkpoint ----

# Values fill a log of small segments, so that checkpoints come and segments are recycled; each step is acknowledged in a file.
cat >work.sh <<'WORK'
cd "$1"
for i in $(seq 1 14); do
    case $((i % 7)) in
    0) mkdir "dir$i" && sync . ;;
    3) mv "key$((i - 1))" "moved$i" && sync . ;;
    5) head -c 400000 /dev/zero | tr '\0' "$((i % 10))" >"key$i" && sync "key$i" ;;
    *) head -c 50000 /dev/zero | tr '\0' "$((i % 10))" >"key$i" && sync "key$i" ;;
    esac || exit 1
    echo "$i" >>"$2"
done
WORK
# What is there after step N, in words.
after() {
    local i
    for ((i = 1; i <= $1; i++)); do
        case $((i % 7)) in
        0) echo "dir$i" ;;
        3) echo "moved$i 50000 $(((i - 1) % 10))" ;;
        5) echo "key$i 400000 $((i % 10))" ;;
        *) ((i % 7 == 2 && i < $1)) || echo "key$i 50000 $((i % 10))" ;;
        esac
    done | sort
}
found() {
    local f
    for f in "$MNT"/dir* "$MNT"/key* "$MNT"/moved*; do
        [ -e "$f" ] || continue
        if [ -d "$f" ]; then echo "${f##*/}"; else echo "${f##*/} $(stat -c %s "$f") $(fold -w1 "$f" | sort -u | tr -d '\n')"; fi
    done | sort
}
# What the log holds when the daemon dies is replayed first.
rm -rf "$STORE"
start -o log=512K
mkdir "$MNT/old"
for i in {1..30}; do
    head -c $((i * 900)) /dev/urandom >"$MNT/old/$i"
done
exec 5<>"$MNT/old/30"
rm "$MNT/old/30"
sync "$MNT"
old=$(list_tree "$MNT/old" | md5sum)
crash
exec 5>&-
cp -a --sparse=always "$STORE" "$base"

with=(-o log=512K)
for io in plain uring; do
    rm -rf "$STORE" acked && cp -a --sparse=always "$base" "$STORE"
    traced --work "sh $TEST_DIR/work.sh $MNT $TEST_DIR/acked" "$AEROFS_MOUNT" "${with[@]}" -o io=$io "$STORE" "$MNT"
    total=${SAID#ended after }
    [[ $total =~ ^[0-9]+$ ]] || fail "io=$io: $SAID"
    same 'the work that nobody disturbs' 14 "$(tail -n 1 acked)"
    say "io=$io: recovery, commits, checkpoints and the end take $total calls"
    for when in entry exit; do
        for n in $(choose "$total" 5); do
            rm -rf "$STORE" acked && cp -a --sparse=always "$base" "$STORE"
            traced --at "$n" --kill $when --work "sh $TEST_DIR/work.sh $MNT $TEST_DIR/acked" "$AEROFS_MOUNT" "${with[@]}" -o io=$io "$STORE" "$MNT"
            [[ $SAID == killed* ]] || continue
            echo "$SAID" >>kills
            acked=$(tail -n 1 acked 2>/dev/null || echo 0)
            start "${with[@]}"
            same "$SAID: what was there before" "$old" "$(list_tree "$MNT/old" | md5sum)"
            state=$(found)
            [ "$state" = "$(after "$acked")" ] || [ "$state" = "$(after $((acked + 1)))" ] ||
                fail "io=$io, $SAID, $acked steps acknowledged: neither the state after them nor the next: $state"
            stop
            check_store
        done
    done
done
summary() { # FILE: how many kills at which call
    sed -n 's/^killed at \([^ ]* [^ ]*,\?\).*/\1/p' "$1" | sed 's/[0-9a-f]\{16\}/N/; s/,$//' | sort | uniq -c | sort -rn |
        awk '{ printf "%s%s %s: %d", (NR > 1 ? ", " : ""), $2, $3, $1 } END { print "" }'
}
say "$(wc -l <kills) kills while a store is made, recovered, written, checkpointed and closed: $(summary kills)"

# ---- under load ----

# torture CUT_COMMAND [MOUNT_OPTIONS]
torture() {
    local code=0
    rm -rf "$STORE"
    LIMIT=$((60 + rounds * 10)) limited "$AEROFS" torture --rounds "$rounds" --seed "$SEED" --cut-ms 300 --mount-command "$AEROFS_MOUNT ${2:-}" \
        --cut-command "$1" "$STORE" "$MNT" >torture.out 2>torture.err || code=$?
    say "$(tail -n 1 torture.out)"
    [ $code -eq 0 ] || fail "torture with $1 exits with $code (seed $SEED): $(tail -n 5 torture.out torture.err)"
}
at() { # KILL CALLS UP_TO MOUNT_OPTIONS
    torture "$trace attach --store $STORE --kill $1 --calls $2 --random $3 --ms 1500 --seed $SEED --note $TEST_DIR/loaded" "$4"
}
for kill in entry exit; do
    at $kill pwritev2 60 '-o io=plain,log=1M'
    at $kill fdatasync 30 '-o io=plain,log=1M'
    at $kill io_uring_enter 60 '-o log=1M'
    at $kill pwritev,pwrite64 10 '-o log=1M,cache=1M'
    at $kill renameat,renameat2,unlinkat,openat,ftruncate,fallocate 8 '-o log=1M'
done
# Instructions behind a call: the acknowledgement, the steps of a checkpoint.
for calls in pwritev2,io_uring_enter pwritev,fdatasync,fsync,renameat; do
    torture "$trace attach --store $STORE --step 5000 --calls $calls --random 60 --ms 1500 --seed $SEED --note $TEST_DIR/steps" '-o io=plain,log=1M'
done
# Threads, stopped one after the other in any order, some or all.
for options in '-o log=1M' '-o io=plain,log=1M,cache=1M'; do
    torture "$trace stop --seed $SEED --note $TEST_DIR/stops" "$options"
done
say "$(grep -c ^killed loaded) kills at calls under load: $(summary loaded)"
say "$(grep -c ^killed steps) kills behind a call, after $(sed -n 's/.*, \([0-9]*\) instructions.*/\1/p' steps | awk '{ n += $1 } END { print n + 0 }') instructions"
say "$(wc -l <stops) kills with threads stopped: $(cut -d' ' -f3- stops | tr '\n' ';')"
