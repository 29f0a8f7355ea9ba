#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# A parallel build of the project itself on the mount, and what it has built at work; then a build that is killed in the middle and gone on
# with; and editors that save by rename and by truncation.
. "$(dirname "$0")/lib.sh"
needs make gcc vim sed
cc=${CC:-gcc}
unset MAKEFLAGS MAKELEVEL MFLAGS VARIANT WERROR

crash_kind kill
fresh
tar cf - -C "$TEST_TOP" --exclude=./build --exclude=./demo --exclude=./.git . | tar xf - -C "$MNT"
build() { limited make -C "$MNT" -s -j 4 DEPS=no CC="$cc" VARIANT=obj "$@" >build.log 2>&1 || fail "make $*: $(grep -v "^  " build.log | tail -n 30)"; }
build all build/obj/tests/unit/test_wal
same 'the program that was built' "$("$AEROFS" --version)" "$("$MNT/build/aerofs" --version)"
limited "$MNT/build/obj/tests/unit/test_wal" >unit.log 2>&1 || fail "the test that was built fails: $(tail -n 5 unit.log)"
build all # nothing to do
! grep -q CC build.log || fail 'a second make builds again'
passed 'make -j 4 of the project on the mount; what it built runs'
for ((r = 0; r < (DEEP ? 10 : 2); r++)); do
    make -C "$MNT" -s clean >/dev/null
    client make -C "$MNT" -s -j 4 DEPS=no CC="$cc" VARIANT=obj all >/dev/null 2>&1
    sleep_ms $((1000 + RANDOM % 3000))
    cut_off
    # ar(1) first writes, and closes, an archive without members; whoever kills it then has that, on any file system.
    find "$MNT/build" -name '*.a' -size -9c -delete
    build all
    same 'the program that was built' "$("$AEROFS" --version)" "$("$MNT/build/aerofs" --version)"
done
passed "make, killed in the middle and gone on with"

# ---- editors ----

text() { printf 'line %d of the text\n' {1..500}; }
edit() { # PROGRAM: changes "line 250" of $MNT/text to "edited", in its own way
    case $1 in
    vim-rename) vim -Nu NONE -es -c 'set backupcopy=no' -c '%s/line 250 /edited /' -c 'wq' "$MNT/text" ;;
    vim-truncate) vim -Nu NONE -es -c 'set backupcopy=yes nowritebackup' -c '%s/line 250 /edited /' -c 'wq' "$MNT/text" ;;
    vim-fsync) vim -Nu NONE -es -c 'set backupcopy=auto fsync' -c '%s/line 250 /edited /' -c 'wq' "$MNT/text" ;;
    sed) sed -i 's/line 250 /edited /' "$MNT/text" ;;
    shell) sed 's/line 250 /edited /' "$MNT/text" >new && cat new >"$MNT/text" ;;
    esac
}
before=$(text | md5sum) after=$(text | sed 's/line 250 /edited /' | md5sum)
for editor in vim-rename vim-truncate vim-fsync sed shell; do
    for kind in kill power; do
        crash_kind $kind
        stop
        start
        old=0 new=0
        for ((r = 0; r < (DEEP ? 30 : 4); r++)); do
            rm -f "$MNT"/.text.sw* # of a vim that was at work at the crash
            text >"$MNT/text" && chmod 640 "$MNT/text" && sync "$MNT/text"
            limited edit $editor </dev/null >/dev/null 2>&1 || fail "$editor fails"
            same "$editor" "$after" "$(md5sum <"$MNT/text")"
            [ $((r % 2)) -eq 0 ] || sync "$MNT"
            restart
            found=$(md5sum <"$MNT/text")
            case $found in
            "$before") old=$((old + 1)) && [ $((r % 2)) -eq 0 ] && [ $editor != vim-fsync ] || fail "$editor, $kind: a synced text is lost" ;;
            "$after") new=$((new + 1)) ;;
            *) fail "$editor, $kind: the text is neither the old nor the new one" ;;
            esac
            same "$editor: mode" 640 "$(stat -c %a "$MNT/text")"
        done
        passed "$editor, $kind: after the crash $old times the old text, $new times the new one, never another"
    done
done
stop
check_store
