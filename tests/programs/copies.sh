#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Copies, into a mount and out of it: cp -a, rsync -aHAX, tar with ACLs and extended attributes; and what find, ls, du and df say. Then copies
# that a crash interrupts: every file is whole or absent, and the copy begun again comes to its end.
. "$(dirname "$0")/lib.sh"
needs rsync tar setfattr getfattr getfacl setfacl


source=$TEST_DIR/source
mkdir "$source"
make_tree() {
    local i
    for i in {1..300}; do
        mkdir -p "$source/d$((i % 17))/e$((i % 5))"
        head -c $((RANDOM * 2)) /dev/urandom >"$source/d$((i % 17))/e$((i % 5))/f$i"
    done
    truncate -s 100M "$source/sparse" && echo middle | dd of="$source/sparse" bs=1 seek=50000000 conv=notrunc status=none
    head -c 20000000 /dev/urandom >"$source/large"
    : >"$source/empty"
    ln "$source/large" "$source/d1/hard" && ln -s ../large "$source/d1/soft" && ln -s nowhere "$source/dangling"
    mkfifo "$source/fifo" && mknod "$source/device" c 1 3 && python3 -c 'import socket,sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$source/socket"
    touch "$source/ünï cödé" "$source"/$'new\nline' "$source/-dash" "$source/$(printf 'n%.0s' {1..255})"
    chmod 4755 "$source/d1/hard" && chmod 1777 "$source/d2" && chmod 2775 "$source/d3" && chmod 000 "$source/d4/e4/"*
    chown -R 1234:4321 "$source/d5"
    touch -d '1971-02-03 04:05:06.789012345' "$source/d6" && touch -d '2199-01-01' "$source/empty"
    setfattr -n user.key -v value "$source/d7" && setfattr -n user.binary -v 0x000102ff "$source/large" && setfattr -n trusted.secret -v x "$source/empty"
    setfattr -n user.long -v "$(head -c 3000 /dev/zero | tr '\0' v)" "$source/d7/e2"
    setfacl -m u:1234:rwx,g:4321:r,m::rx "$source/d8" && setfacl -d -m u:1234:rwx,o::- "$source/d8" && setfacl -m u:99:rw "$source/d9/e4/f9" 2>/dev/null || setfacl -m u:99:rw "$source/large"
    chmod 4755 "$source/large"
}
make_tree
# Everything of a tree that a program can ask for.
described() {
    (
        cd "$1"
        list_tree . times
        find . -printf '%P %n %u %g %C+\n' | awk '{ $NF = ""; print }' | sort # link counts, names of owners
        find . ! -type l -print0 | sort -z | xargs -0 getfattr -h -d -m - -e hex --absolute-names
        find . ! -type l -print0 | sort -z | xargs -0 getfacl -Pn --absolute-names
    )
}
described "$source" >expected
as_source() { # DIRECTORY WHAT
    described "$1" >found
    cmp -s expected found || fail "$2: $(diff expected found | head -n 10)"
    passed "$2"
}
crash_kind kill
fresh
limited cp -a "$source" "$MNT/cp" && as_source "$MNT/cp" 'cp -a into the mount'
limited rsync -aHAXS "$source/" "$MNT/rsync/" && as_source "$MNT/rsync" 'rsync -aHAX into the mount'
same 'rsync, again' '' "$(limited rsync -aHAXSi --checksum --delete "$source/" "$MNT/rsync/")"
limited tar -C "$source" --acls --xattrs --xattrs-include='*' -S -cf out.tar . 2>tar.err || fail "$(cat tar.err)"
mkdir "$MNT/tar" && limited tar -C "$MNT/tar" --acls --xattrs --xattrs-include='*' -S --same-owner -xpf out.tar 2>tar.err || fail "$(cat tar.err)"
rm -f "$MNT/tar/socket" && python3 -c 'import socket,sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$MNT/tar/socket"
touch -r "$source/socket" "$MNT/tar/socket" && touch -r "$source" "$MNT/tar" # tar skips sockets
as_source "$MNT/tar" 'tar into the mount'
sync "$MNT"
restart
for copy in cp rsync tar; do as_source "$MNT/$copy" "$copy, after a kill"; done
limited cp -a "$MNT/cp" out-cp && as_source out-cp 'cp -a out of the mount'
limited rsync -aHAXS "$MNT/rsync/" out-rsync/ && as_source out-rsync 'rsync -aHAX out of the mount'
limited cp -a "$MNT/cp" "$MNT/cp2" && as_source "$MNT/cp2" 'cp -a within the mount'

# find, ls, du, df.
same 'ls -lR' "$(cd "$source" && ls -lRn --time-style=full-iso | grep -v '^total')" "$(cd "$MNT/cp" && ls -lRn --time-style=full-iso | grep -v '^total')"
for expression in '-newermt 2030-01-01' '-perm -4000' '-type p,c,s' '-empty' '-size +1M' '-links +1' '-user 1234' "-iname *ÜNÏ*"; do
    # shellcheck disable=SC2086
    same "find $expression" "$(cd "$source" && find . $expression | sort)" "$(cd "$MNT/cp" && find . $expression | sort)"
done
same 'du --apparent-size' "$(cd "$source" && find . -type f -links 1 -print0 | du -b --files0-from=- -c | tail -n 1)" "$(cd "$MNT/cp" && find . -type f -links 1 -print0 | du -b --files0-from=- -c | tail -n 1)"
[ "$(du -k "$MNT/cp/sparse" | cut -f 1)" -lt 100 ] || fail "du: the sparse file takes $(du -k "$MNT/cp/sparse")"
before=$(df --output=used -k "$MNT" | tail -n 1)
dd if=/dev/urandom of="$MNT/filler" bs=1M count=64 conv=fsync status=none
grown=$(($(df --output=used -k "$MNT" | tail -n 1) - before))
[ $grown -ge 65536 ] && [ $grown -le 75000 ] || fail "df: used grew by $grown KiB with a file of 65536 KiB"
passed 'ls -lR, find, du, df'

for kind in kill power; do
    crash_kind $kind
    for program in cp rsync tar; do
        fresh
        for ((r = 0; r < (DEEP ? 10 : 2); r++)); do
            case $program in
            cp) client cp -a "$source/." "$MNT/copy" ;;
            rsync) client rsync -aHAX "$source/" "$MNT/copy/" ;;
            tar) mkdir -p "$MNT/copy" && client tar -C "$MNT/copy" --acls --xattrs -xpf out.tar ;;
            esac >/dev/null 2>&1
            sleep_ms $((100 + RANDOM % 800))
            cut_off
            [ ! -e "$MNT/copy" ] || (cd "$MNT/copy" && find . -type f ! -name '.*' -print0) | while IFS= read -r -d '' f; do
                cmp -s "$source/$f" "$MNT/copy/$f" || fail "$program, $kind: $f is in part after a crash"
            done
        done
        limited rsync -aHAXS --delete "$source/" "$MNT/copy/"
        as_source "$MNT/copy" "$program, interrupted by $kind, finished by rsync"
    done
done
stop
check_store
