#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Packages: dpkg with a root on the mount, killed and cut in the middle and begun again; and debootstrap of a whole system, where a
# mirror can be reached. (DEEP=1 or AEROFS_DEBOOTSTRAP=1: the latter takes minutes.)
. "$(dirname "$0")/lib.sh"
needs dpkg dpkg-deb
PROGRAM_OPTIONS=(-o dev,suid)

# ---- dpkg ----

# Packages of our own: with files, directories, links, conffiles, scripts, and in two versions.
make_package() { # NAME VERSION
    local dir=$TEST_DIR/tree-$1-$2 i
    mkdir -p "$dir/DEBIAN" "$dir/usr/share/$1/deep/er" "$dir/etc"
    printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: test <test@localhost>\nDescription: test\n' "$1" "$2" >"$dir/DEBIAN/control"
    printf '/etc/%s.conf\n' "$1" >"$dir/DEBIAN/conffiles"
    printf '#!/bin/sh\nexit 0\n' >"$dir/DEBIAN/postinst" && chmod 755 "$dir/DEBIAN/postinst"
    for i in {1..60}; do
        head -c $((RANDOM % 20000)) /dev/urandom >"$dir/usr/share/$1/file$i"
    done
    echo "$2" >"$dir/usr/share/$1/version"
    echo "conf $2" >"$dir/etc/$1.conf"
    ln -s file1 "$dir/usr/share/$1/link"
    ln "$dir/usr/share/$1/file2" "$dir/usr/share/$1/deep/er/hard"
    dpkg-deb --root-owner-group -Znone -b "$dir" "$TEST_DIR/$1-$2.deb" >/dev/null
}
for name in alpha beta gamma; do
    make_package $name 1.0
    make_package $name 2.0
done
root=$MNT/root
dpkg=(dpkg --root="$root" --force-not-root --force-confnew --force-script-chrootless --log=/dev/null)
pkg() { limited "${dpkg[@]}" "$@"; }
verified() { # VERSION: every file of every package is what the package holds
    local name
    for name in alpha beta gamma; do
        same "version of $name" "$1 install ok installed" "$(dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${Version} ${Status}' $name)"
        (cd "$TEST_DIR/tree-$name-$1" && find usr etc -type f) | while read -r f; do
            cmp "$TEST_DIR/tree-$name-$1/$f" "$root/$f" || fail "$f differs"
        done
        [ "$(readlink "$root/usr/share/$name/link")" = file1 ] || fail 'a link'
    done
    same 'dpkg --audit' '' "$(pkg --audit)"
}
for kind in kill power; do
    crash_kind $kind
    fresh
    mkdir -p "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/updates"
    : >"$root/var/lib/dpkg/status"
    pkg -i alpha-1.0.deb beta-1.0.deb gamma-1.0.deb >dpkg.log 2>&1 || fail "dpkg -i: $(tail -n 3 dpkg.log)"
    verified 1.0
    # What dpkg has acknowledged, it has synced.
    restart
    verified 1.0
    for ((r = 0; r < (DEEP ? 20 : 4); r++)); do
        version=$((r % 2 ? 1 : 2)).0
        client "${dpkg[@]}" -i alpha-$version.deb beta-$version.deb gamma-$version.deb >dpkg.log 2>&1
        sleep_ms $((20 + RANDOM % 500))
        cut_off
        rm -f "$root/var/lib/dpkg/lock"*
        pkg --configure -a >dpkg.log 2>&1 || true
        pkg -i alpha-$version.deb beta-$version.deb gamma-$version.deb >dpkg.log 2>&1 || fail "$kind, round $r: dpkg -i after a crash: $(tail -n 3 dpkg.log)"
        verified $version
    done
    pkg -r alpha >/dev/null 2>&1 && pkg -P alpha >/dev/null 2>&1 || fail 'dpkg -P'
    [ ! -e "$root/usr/share/alpha" ] || fail 'dpkg -P left files'
    passed "dpkg --root, $kind: install, upgrade, downgrade with crashes in the middle, purge"
done
stop
check_store

# ---- a whole system ----

suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
# The one that apt has been told to use for this release.
mirror=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 2>/dev/null | awk -v suite="$suite" '$1 == suite { print $2; exit }')
if [ "$DEEP" = 0 ] && [ -z "${AEROFS_DEBOOTSTRAP:-}" ]; then
    say 'debootstrap: with DEEP=1'
elif ! command -v debootstrap >/dev/null || [ -z "$mirror" ]; then
    fail 'debootstrap, or a mirror in the sources of apt, is missing'
else
    crash_kind kill
    fresh
    LIMIT=1500 limited debootstrap --variant=minbase "$suite" "$MNT/system" "$mirror" >debootstrap.log 2>&1 || fail "debootstrap: $(tail -n 5 debootstrap.log)"
    limited chroot "$MNT/system" dpkg --verify >verify.log || fail "dpkg --verify: $(head -n 5 verify.log)"
    same 'dpkg --verify in the new system' '' "$(cat verify.log)"
    same 'dpkg --audit in the new system' '' "$(limited chroot "$MNT/system" dpkg --audit)"
    cp /etc/resolv.conf "$MNT/system/etc/" 2>/dev/null || true
    limited chroot "$MNT/system" apt-get install -y -qq --no-install-recommends hello >apt.log 2>&1 || fail "apt-get in the new system: $(tail -n 3 apt.log)"
    same hello 'Hello, world!' "$(limited chroot "$MNT/system" hello)"
    sync "$MNT"
    list_tree "$MNT/system" >before
    restart
    list_tree "$MNT/system" | cmp - before || fail 'the system differs after a kill'
    passed "debootstrap $suite: $(find "$MNT/system" -xdev | wc -l) files; apt-get install in a chroot; dpkg --verify; the same after a kill"
    stop
    check_store
fi
