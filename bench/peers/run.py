#!/usr/bin/python3
"""Quarry beside the programs that a user would pick instead, in one run on one machine.

    bench/peers/run.py [--only NAME]... [--rounds 5] [--quarry BIN]

NAME is one of: machine, transfer, rates, similar, memory, sparse, profiles. Without a Quarry binary
the other contenders are measured alone. Everything runs on loopback in a private directory, is
installed from Debian's packages by name, and is stopped and removed at the end, Ctrl-C included.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import figures as results
import machine
import memory
import profiles
import rates
import similar
import sparse
import transfer
from openstack import OpenStack
from quarry import Quarry
from system import Failed, install, prepare_process, say, work_directory

ROOT = Path(__file__).resolve().parents[2]
MEASUREMENTS = {"machine": machine, "transfer": transfer, "rates": rates, "similar": similar,
                "memory": memory, "sparse": sparse, "profiles": profiles}


class Context:
    """What the measurements share: the work directory, the contenders, the inputs, the rounds."""

    def __init__(self, arguments, work, stack):
        self.work, self.stack = work, stack
        self.quarry_binary = arguments.quarry if arguments.quarry.exists() else None
        self._rounds = arguments.rounds
        self._images = arguments.images.resolve()
        self._cache = arguments.work.resolve() / "packages"
        self._options = arguments.option
        self._openstack = None
        if not self.quarry_binary:
            say(f"there is no {arguments.quarry}: the other contenders are measured alone")

    def rounds(self, name):
        for number in range(self._rounds):
            say(f"{name}: round {number + 1} of {self._rounds}")
            yield number

    def image(self, name):
        """A real disk image, made when it is not there yet."""
        path = self._images / f"{name}.raw"
        if not path.exists():
            subprocess.run([ROOT / "bench/images/make.py", self._images, name], check=True,
                           stdin=subprocess.DEVNULL)
        return path

    def openstack(self):
        """Keystone and Glance, started once, stopped at the end of the run."""
        if not self._openstack:
            directory = self.work / "openstack"
            directory.mkdir()
            self._openstack = OpenStack(directory, self._cache)
            self.stack.callback(self._openstack.stop)
        return self._openstack

    @contextlib.contextmanager
    def folder(self):
        with tempfile.TemporaryDirectory(dir=self.work) as path:
            yield Path(path)

    @contextlib.contextmanager
    def fresh_quarry(self):
        """Quarry on an empty directory, or None where there is no binary."""
        if not self.quarry_binary:
            yield None
            return
        with self.folder() as directory:
            quarry = Quarry(self.quarry_binary.resolve(), directory, self._options)
            try:
                yield quarry
            finally:
                quarry.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", action="append", choices=MEASUREMENTS, metavar="NAME",
                        help=f"measure only this (repeatable): {', '.join(MEASUREMENTS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quarry", type=Path, default=ROOT / "build/release/bin/quarry")
    parser.add_argument("--option", action="append", default=[], metavar="--NAME=VALUE",
                        help="a further option for Quarry (repeatable)")
    parser.add_argument("--images", type=Path, default=ROOT / "build/images")
    parser.add_argument("--work", type=Path, default=ROOT / "build/bench",
                        help="where the private directory is made (needs 30 GiB)")
    parser.add_argument("--results", type=Path,
                        help="where to write the figures (a full run: bench/results)")
    arguments = parser.parse_args()
    prepare_process()
    figures, about = results.Figures(), results.machine()
    about["rounds"] = arguments.rounds
    failure = None
    try:
        install(["curl", "openssl", "python3-yaml"])
        with work_directory(arguments.work.resolve()) as work, contextlib.ExitStack() as stack:
            context = Context(arguments, work, stack)
            for name in arguments.only or MEASUREMENTS:
                MEASUREMENTS[name].measure(context, figures)
    except Failed as error:
        failure = f"error: {error}"
    except KeyboardInterrupt:
        failure = "interrupted"
    target = arguments.results or (None if arguments.only else ROOT / "bench/results")
    if figures.rows or figures.profiles:
        if target and not failure:  # a broken-off run must not replace whole figures
            results.write(figures, about, target, "peers", results.targets(figures))
        print(results.render(figures, about, results.targets(figures)))
    if failure:
        sys.exit(failure)


if __name__ == "__main__":
    main()
