#!/usr/bin/python3
"""Volumes over NBD beside the servers that one would use instead, in one run on one machine.

    bench/nbd/run.py [--only NAME]... [--rounds 3] [--quick]

NAME is one of: servers, snapshots, images, increments, limits. All serve over unix sockets with the
page cache between them and the disk, fio's nbd engine reads and writes. Contenders take turns round
by round, so that noise hits all of them; what is shown are medians and their ratios.
"""

import argparse
import os
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "peers")]

import figures as results
import limits
import profiles
import servers
import volumes
from load import CELLS, Fio
from system import Failed, install, prepare_process, run, say, settle, work_directory

ROOT = HERE.parents[1]
NAMES = ["servers", "snapshots", "images", "increments", "limits"]
CACHE_MIB = 2048  # so that a content of 1 GiB can be warm, as the others' files are


def measure_cell(contender, cell, seconds, directory, figures):
    name, mode, block, depth = cell
    before = contender.cpu_seconds()
    load = Fio(directory, contender.target(), mode, block, depth, seconds,
               direct=contender.direct).figures()
    used = contender.cpu_seconds() - before
    figures.add("operations", name, "/s", contender.name, load["iops"])
    if depth == 1:
        figures.add("median latency", name, "us", contender.name, load["p50_us"])
    if used > 0:
        figures.add("server CPU for one operation", name, "us", contender.name,
                    used * 1e6 / (load["iops"] * seconds))


def measure_cells(cells, contenders, options, directory, figures):
    for cell in cells:
        for number in range(options.rounds):
            say(f"servers: {cell[0]}, round {number + 1} of {options.rounds}")
            turn = number % len(contenders)
            for contender in contenders[turn:] + contenders[:turn]:
                measure_cell(contender, cell, options.seconds, directory, figures)


def compare(pool, directory, options, figures):
    """Quarry's volumes, plain and old and fresh, and all the peers; cell by cell."""
    say("servers: preparing files and volumes")
    ages = [servers.Volume(name, pool, volume)
            for name, volume in volumes.prepare_ages(pool).items()]
    others = servers.peers(directory)
    contenders = ages + others
    try:
        settle()
        for contender in contenders:  # read once, and not in pieces too long to be kept
            Fio(directory, contender.target(), "read", "64k", 8, None,
                direct=contender.direct).figures()
        # Reads first: what is written lies in the head, whatever was below.
        measure_cells([cell for cell in CELLS if "read" in cell[1]], contenders, options,
                      directory, figures)
        # Then all is written once, alike: the kernel keeps a file in memory in pieces as large as
        # they were first written, which makes later writes of other sizes dearer or cheaper.
        for contender in contenders:
            load = Fio(directory, contender.target(), "write", "1m", 8, None,
                       direct=contender.direct).figures()
            figures.add("the first write", "1 MiB sequential, depth 8, once over all", "/s",
                        contender.name, load["iops"])
        measure_cells([cell for cell in CELLS if "write" in cell[1]], contenders, options,
                      directory, figures)
        for cell in CELLS:
            profile(pool, cell, directory, figures)
    finally:
        for contender in others:
            contender.stop()


def profile(pool, cell, directory, figures):
    """Which functions take the server's time."""
    name, mode, block, depth = cell
    samples = directory / "samples"
    fio = Fio(directory, pool.uri("plain"), mode, block, depth, 3)
    try:
        time.sleep(0.7)
        with profiles.sampling(pool, samples):
            time.sleep(1.5)
        figures.profiles[name] = profiles.shares(samples)
        fio.figures()
    finally:
        fio.stop()


def targets(figures):
    """What section 5 of the volumes' plan asks for."""
    found = []
    for cell in CELLS:
        rivals = [figures.median("operations", cell[0], name)
                  for name in ("qemu-nbd raw", "nbdkit file")]
        ours = figures.median("operations", cell[0], "quarry")
        best = max((r for r in rivals if r), default=None)
        found.append(results.Target(f"{cell[0]}, over the better of qemu-nbd raw and nbdkit", ">=",
                                    1.0, results.divide(ours, best)))
        for age in ("50 snapshots", "of an image"):
            found.append(results.Target(f"{cell[0]}, {age}, over a plain volume", ">=", 0.85,
                                        figures.ratio("operations", cell[0], age, "quarry")))
        if cell[3] == 1:
            rivals = [figures.median("median latency", cell[0], name)
                      for name in ("qemu-nbd raw", "nbdkit file")]
            found.append(results.Target(
                f"{cell[0]}, median latency over the better of theirs", "<=", 1.0,
                results.divide(figures.median("median latency", cell[0], "quarry"),
                               min((r for r in rivals if r), default=None))))
    for group, what in figures.rows:
        if group.startswith("snapshots under load") and what.endswith("p99") and "taken" in what:
            for load in figures.rows[group, what]["values"]:
                found.append(results.Target(f"snapshot taken under load, {load}, p99", "<=", 20,
                                            figures.median(group, what, load), " ms"))
    if ("a volume of an image", "500 GiB") in figures.rows:
        found.append(results.Target("a volume of an image of 500 GiB", "<=", 50,
                                    figures.median("a volume of an image", "500 GiB", "quarry"),
                                    " ms"))
    return found


def measure(options, work, figures):
    made = []

    def make_pool(directory):
        made.append(servers.Pool(options.server.resolve(), directory, str(CACHE_MIB)))
        return made[-1]

    try:
        if set(options.only) - {"snapshots"}:
            pool = make_pool(work / "pool")
            if "servers" in options.only:
                compare(pool, work, options, figures)
            elif "limits" in options.only:
                volumes.prepare_ages(pool)
            if "images" in options.only:
                say("volumes of images")
                volumes.from_images(pool, options.rounds, figures)
            if "increments" in options.only:
                say("increments")
                volumes.putting_away(pool, options.rounds, figures)
            if "limits" in options.only:
                say("limits")
                limits.measure(pool, work, 3 if options.quick else 10, figures)
            pool.stop()
        if "snapshots" in options.only:
            volumes.snapshots(make_pool, work, options.snapshots, figures)
    finally:
        for pool in made:
            pool.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", action="append", choices=NAMES, metavar="NAME",
                        help=f"measure only this (repeatable): {', '.join(NAMES)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3, help="of each cell")
    parser.add_argument("--snapshots", type=int, default=200, help="under each load")
    parser.add_argument("--quick", action="store_true",
                        help="one short round and few snapshots: whether it works")
    parser.add_argument("--qos", action="store_true", help="the same as --only limits")
    parser.add_argument("--server", type=Path,
                        default=ROOT / "build/release/bin/quarry_bench_volumes")
    parser.add_argument("--work", type=Path, default=ROOT / "build/bench",
                        help="where the private directory is made (needs 40 GiB)")
    parser.add_argument("--results", type=Path,
                        help="where to write the figures (a whole run: bench/results)")
    options = parser.parse_args()
    whole = not options.only and not options.qos and not options.quick
    if options.qos:
        options.only = ["limits"]
    options.only = options.only or NAMES
    if options.quick:
        options.rounds, options.seconds, options.snapshots = 1, 1, volumes.SNAPSHOTS_OF_ONE
    prepare_process()
    figures, about = results.Figures(), results.machine()
    about["rounds"] = options.rounds
    failure = None
    try:
        install(["fio", "nbdkit", "qemu-utils", "openssl", "e2fsprogs", "linux-perf"])
        with work_directory(options.work.resolve()) as work:
            about["file_system"] = run("stat", "-f", "-c", "%T", work).stdout.strip()
            measure(options, work, figures)
    except Failed as error:
        failure = f"error: {error}"
    except KeyboardInterrupt:
        failure = "interrupted"
    figures.note("servers: 1 GiB of random bytes in the page cache (of an image: in the chunk "
                 f"store's cache of {CACHE_MIB} MiB), unix sockets, fio's nbd engine on the same "
                 "machine; 'the file' is fio without a server. All files and volumes were written "
                 "by the MiB, which the kernel caches in large folios, where small writes cost "
                 "more: Quarry's layers are written in pieces of 32 KiB for that reason")
    goals = [goal for goal in targets(figures) if whole or goal.value is not None]
    target = options.results or (ROOT / "bench/results" if whole else None)
    if figures.rows:
        if target and not failure:
            results.write(figures, about, target, "volumes", goals)
        print(results.render(figures, about, goals))
    if failure:
        sys.exit(failure)


if __name__ == "__main__":
    main()
