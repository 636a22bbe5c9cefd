#!/usr/bin/env python3
"""The NBD server beside nbdkit's file plugin and qemu-nbd: one file in memory, one socket each.

All three serve the same file on tmpfs, so it is the servers that are compared and not disks. Rounds
are interleaved and the best of each cell counts: on a machine that others use, too, the rest is
their noise. The server's CPU time for one operation depends on others the least. With --qos, how
closely limits hold in real time instead.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time

CELLS = [("4k read, depth 1", "randread", "4k", 1), ("4k write, depth 1", "randwrite", "4k", 1),
         ("4k read, depth 32", "randread", "4k", 32), ("4k write, depth 32", "randwrite", "4k", 32),
         ("1m read, depth 8", "read", "1m", 8), ("1m write, depth 8", "write", "1m", 8)]


class Ours:
    name = "quarry"

    def __init__(self, options, socket, disk, *more):
        self.uri = f"nbd+unix:///disk?socket={socket}"
        self.process = subprocess.Popen(
            [options.server, "--unix", socket, "--file", disk, *more], stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL)

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


class Other:
    def __init__(self, _, socket, disk):
        self.uri = f"nbd+unix:///{self.export}?socket={socket}"
        self.process = subprocess.Popen(self.command(socket, disk))

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Nbdkit(Other):
    name, export = "nbdkit", ""

    def command(self, socket, disk):
        return ["nbdkit", "-f", "-U", socket, "file", disk]


class QemuNbd(Other):
    name, export = "qemu-nbd", "disk"

    def command(self, socket, disk):
        return ["qemu-nbd", "-t", "-f", "raw", "-x", "disk", "-k", socket, "-e", "8",
                "--cache=writeback", disk]


def start(kind, options, folder, disk, *more):
    socket = os.path.join(folder, kind.name + ".sock")
    if os.path.exists(socket):
        os.unlink(socket)
    server = kind(options, socket, disk, *more)
    while not os.path.exists(socket):
        time.sleep(0.01)
    return server


def fio(folder, uri, size, seconds, mode, block, depth):
    """Operations a second, and the median latency in microseconds."""
    done = subprocess.run(
        ["fio", "--name=job", "--ioengine=nbd", f"--uri={uri}", f"--rw={mode}", f"--bs={block}",
         f"--iodepth={depth}", f"--size={size}", "--time_based", f"--runtime={seconds}",
         "--randrepeat=0", "--output-format=json"], capture_output=True, text=True, check=True,
        cwd=folder)
    job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
    side = job["read" if job["read"]["iops"] else "write"]
    return side["iops"], side["clat_ns"]["percentile"]["50.000000"] / 1000


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def compare(options, folder, disk):
    best = {}
    for _ in range(options.rounds):
        for kind in (Ours, Nbdkit, QemuNbd):
            server = start(kind, options, folder, disk)
            for cell in CELLS:
                before = cpu_seconds(server.process.pid)
                iops, median = fio(folder, server.uri, options.size, options.seconds, *cell[1:])
                used = cpu_seconds(server.process.pid) - before
                cpu = used * 1e6 / (iops * options.seconds)
                seen = best.get((cell, kind.name), (0, float("inf"), float("inf")))
                best[cell, kind.name] = (max(seen[0], iops), min(seen[1], median),
                                         min(seen[2], cpu))
            server.stop()
    print("| cell | quarry | nbdkit | qemu-nbd | ratio to the better |\n|---|---|---|---|---|")
    for cell in CELLS:
        ours, nbdkit, qemu = (best[cell, kind.name] for kind in (Ours, Nbdkit, QemuNbd))
        row = " | ".join(f"{iops:,.0f}/s, p50 {median:.1f} us, CPU {cpu:.1f} us"
                         for iops, median, cpu in (ours, nbdkit, qemu))
        print(f"| {cell[0]} | {row} | {ours[0] / max(nbdkit[0], qemu[0]):.2f} |")


def limits(options, folder, disk):
    print("| limit | load | delivered | of it |\n|---|---|---|---|")
    for flag, promised, unit in (("--iops", 5000, 1), ("--bytes-sec", 100_000_000, None)):
        for block, size in (("4k", 4096), ("64k", 65536), ("1m", 1 << 20)):
            for depth in (1, 32, 128):
                if unit == 1 and size == 1 << 20:
                    continue  # more than the machine has to give
                server = start(Ours, options, folder, disk, flag, str(promised))
                iops, _ = fio(folder, server.uri, options.size, options.seconds, "randread", block,
                              depth)
                server.stop()
                delivered = iops * (unit or size)
                print(f"| {promised:,} {flag[2:]} | {block}, depth {depth} | {delivered:,.0f} | "
                      f"{delivered / promised:.4f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", default="build/release/bin/nbd_test_server")
    parser.add_argument("--size", default="1g")
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--qos", action="store_true")
    options = parser.parse_args()
    options.server = os.path.abspath(options.server)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        disk = os.path.join(folder, "disk.raw")
        subprocess.run(["dd", "if=/dev/urandom", f"of={disk}", "bs=1M", "count=1024",
                        "status=none"], check=True)
        (limits if options.qos else compare)(options, folder, disk)


if __name__ == "__main__":
    main()
