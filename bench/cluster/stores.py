#!/usr/bin/python3
"""Blobs on RADOS beside `rados bench`, in turns on one cluster of their own.

    bench/cluster/stores.py --bench build/release/bin/quarry_bench_ceph [--seconds 5] [--rounds 5]
"""

import argparse
import pathlib
import re
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests" / "cluster"))

import ceph  # noqa: E402

THREADS = 16


def rados_bench(cluster, seconds, *words):
    said = ceph.run("rados", "-p", "chunks", "-N", "peer", "bench", seconds, *words,
                    "-t", THREADS, "--no-cleanup", seconds=seconds + 120,
                    env=cluster.environment())
    return float(re.search(r"^Bandwidth \(MB/sec\):\s+([\d.]+)", said, re.MULTILINE).group(1))


def quarry(cluster, bench, what, seconds):
    done = subprocess.run([bench, "blobs", "ours", what, str(seconds), str(THREADS)], check=True,
                          capture_output=True, text=True, env=cluster.environment())
    return float(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--bench", required=True)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    ceph.add_up_options(parser)
    arguments = parser.parse_args()
    rates = {}
    with ceph.temporary_cluster(**ceph.up_options(arguments)) as cluster:
        for _ in range(arguments.rounds):
            for who, what, rate in (
                    ("rados bench", "put", lambda: rados_bench(
                        cluster, arguments.seconds, "write", "-b", 4 << 20)),
                    ("quarry", "put", lambda: quarry(
                        cluster, arguments.bench, "put", arguments.seconds)),
                    ("rados bench", "get", lambda: rados_bench(
                        cluster, arguments.seconds, "seq")),
                    ("quarry", "get", lambda: quarry(
                        cluster, arguments.bench, "get", arguments.seconds))):
                rates.setdefault((what, who), []).append(rate())
            for pool_space in ("peer", "ours"):
                ceph.run("sh", "-c", f"rados -p chunks -N {pool_space} ls | "
                         f"xargs -r -n 100 rados -p chunks -N {pool_space} rm",
                         env=cluster.environment())
    for what in ("put", "get"):
        ours, peers = rates[what, "quarry"], rates[what, "rados bench"]
        ratios = [mine / other for mine, other in zip(ours, peers)]
        print(f"{what}: quarry {statistics.median(ours):.0f} MiB/s, rados bench "
              f"{statistics.median(peers):.0f} MiB/s, ratio {statistics.median(ratios):.2f} "
              f"({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
