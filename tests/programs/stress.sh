#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Programs that exist to break file systems: fio with verification in each of its ways to write, the file system stressors of stress-ng
# with --verify, dbench, bonnie++.
#   DEEP=1: minutes instead of seconds
. "$(dirname "$0")/lib.sh"
needs fio stress-ng dbench bonnie++
seconds=$((DEEP ? 60 : 3))
errors() { same "$1: errors of the daemon" "0 0" "$(status_of errors) $(status_of damaged)"; }

crash_kind kill
fresh -o dev,suid

# ---- fio ----

size=$((DEEP ? 512 : 48))m
for engine in psync 'libaio --iodepth=16' 'libaio --iodepth=16 --direct=1' mmap 'io_uring --iodepth=16' 'psync --fsync=8' 'psync --sync=1'; do
    for rw in randwrite write; do
        # shellcheck disable=SC2086 # engine with its options
        limited fio --name=verify --directory="$MNT" --ioengine=$engine --rw=$rw --bsrange=512-64k --blockalign=512 --size=$size --numjobs=2 \
            --verify=crc32c --verify_fatal=1 --do_verify=1 --minimal >fio.log 2>&1 || fail "fio $engine $rw: $(tail -n 5 fio.log)"
        rm -f "$MNT"/verify*
    done
    errors "fio $engine"
    passed "fio --verify=crc32c, --ioengine=$engine"
done
# What was written and synced is verified after a kill.
limited fio --name=kept --directory="$MNT" --ioengine=psync --rw=randwrite --bs=4k --size=$size --verify=crc32c --do_verify=0 --end_fsync=1 --minimal >fio.log 2>&1
restart -o dev,suid
limited fio --name=kept --directory="$MNT" --ioengine=psync --rw=randwrite --bs=4k --size=$size --verify=crc32c --verify_only --verify_fatal=1 --minimal >fio.log 2>&1 ||
    fail "fio after a kill: $(tail -n 5 fio.log)"
rm -f "$MNT"/kept*
passed 'fio, verified after a kill'

# ---- dbench, bonnie++ ----

loads=$(dpkg -L dbench | grep 'client.txt$' | head -n 1 || true)
limited dbench ${loads:+-c "$loads"} -D "$MNT" -t $((seconds * 3)) 8 >dbench.log 2>&1 || fail "dbench: $(tail -n 5 dbench.log)"
! grep -qiE 'fail|error|No such' dbench.log || fail "dbench: $(grep -iE 'fail|error|No such' dbench.log | head -n 3)"
passed "dbench 8: $(grep Throughput dbench.log | tail -n 1)"
rm -rf "$MNT/clients"
mkdir "$MNT/bonnie"
limited bonnie++ -q -u 0:0 -d "$MNT/bonnie" -s $((DEEP ? 2048 : 256)) -r $((DEEP ? 1024 : 128)) -n $((DEEP ? 64 : 8)) -x 1 -f >bonnie.log 2>&1 || fail "bonnie++: $(tail -n 5 bonnie.log)"
! grep -qiE 'error|fail|can.t' bonnie.log || fail "bonnie++: $(grep -iE 'error|fail' bonnie.log | head -n 3)"
passed 'bonnie++'
errors 'dbench, bonnie++'

# ---- stress-ng ----

# Those of the class that work on files in a directory of ours. Left out are stressors that want another file system or device: what
# stress-ng itself skips is counted.
# In a mount namespace without the other mounts of the machine: some stressors (io: syncfs) work on all that they find.
cat >alone.sh <<'END'
awk -v dir="$TEST_DIR/" '$5 !~ "^/(|proc|sys|dev)(/.*)?$" && index($5, dir) != 1 { print $5 }' /proc/self/mountinfo | tac | while read -r m; do
    umount -l "$m"
done
exec "$@"
END
alone() { limited unshare -m --propagation private bash alone.sh "$@"; }
stressors=$(stress-ng --class filesystem? 2>/dev/null | sed 's/.*stressors: //')
ran=0 left_out=
for s in $stressors; do
    code=0
    alone stress-ng --$s 2 --timeout ${seconds}s --verify --temp-path "$MNT" --metrics-brief >stress.log 2>&1 || code=$?
    case $code in
    0) ran=$((ran + 1)) ;;
    3 | 4) left_out="$left_out $s" ;; # no resources; not implemented here
    1) # not supported by this kernel or container
        grep -q 'No stress workers invoked' stress.log || fail "stress-ng --$s: $(tail -n 5 stress.log)"
        left_out="$left_out $s"
        continue
        ;;
    *) fail "stress-ng --$s exits with $code: $(grep -E 'fail|error' stress.log | head -n 5)" ;;
    esac
    ! grep -qE 'stress-ng: (fail|error)' stress.log || fail "stress-ng --$s: $(grep -E 'fail|error' stress.log | head -n 5)"
done
[ $ran -ge 20 ] || fail "only $ran stressors ran"
errors stress-ng
passed "stress-ng --verify: $ran stressors of the class filesystem${left_out:+; skipped by itself:$left_out}"
stop
check_store
