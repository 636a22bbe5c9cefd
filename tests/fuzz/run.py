#!/usr/bin/env python3
"""Runs the fuzzers of a build with QUARRY_FUZZ, several at a time; fails if one finds something.

First the canary, which must crash: else the rig is blind and a clean run means nothing. New inputs
that reach new code are kept in BUILD/fuzz/corpus/NAME, crashing ones in BUILD/fuzz/crashes; with
--merge the former join the committed corpus, as few as cover the same.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys

CANARY_SECONDS = 60  # it takes one or two
MEMORY_LIMIT_MB = 2048
INPUT_TIMEOUT_SECONDS = 20


def fuzz(program, folders, seconds, crashes, extra=()):
    """Returns the exit status and all that the fuzzer said."""
    command = [str(program), f"-max_total_time={seconds}", f"-rss_limit_mb={MEMORY_LIMIT_MB}",
               f"-timeout={INPUT_TIMEOUT_SECONDS}", f"-artifact_prefix={crashes}/{program.name}-",
               "-print_final_stats=1", *extra, *map(str, folders)]
    # Reports are part of the output here, also where `./dev sanitize` collects them in files.
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("ASAN_OPTIONS", "UBSAN_OPTIONS")}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                          env=environment)
    return done.returncode, done.stdout.decode(errors="replace")


def canary_dies(build):
    folder = build / "fuzz" / "canary"
    folder.mkdir(parents=True, exist_ok=True)
    status, said = fuzz(build / "bin" / "fuzz_canary", [], CANARY_SECONDS, folder)
    if status != 0 and "heap-buffer-overflow" in said:
        print("canary: found, as it must be")
        return True
    print(said)
    print(f"canary: NOT found in {CANARY_SECONDS} s: the rig does not work", file=sys.stderr)
    return False


def run_target(build, name, seconds):
    """Returns whether it is clean, and a line about it."""
    corpus, dictionary = (build / "fuzz" / "targets" / name).read_text().split("\n")[:2]
    grown = build / "fuzz" / "corpus" / name
    crashes = build / "fuzz" / "crashes"
    grown.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(parents=True, exist_ok=True)
    extra = [f"-dict={dictionary}"] if dictionary else []
    status, said = fuzz(build / "bin" / f"fuzz_{name}", [grown, corpus], seconds, crashes, extra)
    runs = re.search(r"number_of_executed_units: (\d+)", said)
    covered = re.findall(r"cov: (\d+)", said)
    line = (f"{name}: {runs.group(1) if runs else '?'} runs, "
            f"{covered[-1] if covered else '?'} edges covered, "
            f"{len(list(grown.iterdir()))} inputs found")
    if status == 0:
        return True, line
    return False, f"{said}\n{line}\n{name}: FAILED; the input is in {crashes}"


def merge(build, name):
    corpus = pathlib.Path((build / "fuzz" / "targets" / name).read_text().split("\n")[0])
    grown = build / "fuzz" / "corpus" / name
    if grown.is_dir():
        subprocess.run([str(build / "bin" / f"fuzz_{name}"), "-merge=1", str(corpus), str(grown)],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print(f"{name}: {len(list(corpus.iterdir()))} inputs committed")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--only-canary", action="store_true")
    parser.add_argument("--merge", action="store_true", help="add what was found to the corpora")
    parser.add_argument("names", nargs="*", help="targets; all if none is named")
    options = parser.parse_args()
    build = options.build.resolve()

    if not canary_dies(build):
        return 1
    if options.only_canary:
        return 0
    names = options.names or sorted(path.name for path in (build / "fuzz" / "targets").iterdir())
    clean = True
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(run_target, build, name, options.seconds) for name in names]
        for job in concurrent.futures.as_completed(jobs):
            fine, line = job.result()
            clean = clean and fine
            print(line, flush=True)
    if options.merge:
        for name in names:
            merge(build, name)
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
