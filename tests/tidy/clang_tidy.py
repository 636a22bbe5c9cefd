#!/usr/bin/env python3
"""clang-tidy over every room's .cc files, with the checks of .clang-tidy; all of them are errors.

    clang_tidy.py BUILD [-j N] [FILE...]

BUILD has a compile_commands.json. A file that was clean is not looked at again until it, a header of ours that it
includes, its command or .clang-tidy changes: what it saw is kept in BUILD/clang-tidy. Tests are left out: they would
double the time, and run under the sanitizers anyway.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROOMS = ("base/", "chunkstore/", "imaged/", "blockd/", "controlplane/")
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


def closure(path, seen):
    """The file and all headers of ours that it reaches."""
    if path in seen or not path.is_file():
        return seen
    seen.add(path)
    for header in INCLUDE.findall(path.read_text()):
        closure(ROOT / header, seen)
    return seen


def stamp_of(build, path, command):
    digest = hashlib.sha256((ROOT / ".clang-tidy").read_bytes() + command.encode())
    for used in sorted(closure(path, set())):
        digest.update(used.read_bytes())
    return build / "clang-tidy" / digest.hexdigest()


def check(build, path, stamp):
    done = subprocess.run(["clang-tidy-19", "--quiet", "-p", str(build), str(path)], check=False,
                          capture_output=True, text=True)
    if done.returncode == 0:
        stamp.touch()
        return None
    return done.stdout + ("" if done.stdout else done.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("-j", type=int, default=os.cpu_count(), dest="jobs")
    parser.add_argument("files", nargs="*", help="from the root; all rooms if none is named")
    options = parser.parse_args()
    build = options.build.resolve()
    (build / "clang-tidy").mkdir(exist_ok=True)

    waiting = []
    for entry in json.loads((build / "compile_commands.json").read_text()):
        path = pathlib.Path(entry["file"]).resolve()
        name = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else ""
        if not name.startswith(ROOMS) or options.files and name not in options.files:
            continue
        stamp = stamp_of(build, path, entry["command"])
        if not stamp.exists():
            waiting.append((path, stamp))
    print(f"clang-tidy: {len(waiting)} files to look at", flush=True)
    broken = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for said in pool.map(lambda item: check(build, *item), waiting):
            if said is not None:
                broken += 1
                print(said, flush=True)
    print(f"clang-tidy: {broken} files with findings")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
