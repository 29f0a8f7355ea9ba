#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The conformance suite (tests/posix/README.md): on a mount and on ext4, to write and read-only; and the kinds of answers that only a
# certain mount gives: set-id programs and devices with nosuid and nodev.
. "$(dirname "$0")/lib.sh"
needs_root
needs mkfs.ext4
loop_disk native 600
chmod 777 native
open_to_others

# suite OPTIONS DIR NATIVE: no case differs.
suite() {
    LIMIT=240 limited "$TEST_TOP/tests/posix/run" "$@" >suite.out || fail "$(tail -n 30 suite.out)"
    tail -n 1 suite.out
}

START_OPTIONS=(-o allow_other)
start -o dev,suid
chmod 777 "$MNT"
suite "$MNT" native
[[ $(tail -n 1 suite.out) =~ ^([0-9]+)\ cases,\ ([0-9]+)\ native,\ ([0-9]+)\ AeroFS,\ 0\ differ ]] || fail "$(tail -n 1 suite.out)"
((BASH_REMATCH[1] >= 900 && BASH_REMATCH[1] == BASH_REMATCH[2] && BASH_REMATCH[1] == BASH_REMATCH[3])) || fail "$(tail -n 1 suite.out)"
same 'what the suite leaves' '' "$(ls -A "$MNT")"
same 'the daemon lives' "$DAEMON" "$(holder_of "$STORE")"

# A suite that cannot fail is none: a case with a wrong answer is found.
mkdir wrong
printf 'mkdir: wrong: mkdir d => -EPERM\n' >wrong/wrong.cases
read -ra cc <<<"${CC:-cc}"
"${cc[@]}" -std=gnu11 -D_GNU_SOURCE -I"$TEST_TOP" -o wrong/posix "$TEST_TOP"/tests/posix/{posix_main,script,calls_*}.c
exits_with=0
wrong/posix "$MNT" native wrong/wrong.cases >wrong/out || exits_with=$?
same 'exit code of a suite with a wrong case' 1 $exits_with
grep -q '^1 cases, 0 native, 0 AeroFS, 1 differ' wrong/out || fail "$(cat wrong/out)"

# nosuid and nodev.
cp /usr/bin/id "$MNT/id"
chmod 4755 "$MNT/id"
mknod "$MNT/null" c 1 3
chmod 666 "$MNT/null"
same 'a set-uid program with suid' 0 "$(as_nobody "$MNT/id" -u)"
as_nobody sh -c "echo x >$MNT/null" || fail 'a device with dev'
stop
start -o nodev,nosuid
same 'a set-uid program with nosuid' 65534 "$(as_nobody "$MNT/id" -u)"
fails_with 'Permission denied' as_nobody sh -c "echo x >$MNT/null"

# Read-only.
for dir in "$MNT" native; do
    rm -rf "${dir:?}"/*
    printf x >"$dir/file"
    mkdir "$dir/dir"
    touch "$dir/dir/in"
    ln -s file "$dir/link"
    mkfifo "$dir/fifo"
done
stop
check_store
start -o ro
mount -o remount,ro native
suite --read-only "$MNT" native
stop
umount native
