#!/usr/bin/env python3
"""What it costs to read a volume through the host it is used on.

A file in the page cache, read by fio over a unix socket: from qemu-nbd and from Quarry's server as
they are; through a second server that asks the first for all of it; and through one that has the
file as the image of the volume, and asks for what changed.

    bench/nbd/derived.py [--bin build/release/bin] [--rounds 3] [--seconds 4]
"""

import argparse
import contextlib
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

MIB = 1 << 20
FILE_BYTES = 1024 * MIB
JOBS = [("4 KiB, 32 at once", ["--rw=randread", "--bs=4k", "--iodepth=32"], "iops"),
        ("4 KiB, 1 at once", ["--rw=randread", "--bs=4k", "--iodepth=1"], "iops"),
        ("1 MiB, 8 at once", ["--rw=read", "--bs=1m", "--iodepth=8"], "MB/s")]


@contextlib.contextmanager
def server(command, socket, ready=True):
    with subprocess.Popen([*map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as process:
        if ready:
            assert process.stdout.readline().startswith("ready"), command
        while not socket.exists():
            assert process.poll() is None, command
            time.sleep(0.01)
        yield f"nbd+unix:///disk?socket={socket}"
        process.stdin.close()
        process.terminate()


def measure(uri, job, unit, seconds, folder):
    done = subprocess.run(
        ["fio", "--name=job", "--ioengine=nbd", f"--uri={uri}", f"--size={FILE_BYTES}",
         "--offset=2m", "--time_based", f"--runtime={seconds}", "--ramp_time=1", "--norandommap",
         "--output-format=json", *job], capture_output=True, text=True, check=True, cwd=folder)
    read = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]["read"]
    return read["iops"] if unit == "iops" else read["bw_bytes"] / 1e6


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    options.add_argument("--bin", type=pathlib.Path, default=pathlib.Path("build/release/bin"))
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=int, default=4)
    options = options.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = pathlib.Path(name)
        disk = folder / "disk.raw"
        with open(disk, "wb") as file, open("/dev/urandom", "rb") as random:
            for _ in range(FILE_BYTES // MIB):
                file.write(random.read(MIB))
        sockets = {kind: folder / f"{kind}.sock"
                   for kind in ("qemu", "quarry", "remote", "derived")}
        qemu = stack.enter_context(server(
            ["qemu-nbd", "-t", "-r", "-e", "16", "-x", "disk", "-f", "raw", "-k", sockets["qemu"],
             disk], sockets["qemu"], ready=False))
        quarry = stack.enter_context(server(
            [options.bin / "nbd_test_server", "--unix", sockets["quarry"], "--file", disk],
            sockets["quarry"]))
        tool = [options.bin / "derived_test_server", "--uri", quarry]
        remote = stack.enter_context(server(
            [*tool, "--unix", sockets["remote"]], sockets["remote"]))
        derived = stack.enter_context(server(
            [*tool, "--unix", sockets["derived"], "--image", "before", "--origin", disk],
            sockets["derived"]))
        rows = [("qemu-nbd", qemu), ("Quarry's server", quarry),
                ("a second one, all from the first", remote),
                ("a second one, which has the image", derived)]
        figures = {(row, job[0]): [] for row, _ in rows for job in JOBS}
        for _ in range(options.rounds):
            for job, words, unit in JOBS:
                for row, uri in rows:
                    figures[row, job].append(measure(uri, words, unit, options.seconds, folder))
        print("| | " + " | ".join(f"{job}, {unit}" for job, _, unit in JOBS) + " |")
        print("|---|" + "---:|" * len(JOBS))
        for row, _ in rows:
            cells = [f"{statistics.median(figures[row, job[0]]):,.0f}" for job in JOBS]
            print(f"| {row} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
