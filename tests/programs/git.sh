#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# git: clone, commit, branch, gc, fsck. Then commits (core.fsync=all), each followed by a sync of the directory, with kills and power cuts: the
# last one that was synced is there, what else is there is a prefix of what was done, and fsck finds nothing. (git commit alone promises
# less: the rename of a branch's file is its commit, and git does not sync the directory after it, with any setting.)
#   DEEP=1: ten times the rounds
. "$(dirname "$0")/lib.sh"
needs git
rounds=$((DEEP ? 30 : 3))
export GIT_AUTHOR_NAME=test GIT_AUTHOR_EMAIL=test@localhost GIT_COMMITTER_NAME=test GIT_COMMITTER_EMAIL=test@localhost
fsck() { limited git -C "$1" fsck --full --strict >fsck.out 2>&1 || fail "git fsck of $1: $(tail -n 5 fsck.out)"; }

source=$TEST_DIR/source
if git -C "$TEST_TOP" rev-parse --git-dir >/dev/null 2>&1; then
    git clone -q --bare "$TEST_TOP" "$source"
else
    git init -q -b main work
    tar cf - -C "$TEST_TOP" --exclude=./build --exclude=./demo . | tar xf - -C work
    git -C work add -A && git -C work commit -q -m all && git clone -q --bare work "$source"
fi
crash_kind kill
fresh
limited git clone -q --no-local "$source" "$MNT/clone"
fsck "$MNT/clone"
for i in 1 2 3 4 5; do
    git -C "$MNT/clone" checkout -q -b "branch$i"
    echo "line $i" >>"$MNT/clone/README.md"
    git -C "$MNT/clone" commit -q -a -m "change $i"
done
limited git -C "$MNT/clone" gc -q --aggressive --prune=now
fsck "$MNT/clone"
limited git -C "$MNT/clone" checkout -q "$(git -C "$source" rev-parse HEAD)"
git clone -q "$source" native
diff -r --exclude .git native "$MNT/clone" || fail 'the clones differ'
same 'git status' '' "$(git -C "$MNT/clone" status --porcelain)"
passed 'git clone, commit, branch, gc --aggressive, fsck, checkout'

for kind in kill power; do
    crash_kind $kind
    fresh
    git init -q -b main "$MNT/repository"
    git -C "$MNT/repository" config core.fsync all
    git -C "$MNT/repository" config gc.auto 50
    git -C "$MNT/repository" config gc.autoDetach false
    git -C "$MNT/repository" commit -q --allow-empty -m 0
    count=0
    for ((r = 0; r < rounds; r++)); do
        : >acked
        # shellcheck disable=SC2016 # for the other shell
        client bash -c 'cd "$1" || exit; for ((i = $2 + 1; ; i++)); do
            echo "content $i" >"file$((i % 40))" && git add -A && git commit -q -m $i && h=$(git rev-parse HEAD) && sync . && echo $h >>"$3" || exit; done' \
            - "$MNT/repository" "$count" "$PWD/acked" >/dev/null 2>&1
        sleep_ms $((800 + RANDOM % 2500))
        cut_off
        # What git leaves locked when it dies, it asks to be removed by hand.
        find "$MNT/repository/.git" -name '*.lock' -delete
        fsck "$MNT/repository"
        last=$(tail -n 1 acked)
        [ -z "$last" ] || git -C "$MNT/repository" merge-base --is-ancestor "$last" main || fail "$kind, round $r: the acknowledged commit $last is lost"
        count=$(git -C "$MNT/repository" log -1 --format=%s main)
        git -C "$MNT/repository" reset -q --hard
    done
    same "$kind: subjects of all commits" "$(seq 0 "$count" | md5sum)" "$(git -C "$MNT/repository" log --reverse --format=%s main | md5sum)"
    passed "git commit and sync, $kind: $rounds crashes, $count commits, none acknowledged is lost, none is missing in between, fsck clean"
done
stop
check_store
