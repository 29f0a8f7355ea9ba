#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The trees of tests/mount/test_rescue.sh: `rescued.py list DIR` prints everything of a tree as JSON; `rescued.py compare EXPECTED OUT
REPORT` says whether what was rescued into OUT is what EXPECTED lists, less what REPORT names as lost, byte by byte: what is missing or
other must be named, what was written must be right. Prints the number of paths that differ; exit code 1 and a sentence when something
differs that is not in the report."""
import hashlib
import json
import os
import re
import stat
import sys

BLOCK = 4096


def describe(path):
    st = os.lstat(path)
    item = {
        "mode": st.st_mode,
        "owner": [st.st_uid, st.st_gid],
        "mtime": st.st_mtime_ns,
        "xattrs": {n: os.getxattr(path, n, follow_symlinks=False).hex() for n in sorted(os.listxattr(path, follow_symlinks=False))},
    }
    if stat.S_ISREG(st.st_mode):
        item["size"] = st.st_size
        item["nlink"] = st.st_nlink
        item["blocks"] = {}
        with open(path, "rb") as f:
            at = 0
            while at < st.st_size:
                try:
                    at = os.lseek(f.fileno(), at, os.SEEK_DATA)
                except OSError:
                    break
                at -= at % BLOCK
                bytes_ = os.pread(f.fileno(), BLOCK, at)
                if bytes_.strip(b"\0"):
                    item["blocks"][str(at // BLOCK)] = hashlib.md5(bytes_).hexdigest()
                at += BLOCK
    elif stat.S_ISLNK(st.st_mode):
        item["target"] = os.readlink(path)
    elif not stat.S_ISDIR(st.st_mode):
        item["rdev"] = st.st_rdev
    return item


def listing(top):
    tree = {"/": describe(top)}
    for folder, dirs, files in os.walk(top):
        for name in dirs + files:
            path = os.path.join(folder, name)
            tree[path[len(top):]] = describe(path)
    return tree


def unescape(text):
    return re.sub(r"\\x(..)", lambda m: chr(int(m[1], 16)), text)


def losses(report):
    """path -> list of what the report says of it."""
    lost = {}
    with open(report, encoding="utf-8", errors="surrogateescape") as f:
        for line in f:
            m = re.match(r"lost: (.*?): (.*)", line.rstrip("\n"))
            if m:
                lost.setdefault(unescape(m[1]), []).append(m[2])
    return lost


def named_ranges(lost, path):
    ranges = []
    for text in lost.get(path, []):
        m = re.match(r"bytes (\d+)-(\d+)", text)
        if m:
            ranges.append((int(m[1]), int(m[2])))
        elif "the same as of" in text:
            other = re.search(r"the same as of (.*), which is another name", text)[1]
            ranges += named_ranges(lost, other)
        elif text.startswith("all of its"):
            ranges.append((0, 1 << 62))
    return ranges


def entries_lost(lost, path):
    """Some directory above it has lost entries."""
    while path != "/":
        path = os.path.dirname(path)
        if any("entries" in t for t in lost.get(path, [])):
            return True
    return False


def differs(expected, found, ranges):
    """What of a file is other than it should be and not in one of the ranges."""
    for key in expected.keys() - {"blocks", "nlink"}:
        if expected[key] != found.get(key):
            return f"{key}: {expected[key]} expected, {found.get(key)} found"
    for block in expected.get("blocks", {}).keys() | found.get("blocks", {}).keys():
        if expected["blocks"].get(block) == found["blocks"].get(block):
            continue
        at = int(block) * BLOCK
        if found["blocks"].get(block) is not None or not any(a <= at <= b for a, b in ranges):
            return f"block {block}: other bytes"
    return None


def compare(expected, out, report):
    lost, wrong, differ = losses(report), [], 0
    found = listing(out)
    for path, item in expected.items():
        if path not in found:
            differ += 1
            if path not in lost and not entries_lost(lost, path):
                wrong.append(f"{path} is missing and not in the report")
            continue
        ranges = named_ranges(lost, path)
        bad = differs(item, found[path], ranges)
        if item.get("blocks") != found[path].get("blocks"):
            differ += 1
        said = " ".join(lost.get(path, []))
        if bad and not ("attributes are lost" in said or ("extended" in said and bad.startswith("xattrs"))):
            wrong.append(f"{path}: {bad}")
    for path in found.keys() - expected.keys():
        if not path.startswith("/lost+found"):
            wrong.append(f"{path} is there and should not be")
    # Whatever lies in lost+found is a file of the store, whole.
    known = {json.dumps(i.get("blocks")) for i in expected.values()}
    for path in found.keys() - expected.keys():
        if path.startswith("/lost+found/") and "blocks" in found[path] and path not in lost and json.dumps(found[path]["blocks"]) not in known:
            wrong.append(f"{path}: bytes that no file of the store had")
    print(differ)
    for line in wrong[:5]:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def main():
    if sys.argv[1] == "list":
        json.dump(listing(sys.argv[2].rstrip("/")), sys.stdout)
        return 0
    with open(sys.argv[2], encoding="utf-8") as f:
        expected = json.load(f)
    return compare(expected, sys.argv[3].rstrip("/"), sys.argv[4])


if __name__ == "__main__":
    sys.exit(main())
