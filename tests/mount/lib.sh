# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# What the mount tests share. A test begins with
#
#   . "$(dirname "$0")/lib.sh"
#
# and has from then on a store $STORE and a mount point $MNT in its private directory, functions that mount, kill and compare, and a
# cleanup that detaches every mount below that directory and ends every daemon that the test has started, whatever happens.
# A command that fails ends the test and names its line; `fail` says more.
set -euo pipefail
shopt -s inherit_errexit

TEST_TOP=${TEST_TOP:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
AEROFS=${AEROFS:-$TEST_TOP/build/aerofs}
AEROFS_MOUNT=${AEROFS_MOUNT:-$TEST_TOP/build/aerofs-mount}
if [ -z "${TEST_DIR:-}" ]; then
    TEST_DIR=$(mktemp -d "${TMPDIR:-/tmp}/aerofs-test.XXXXXX")
    TEST_DIR_IS_OURS=1
fi
TEST_DIR=$(cd "$TEST_DIR" && pwd -P)
export TEST_DIR TMPDIR=$TEST_DIR LC_ALL=C
cd "$TEST_DIR"
DEEP=${DEEP:-0}

STORE=$TEST_DIR/store
MNT=$TEST_DIR/mnt
mkdir -p "$MNT" "$TEST_DIR/bin"
DAEMON=      # the daemon of the last `start`
DAEMONS=()   # all that were started

# ---- saying what goes on ----

say() { printf '%s\n' "$*"; }
# The lines of the test itself that led here, innermost first.
where() {
    local i text=
    for ((i = 1; i < ${#BASH_SOURCE[@]}; i++)); do
        [ "${BASH_SOURCE[$i]##*/}" = lib.sh ] || text="$text ${BASH_SOURCE[$i]##*/}:${BASH_LINENO[$((i - 1))]}"
    done
    printf '%s' "${text# }"
}
fail() {
    trap - ERR
    printf 'FAILED at %s: %s\n' "$(where)" "$*" >&2
    exit 1
}
skip() {
    printf '%s\n' "$*"
    exit 77
}
on_error() {
    printf 'FAILED at %s:%s: exit code %s of: %s\n' "${BASH_SOURCE[1]##*/}" "${BASH_LINENO[0]}" "$1" "$2" >&2
}
trap 'on_error $? "$BASH_COMMAND"' ERR
set -o errtrace

# ---- sanitizers ----

# A daemon in the background has no stderr: what a sanitizer finds goes to a file, and fails the test at its end.
export ASAN_OPTIONS="${ASAN_OPTIONS:-}:log_path=$TEST_DIR/sanitizer" UBSAN_OPTIONS="${UBSAN_OPTIONS:-}:log_path=$TEST_DIR/sanitizer"
export TSAN_OPTIONS="${TSAN_OPTIONS:-}:log_path=$TEST_DIR/sanitizer"

# ---- cleaning up ----

mounts_here() { awk -v dir="$TEST_DIR/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | tac; }
# True for a living process that is one of our daemons (numbers are reused).
is_daemon() { [ -n "$1" ] && [[ $(cat "/proc/$1/comm" 2>/dev/null || true) =~ ^(aerofs|powercut)-mount ]]; }

cleanup() {
    local code=$? pid m
    trap - ERR EXIT
    set +e
    for pid in $(jobs -p); do
        kill -KILL "$pid" 2>/dev/null
    done
    for pid in "${DAEMONS[@]}"; do
        is_daemon "$pid" && kill -KILL "$pid"
    done
    cd /
    while read -r m; do
        umount -l "$m" 2>/dev/null || fusermount3 -uz "$m" 2>/dev/null
    done < <(mounts_here)
    wait 2>/dev/null
    if compgen -G "$TEST_DIR/sanitizer.*" >/dev/null; then
        head -n 60 "$TEST_DIR"/sanitizer.* >&2
        [ $code -ne 0 ] || code=1
    fi
    [ -z "${TEST_DIR_IS_OURS:-}" ] || rm -rf "$TEST_DIR"
    exit $code
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'on_error "143 (ended)" "$BASH_COMMAND"; exit 143' TERM

# ---- mounting ----

# SECONDS COMMAND…: waits until the command succeeds.
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt "$end" ] || return 1
        sleep 0.02
    done
}
# A zombie is gone too: its parent may take its time.
gone() { ! kill -0 "$1" 2>/dev/null || grep -qs '^State:[[:space:]]*[ZX]' "/proc/$1/status"; }

# Every call that may touch a mount has a limit, so that a daemon that hangs is a failure and no hanging test.
limited() {
    if declare -F "$1" >/dev/null; then
        "$@" # a function of ours, which knows its limit
    else
        timeout --kill-after=5 "${LIMIT:-60}" "$@"
    fi
}

holder_of() { sed 's/ .*//' "$1/lock"; }
# The daemon that serves STORE at $MNT: by its number in STORE/lock or, since it cannot leave one on a read-only disk, by its arguments.
note_daemon() { # STORE
    local file
    DAEMON=$(cat "$1/lock")
    if ! [[ $DAEMON =~ ^[0-9]+$ ]] || ! is_daemon "$DAEMON"; then
        DAEMON=
        for file in $(grep -lazxF "$MNT" /proc/[0-9]*/cmdline 2>/dev/null || true); do
            file=${file#/proc/}
            ! is_daemon "${file%/cmdline}" || DAEMON=${file%/cmdline}
        done
    fi
    [ -n "$DAEMON" ] || fail "no daemon serves $1 at $MNT"
    DAEMONS+=("$DAEMON")
}

# start [OPTION…]: mounts $STORE at $MNT, with START_OPTIONS as well; makes the store when there is none.
START_OPTIONS=()
start() {
    local create=()
    [ -e "$STORE/superblock" ] || create=(--create)
    limited "$AEROFS_MOUNT" "${create[@]}" "${START_OPTIONS[@]}" "$@" "$STORE" "$MNT" >"$TEST_DIR/mount.out" 2>"$TEST_DIR/mount.err" ||
        fail "aerofs-mount $* failed with $?: $(cat "$TEST_DIR/mount.out" "$TEST_DIR/mount.err")"
    note_daemon "$STORE"
}
# Unmounts, and waits for the daemon to write its last checkpoint.
stop() {
    limited umount "$MNT" || fail "umount failed"
    wait_for 60 gone "$DAEMON" || fail "the daemon $DAEMON has not ended 60 s after umount"
}
# SIGKILL, and away with the dead mount.
crash() {
    kill -KILL "$DAEMON" || fail "the daemon $DAEMON had ended by itself"
    wait_for 20 gone "$DAEMON" || fail "the daemon $DAEMON does not die"
    umount -l "$MNT"
}
restart() { # [OPTION…]
    crash
    start "$@"
}

status_of() { # KEY [STORE|MOUNTPOINT]: one value of aerofs status
    limited "$AEROFS" status "${2:-$MNT}" | sed -n "s/^$1: //p"
}

# The store, not mounted, is whole.
check_store() {
    limited "$AEROFS" check "${1:-$STORE}" >"$TEST_DIR/check.out" 2>"$TEST_DIR/check.err" ||
        fail "aerofs check exits with $?: $(cat "$TEST_DIR/check.out" "$TEST_DIR/check.err")"
}

# Lets other users reach the test's directory.
open_to_others() {
    local dir=$TEST_DIR
    while [ "$dir" != / ]; do
        setpriv --reuid=65534 --regid=65534 --clear-groups test -x "$dir" || chmod o+x "$dir"
        dir=$(dirname "$dir")
    done
}
as_nobody() { limited setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }

# ---- expecting ----

same() { # WHAT EXPECTED FOUND
    [ "$2" = "$3" ] || fail "$1: expected '$2', found '$3'"
}
# fails_with ERRNO_TEXT COMMAND…: the command fails and says so ("File exists").
fails_with() {
    local text=$1 out code=0
    shift
    out=$(limited "$@" 2>&1 >/dev/null) || code=$?
    [ $code -ne 0 ] || fail "succeeded, though '$text' was expected: $*"
    [[ $out == *"$text"* ]] || fail "says '$out' instead of '$text': $*"
}
# exits CODE PATTERN COMMAND…: with this code and exactly one line on stderr, which matches the extended regular expression.
exits() {
    local code=$1 pattern=$2 found=0 lines
    shift 2
    limited "$@" >"$TEST_DIR/exits.out" 2>"$TEST_DIR/exits.err" </dev/null || found=$?
    [ "$found" -eq "$code" ] ||
        fail "exit code $found instead of $code: $*: $(cat "$TEST_DIR/exits.out" "$TEST_DIR/exits.err")"
    lines=$(wc -l <"$TEST_DIR/exits.err")
    [ "$lines" -eq 1 ] || fail "$lines lines instead of one: $*: $(cat "$TEST_DIR/exits.err")"
    grep -qE -- "$pattern" "$TEST_DIR/exits.err" || fail "says '$(cat "$TEST_DIR/exits.err")', not '$pattern': $*"
}

# Everything of a directory by which a change would show, whatever was written: a write cannot hide from the change time. The lock
# does not count, nor does the directory itself, in which the lock may be new.
state_of() { find "$1" -mindepth 1 ! -path "$1/lock" -printf '%P %y %i %m %U %G %s %T@ %C@ %l\n' | sort | md5sum; }
# Names, types, modes, link targets and bytes of a tree, one line each; times too with a second argument. (Of files below 100 MiB:
# reading a sparse terabyte takes a while.)
list_tree() {
    (
        cd "$1"
        find . -mindepth 1 ! -type d -printf "%P %y %m %U:%G %l ${2:+%T@}\n" -o -printf "%P %y %m %U:%G\n" | sort
        find . -type f -size -100M -print0 | sort -z | xargs -0 -r sha256sum
    )
}

# ---- tools ----

needs_root() { [ "$(id -u)" -eq 0 ] || skip "needs root"; }
needs() { # PROGRAM…
    local p
    for p in "$@"; do
        command -v "$p" >/dev/null || skip "needs $p"
    done
}
# Builds tests/mount/NAME.c and prints the path of the program.
helper() { # NAME [LIBRARY…]
    # shellcheck disable=SC2086 # CC may be two words, as in "ccache gcc"
    ${CC:-cc} -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -pthread -o "$TEST_DIR/bin/$1" "$TEST_TOP/tests/mount/$1.c" \
        "${@:2}" >&2
    printf '%s' "$TEST_DIR/bin/$1"
}
# A test that takes random choices calls set_seed first, then $RANDOM; no call in a subshell, which has a $RANDOM of its own.
sleep_ms() { sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))"; }
set_seed() {
    SEED=${AEROFS_TEST_SEED:-$(od -An -N2 -tu2 /dev/urandom | tr -d ' ')}
    RANDOM=$SEED
    say "seed $SEED (AEROFS_TEST_SEED=$SEED repeats it)"
}

# flip FILE OFFSET: inverts one byte.
flip() {
    local byte
    byte=$(od -An -tu1 -j "$2" -N1 "$1" | tr -d ' ')
    [ -n "$byte" ] || fail "$1 has no byte at $2"
    # shellcheck disable=SC2059 # the format is an octal escape
    printf "\\$(printf %o $((byte ^ 0xff)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
# loop_disk NAME MiB [MKFS OPTION…]: an ext4 of its own at $TEST_DIR/NAME.
loop_disk() {
    local name=$1 mib=$2
    shift 2
    truncate -s "${mib}M" "$TEST_DIR/$name.img"
    mkfs.ext4 -q -F -m 0 "$@" "$TEST_DIR/$name.img"
    mkdir -p "$TEST_DIR/$name"
    mount -o loop "$TEST_DIR/$name.img" "$TEST_DIR/$name" || skip "cannot mount a loop device"
}
