#!/usr/bin/env python3
"""Runs clang-tidy over the project's sources, as .clang-tidy says; what did not change is skipped.

    tests/tidy/clang_tidy.py BUILD_DIR [-j N] [PATH...]

A file is clean for good as long as it, everything of ours that it includes, its compile command and
.clang-tidy are the same: a stamp named by the hash of all that stands in BUILD_DIR/tidy. The build
must have been made (its dependency log tells what a file includes).
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CLANG_TIDY = "clang-tidy-19"


def dependencies(build):
    """object file -> the files of ours that it was made of, from ninja's log."""
    done = subprocess.run(["ninja", "-C", build, "-t", "deps"], capture_output=True, text=True,
                          check=True)
    result, current = {}, None
    for line in done.stdout.splitlines():
        if line and not line.startswith(" "):
            current = line.split(":")[0]
            result[current] = []
        elif line.strip():
            path = os.path.normpath(os.path.join(build, line.strip()))
            if path.startswith(ROOT + os.sep):
                result[current].append(path)
    return result


class Hashes:
    def __init__(self):
        self.known = {}

    def of(self, path):
        if path not in self.known:
            with open(path, "rb") as content:
                self.known[path] = hashlib.sha256(content.read()).hexdigest()
        return self.known[path]


def stamp_name(entry, deps, hashes):
    digest = hashlib.sha256()
    digest.update(entry["command"].encode())
    digest.update(hashes.of(os.path.join(ROOT, ".clang-tidy")).encode())
    for path in sorted({entry["file"], *deps}):
        if os.path.exists(path):
            digest.update(f"{path} {hashes.of(path)}\n".encode())
    return digest.hexdigest()


def check(entry, build):
    done = subprocess.run([CLANG_TIDY, "--quiet", "-p", build, entry["file"]], capture_output=True,
                          text=True)
    return entry["file"], done.returncode, done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build")
    parser.add_argument("-j", type=int, default=os.cpu_count())
    parser.add_argument("paths", nargs="*", help="only files whose path contains one of these")
    args = parser.parse_args()
    build = os.path.abspath(args.build)
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as commands:
        entries = {e["file"]: e for e in json.load(commands)
                   if e["file"].startswith(ROOT + os.sep) and not e["file"].startswith(build)}
        entries = entries.values()
    deps, hashes = dependencies(build), Hashes()
    stamps = os.path.join(build, "tidy")
    os.makedirs(stamps, exist_ok=True)

    todo = []
    for entry in entries:
        if args.paths and not any(part in entry["file"] for part in args.paths):
            continue
        used = deps.get(entry.get("output"), [])
        stamp = os.path.join(stamps, stamp_name(entry, used, hashes))
        if not os.path.exists(stamp):
            todo.append((entry, stamp))
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(args.j) as pool:
        futures = {pool.submit(check, entry, build): stamp for entry, stamp in todo}
        for number, future in enumerate(concurrent.futures.as_completed(futures), 1):
            path, code, output = future.result()
            if sys.stderr.isatty():
                name = os.path.relpath(path, ROOT)
                print(f"\r\033[Kclang-tidy {number}/{len(todo)} {name}", end="", file=sys.stderr)
            if code == 0:
                open(futures[future], "w", encoding="utf-8").close()
                continue
            failed += 1
            print(f"\n{os.path.relpath(path, ROOT)}:\n{output}")
    print(f"clang-tidy: {len(entries)} files, {len(todo)} looked at, {failed} with findings")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
