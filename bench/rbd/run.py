#!/usr/bin/python3
"""Volumes on RBD, side by side: fio's rbd engine on an image (the limit), qemu-nbd over such an
image, and Quarry's NBD server over a volume. Then what snapshots cost writers, and sealing against
`rbd export-diff`. Starts a cluster of its own. Prints what bench/results/rbd.md holds.

    bench/rbd/run.py [--build build/release] [--seconds 5] [--rounds 5] [--paxos-default]
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "nbd"), str(HERE.parent / "peers"),
                str(HERE.parents[1] / "tests" / "cluster")]

import ceph  # noqa: E402
from load import CELLS, Fio  # noqa: E402
from servers import Peer, Pool  # noqa: E402

GIB = 2
POOL = "volumes"
IMAGE = "plain"


def fill(directory, target):
    """Once over, so that every object is there."""
    Fio(directory, target, "write", "4m", 8, None, size=f"{GIB}g").figures()


def rate(directory, contender, cell, seconds):
    _, mode, block, depth = cell
    return Fio(directory, contender[1], mode, block, depth, seconds, size=f"{GIB}g").figures()


def print_rates(directory, contenders, seconds, rounds):
    print(f"| {GIB} GiB | " + " | ".join(name for name, _ in contenders) +
          " | Quarry / engine | Quarry / qemu-nbd |")
    print("|---" * (len(contenders) + 3) + "|")
    for cell in CELLS:
        rates = {name: [] for name, _ in contenders}
        for _ in range(rounds):  # in turn: the machine's mood is shared
            for contender in contenders:
                rates[contender[0]].append(rate(directory, contender, cell, seconds)["iops"])
        medians = {name: statistics.median(all_rates) for name, all_rates in rates.items()}
        engine, qemu, quarry = medians.values()
        print(f"| {cell[0]} | " + " | ".join(f"{value:,.0f}" for value in medians.values()) +
              f" | {quarry / engine:.2f} | {quarry / qemu:.2f} |", flush=True)


def percentile(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def print_snapshots(directory, pool, uri, count, pause_seconds):
    """While fio writes at depth 16; its longest write is the stall."""
    pool.tell("create", "snapped", GIB)
    load = Fio(directory, uri("snapped"), "randwrite", "4k", 16, 3600, size=f"{GIB}g")
    time.sleep(2)
    seconds = []
    for i in range(count):
        seconds.append(pool.tell("snapshot", "snapped", f"s{i}")[0])
        time.sleep(pause_seconds)
    load.check_running()
    load.interrupt()
    figures = load.figures()
    print(f"| {count} snapshots, {pause_seconds} s apart, beside 16 writes | "
          f"{percentile(seconds, .5) * 1000:.0f} | {percentile(seconds, .99) * 1000:.0f} | "
          f"{figures['max_us'] / 1000:.0f} |", flush=True)
    for i in range(count):
        pool.tell("unsnapshot", f"s{i}")


def print_sealing(pool, cluster):
    print("\n| dirty, scattered by 4 KiB | objects touched | sealed in s | rbd export-diff in s |")
    print("|---|---|---|---|")
    pool.tell("create", "sealed", GIB)
    pool.tell("write", "sealed", GIB * 1024)
    pool.tell("snapshot", "sealed", "first")
    pool.tell("seal", "first")
    name = next(line for line in subprocess.run(
        ["rbd", "ls", POOL], check=True, capture_output=True, text=True,
        env=cluster.environment()).stdout.split() if line.startswith("sealed."))
    rbd = ["rbd", "-p", POOL]
    subprocess.run([*rbd, "snap", "create", f"{name}@before"], check=True,
                   env=cluster.environment(), capture_output=True)
    for mib in (0.0625, 0.5, 2):
        blocks = int(mib * 256)
        objects = min(GIB * 256, blocks)
        pool.tell("scatter-blocks", "sealed", blocks)
        begun = time.monotonic()
        subprocess.run([*rbd, "export-diff", "--from-snap", "before", name, "/dev/null"],
                       check=True, capture_output=True, env=cluster.environment())
        exported = time.monotonic() - begun
        pool.tell("snapshot", "sealed", f"after{mib}")
        sealed = pool.tell("seal", f"after{mib}")[0]
        print(f"| {mib} MiB | {objects} | {sealed:.2f} | {exported:.2f} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--snapshots", type=int, default=50)
    parser.add_argument("--only", choices=("rates", "snapshots", "sealing"))
    parser.add_argument("--paxos-default", action="store_true",
                        help="as monitors are without settings")
    arguments = parser.parse_args()
    binary = pathlib.Path(arguments.build).resolve() / "bin" / "quarry_bench_rbd_volumes"
    wanted = lambda part: arguments.only in (None, part)  # noqa: E731
    with ceph.temporary_cluster(osds=1, size=1, auth=False,
                                default_paxos=arguments.paxos_default) as cluster, \
            tempfile.TemporaryDirectory(prefix="quarry-bench-") as folder:
        directory = pathlib.Path(folder)
        os.environ.update(cluster.environment())
        subprocess.run(["rbd", "create", "--size", f"{GIB}G", "--image-feature",
                        "layering,exclusive-lock,object-map,fast-diff,deep-flatten",
                        f"{POOL}/{IMAGE}"], check=True)
        subprocess.run(["rbd", "cp", f"{POOL}/{IMAGE}", f"{POOL}/qemu"], check=True,
                       capture_output=True)
        pool = Pool(binary, directory / "quarry")
        qemu = Peer("qemu-nbd", directory, lambda socket: [
            "qemu-nbd", "-t", "-e", "8", "-f", "raw", "--cache=none", "-k", socket,
            f"rbd:{POOL}/qemu:conf={cluster.conf}"])
        try:
            pool.tell("create", "v", GIB)
            contenders = [("fio's rbd engine", f"rbd:{POOL}/{IMAGE}"),
                          ("qemu-nbd", qemu.target()), ("Quarry", pool.uri("v"))]
            if wanted("rates"):
                for _, target in contenders:
                    fill(directory, target)
                print_rates(directory, contenders, arguments.seconds, arguments.rounds)
            if wanted("snapshots"):
                print("\n| | p50 ms | p99 ms | longest write ms |\n|---|---|---|---|")
                print_snapshots(directory, pool, pool.uri, arguments.snapshots, 0)
            if wanted("sealing"):
                print_sealing(pool, cluster)
        finally:
            qemu.stop()
            pool.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
