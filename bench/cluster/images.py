#!/usr/bin/python3
"""Images through Quarry on Ceph beside what the cluster can do: `rados bench` with 4 MiB objects.

    bench/cluster/images.py [--rounds 3] [--mib 512] [--threads 16]

One run starts its own cluster and one `quarry serve`; in every round each side has its turn: write,
then read back. The bytes are random, so nothing is compressed or shared, and every upload has new
ones. Quarry's clients are curl processes, as many as `--clients`.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "cluster"), str(ROOT / "tests" / "e2e")]
os.environ["TEST_QUARRY_STORE"] = "ceph"
os.environ.setdefault("TEST_QUARRY_BINARY", str(ROOT / "build/release/bin/quarry"))
import ceph  # noqa: E402
from service import Service, call  # noqa: E402

MIB = 1 << 20


def rados_bench(cluster, arguments):
    """MB/s written and read."""
    seconds = 5
    common = ("rados", "-p", "chunks", "-N", "bench", "bench", seconds)
    tail = ("-t", arguments.threads, "--no-cleanup")
    said = ceph.run(*common, "write", "-b", 4 * MIB, *tail, env=cluster.environment(), seconds=120)
    written = float(re.search(r"Bandwidth \(MB/sec\):\s+([\d.]+)", said)[1])
    said = ceph.run(*common, "seq", "-t", arguments.threads, env=cluster.environment(), seconds=120)
    read = float(re.search(r"Bandwidth \(MB/sec\):\s+([\d.]+)", said)[1])
    ceph.run("rados", "-p", "chunks", "-N", "bench", "cleanup", env=cluster.environment(),
             seconds=120)
    return written * MIB / 1e6, read * MIB / 1e6  # its "MB" are MiB


def all_at_once(commands):
    began = time.monotonic()
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
    for process in processes:
        if process.wait() != 0:
            raise SystemExit(f"{process.args[0]} failed")
    return time.monotonic() - began


def through_quarry(service, headers, arguments, folder):
    images, files = [], []
    each = arguments.mib * MIB // arguments.clients
    for number in range(arguments.clients):
        made = call("POST", service.base + "/image/v2/images", {
            "name": "i", "disk_format": "raw", "container_format": "bare"}, headers)
        images.append(made.json()["id"])
        files.append(folder / f"{number}")
        files[-1].write_bytes(os.urandom(each))
    token = [word for key, value in headers.items() for word in ("-H", f"{key}: {value}")]
    url = service.base + "/image/v2/images/{}/file"
    wrote = all_at_once([["curl", "-sf", *token, "-H", "Content-Type: application/octet-stream",
                          "-T", str(file), url.format(image)]
                         for image, file in zip(images, files)])
    read = all_at_once([["curl", "-sf", *token, "-o", "/dev/null", url.format(image)]
                        for image in images])
    for image in images:
        call("DELETE", f"{service.base}/image/v2/images/{image}", None, headers)
    return arguments.mib * MIB / wrote / 1e6, arguments.mib * MIB / read / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--threads", type=int, default=16, help="of rados bench")
    parser.add_argument("--clients", type=int, default=4, help="of Quarry, at once")
    parser.add_argument("--memory", action="store_true", help="OSDs in /dev/shm")
    ceph.add_up_options(parser)
    arguments = parser.parse_args()
    if arguments.memory:
        tempfile.tempdir = "/dev/shm"
    rows = {"rados": [], "quarry": []}
    with ceph.temporary_cluster(**ceph.up_options(arguments)) as cluster:
        os.environ["CEPH_CONF"] = str(cluster.conf)
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, Service() as service:
            headers = {"X-Auth-Token": service.token()}
            for _ in range(arguments.rounds):
                rows["rados"].append(rados_bench(cluster, arguments))
                rows["quarry"].append(through_quarry(service, headers, arguments,
                                                     pathlib.Path(folder)))
    medians = {side: [statistics.median(column) for column in zip(*of_side)]
               for side, of_side in rows.items()}
    print(json.dumps(rows))
    print("| MB/s, median | write | read |\n|---|---:|---:|")
    for side, (written, read) in medians.items():
        print(f"| {side} | {written:.0f} | {read:.0f} |")
    ratios = [ours / theirs for ours, theirs in zip(medians["quarry"], medians["rados"])]
    print(f"| Quarry / rados bench | {ratios[0]:.2f} | {ratios[1]:.2f} |")


if __name__ == "__main__":
    main()
