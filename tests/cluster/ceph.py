#!/usr/bin/python3
"""A real Ceph cluster in a folder of its own, on this machine alone: `./dev ceph up|down|status`.

One monitor and a few OSDs from Debian's packages, on 127.0.0.1 and free ports, with sparse files of
limited size; no /etc/ceph, no service manager, no manager daemon (nothing that we use needs one).
Several can be up at once, each in its folder. Clients need the variable CEPH_CONF and no more.

Tests use the class; see with_cluster.py for a cluster around any command.
"""

import argparse
import contextlib
import fcntl
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator

import ceph_conf

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "ceph-authtool", "monmaptool", "rbd")
PACKAGES = "ceph-mon ceph-osd ceph-common"
# Unix sockets have short names; the longest that we make is run/osd.NN.asok.
MAX_FOLDER_BYTES = 80
START_SECONDS = 60
STOP_SECONDS = 10
# Below what Linux gives to connections that go out (ip_local_port_range).
WINDOWS = range(20000, 32000, ceph_conf.PORTS)
CAPS = {"mon.": {"mon": "allow *"},
        "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *", "mds": "allow *"}}


class ClusterError(Exception):
    """What went wrong, and what to do."""


def run(*command: object, seconds: float = START_SECONDS, **kwargs) -> str:
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, check=False, capture_output=True, text=True,
                              timeout=seconds, **kwargs)
    except subprocess.TimeoutExpired as late:
        raise ClusterError(f"`{' '.join(words)}` gave no answer in {seconds:.0f} s; "
                           "is the monitor up, and the machine not overloaded?") from late
    if done.returncode != 0:
        raise ClusterError(f"`{' '.join(words)}` failed: {done.stderr.strip()[-2000:]}")
    return done.stdout


class Cluster:
    """One cluster by its folder. Not thread-safe; the folder's owner is who calls."""

    def __init__(self, folder: pathlib.Path | str):
        self.folder = pathlib.Path(folder).resolve()
        self.conf = self.folder / "ceph.conf"

    # What is there.

    def made(self) -> bool:
        return (self.folder / "made").exists()

    def daemons(self) -> list[str]:
        """mon.a, osd.0 ...: what was made, running or not."""
        numbers = sorted(int(path.name[4:]) for path in self.folder.glob("osd.*"))
        return ["mon.a", *(f"osd.{number}" for number in numbers)]

    def pid(self, daemon: str) -> int | None:
        """Of the running process, if it is ours: numbers are used again."""
        try:
            pid = int((self.folder / "run" / f"{daemon}.pid").read_text())
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            state = re.search(r"^State:\s+(\w)", pathlib.Path(f"/proc/{pid}/status").read_text(),
                              re.MULTILINE)
        except (OSError, ValueError):
            return None
        ours = os.fsencode(self.conf) in words and words[0].startswith(b"ceph-")
        # Who has ended may wait long for its parent to look.
        return pid if ours and state and state.group(1) not in "ZX" else None

    def ceph(self, *words: object, seconds: float = 20) -> str:
        """The `ceph` command. What asks the manager daemon (`osd df`) fails after `seconds`."""
        return run("ceph", "-c", self.conf, *words, seconds=seconds, env=self.environment())

    def environment(self) -> dict[str, str]:
        return {**os.environ, "CEPH_CONF": str(self.conf), "CEPH_ARGS": ""}

    # The whole.

    def up(self, osds: int = 3, size: int = 2, min_size: int = 1, osd_gb: float = 8,
           auth: bool = True, default_paxos: bool = False, extra: str = "") -> None:
        """Makes what is not there and starts what does not run; `extra` ends the configuration."""
        need_programs()
        if self.made():
            self.start_all()
            return
        if not 1 <= min_size <= size <= osds:
            raise ClusterError(f"{osds} OSDs can't hold {size} copies, of which {min_size} must "
                               "be there: 1 <= --min-size <= --size <= --osds")
        if 4 * osds >= ceph_conf.PORTS:
            raise ClusterError(f"{osds} OSDs are more than one machine's ports are planned for")
        self.clear()
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("mon", "run", "log", "crash"):
            (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        with port_window() as port:
            fsid = str(uuid.uuid4())
            self.conf.write_text(ceph_conf.configuration(
                self.folder, fsid, port, size=size, min_size=min_size,
                osd_bytes=int(osd_gb * (1 << 30)), auth=auth, default_paxos=default_paxos,
                extra=extra))
            self.make_monitor(fsid, port, osds)
        self.make_osds(osds)
        self.make_pools()
        self.wait_until_written()
        (self.folder / "made").touch()

    def down(self, keep: bool = False) -> None:
        """Stops all; removes the folder unless it is kept for the next `up`."""
        if not self.conf.exists():
            return
        # OSDs first: each would wait for the monitor.
        for daemons in (self.daemons()[1:], self.daemons()[:1]):
            for daemon in daemons:
                self.kill(daemon, signal.SIGTERM, wait=False)
            for daemon in daemons:
                self.wait_gone(daemon)
        if not (keep and self.made()):
            self.clear()

    def start_all(self) -> None:
        for daemon in self.daemons():
            self.start(daemon)
        self.wait_until_written()

    def clear(self) -> None:
        """Removes what we made, and refuses what we did not."""
        if len(os.fsencode(self.folder)) > MAX_FOLDER_BYTES:
            raise ClusterError(f"{self.folder} is too long for the names of Unix sockets: "
                               f"take a folder of at most {MAX_FOLDER_BYTES} bytes")
        if self.folder.is_dir() and any(self.folder.iterdir()):
            if not self.conf.exists() or not self.conf.read_text().startswith(ceph_conf.MARK):
                raise ClusterError(f"{self.folder} is not empty, and no cluster of ours: "
                                   "name another folder with --dir")
            running = [daemon for daemon in self.daemons() if self.pid(daemon)]
            if running:
                raise ClusterError(f"{', '.join(running)} of an unfinished cluster run in "
                                   f"{self.folder}: stop them with `./dev ceph down`")
            shutil.rmtree(self.folder)

    # One daemon, for tests that break things.

    def start(self, daemon: str) -> None:
        """Fine if it runs."""
        if self.pid(daemon) is None:
            kind, name = daemon.split(".")
            run(f"ceph-{kind}", "-i", name, "-c", self.conf, env=self.environment())

    def kill(self, daemon: str, how: signal.Signals = signal.SIGKILL, wait: bool = True) -> None:
        """SIGKILL, SIGTERM, SIGSTOP, SIGCONT; after the first two it is gone. Fine if it is."""
        pid = self.pid(daemon)
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)
        if wait and how in (signal.SIGKILL, signal.SIGTERM):
            self.wait_gone(daemon)

    def wait_gone(self, daemon: str) -> None:
        give_up = time.monotonic() + STOP_SECONDS
        while self.pid(daemon) is not None:
            if time.monotonic() > give_up:
                self.kill(daemon, signal.SIGKILL, wait=False)
            time.sleep(0.02)

    def wait_until_written(self, seconds: float = START_SECONDS) -> None:
        """Returns when a write to every pool works: `ceph health` alone does not promise that."""
        for pool in ceph_conf.POOLS:
            rados = ("rados", "-c", self.conf, "-p", pool, "-N", "probe")
            run(*rados, "put", "probe", "-", seconds=seconds, env=self.environment(), input="x")
            run(*rados, "rm", "probe", seconds=seconds, env=self.environment())

    # Making one.

    def make_monitor(self, fsid: str, port: int, osds: int) -> None:
        keyring = self.folder / "keyring"
        keyring.touch(mode=0o600)
        caps = dict(CAPS)
        for number in range(osds):
            caps[f"osd.{number}"] = {"mon": "allow profile osd", "osd": "allow *"}
        for entity, of_entity in caps.items():
            words = [word for where, what in of_entity.items() for word in ("--cap", where, what)]
            run("ceph-authtool", keyring, "--gen-key", "-n", entity, *words)
        monmap = self.folder / "monmap"
        run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{port}]",
            monmap)
        run("ceph-mon", "-i", "a", "-c", self.conf, "--mkfs", "--monmap", monmap, "--keyring",
            keyring, env=self.environment())
        self.start("mon.a")

    def make_osds(self, count: int) -> None:
        identities = [str(uuid.uuid4()) for _ in range(count)]
        self.commands(f"osd new {identity} {number}" for number, identity in enumerate(identities))
        making = []
        for number, identity in enumerate(identities):
            (self.folder / f"osd.{number}").mkdir(mode=0o700)
            making.append(subprocess.Popen(
                ["ceph-osd", "-i", str(number), "-c", str(self.conf), "--mkfs", "--osd-uuid",
                 identity], env=self.environment(), stderr=subprocess.PIPE, text=True))
        for number, process in enumerate(making):
            _, said = process.communicate(timeout=START_SECONDS)
            if process.returncode != 0:
                raise ClusterError(f"OSD {number} could not be made: {said.strip()[-1000:]}; "
                                   f"see {self.folder}/log/osd.{number}.log")
        for number in range(count):
            self.start(f"osd.{number}")

    def make_pools(self) -> None:
        words = []
        for pool, application in ceph_conf.POOLS.items():
            words.append(f"osd pool create {pool}")
            words.append(f"osd pool application enable {pool} {application}")
        self.commands(words)
        for pool, application in ceph_conf.POOLS.items():
            if application == "rbd":
                run("rbd", "-c", self.conf, "pool", "init", pool, env=self.environment())

    def commands(self, words) -> None:
        """Many `ceph` commands for one start of its interpreter; all are known to succeed."""
        run("ceph", "-c", self.conf, input="\n".join(words) + "\n", env=self.environment())


def need_programs() -> None:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise ClusterError(f"{', '.join(missing)} not found: run `./dev ceph up`, which installs "
                           f"them, or apt-get install {PACKAGES}")


@contextlib.contextmanager
def port_window() -> Iterator[int]:
    """The first of ceph_conf.PORTS free ports, kept from other starts of this script until the
    monitor has taken it."""
    for port in random.sample(WINDOWS, len(WINDOWS)):
        with open(os.path.join(tempfile.gettempdir(), f"quarry-ceph-{port}.lock"), "w",
                  encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            try:
                if all(is_free(number) for number in range(port, port + ceph_conf.PORTS)):
                    yield port
                    return
            finally:
                os.unlink(lock.name)
    raise ClusterError(f"no {ceph_conf.PORTS} free ports in a row from {WINDOWS.start} to "
                       f"{WINDOWS.stop}: stop clusters that nobody needs (`./dev ceph down`)")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def temporary_cluster(**options) -> Iterator[Cluster]:
    """A cluster of `Cluster.up`'s options that ends with the block, or with this process, however
    that ends: daemons have no parent who would take them along."""
    cluster = Cluster(tempfile.mkdtemp(prefix="quarry-ceph-"))
    with guarded(cluster):
        try:
            cluster.up(**options)
            yield cluster
        finally:
            cluster.down()
            shutil.rmtree(cluster.folder, ignore_errors=True)


@contextlib.contextmanager
def guarded(cluster: Cluster) -> Iterator[None]:
    """A process apart waits for the end of a pipe that only we hold, and takes the cluster down."""
    reader, writer = os.pipe()
    try:
        # Not our output: who reads that would wait for the guard to end.
        subprocess.run(["setsid", "--fork", sys.executable, __file__, "--dir", cluster.folder,
                        "down", "--at-eof"], check=True, stdin=reader, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        os.close(reader)
        yield
    finally:
        os.close(writer)


def show_status(cluster: Cluster) -> int:
    if not cluster.made():
        print(f"no cluster in {cluster.folder}; start one with `./dev ceph up`")
        return 1
    print(f"export CEPH_CONF={cluster.conf}")
    running = {daemon: cluster.pid(daemon) for daemon in cluster.daemons()}
    for daemon, pid in running.items():
        print(f"  {daemon:8} {f'process {pid}' if pid else 'not running'}")
    if running["mon.a"]:
        print(cluster.ceph("-s"), end="")
    return 0 if all(running.values()) else 1


def add_up_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--osds", type=int, default=3, help="how many (3)")
    parser.add_argument("--size", type=int, default=2, help="copies of each object (2)")
    parser.add_argument("--min-size", type=int, default=1,
                        help="copies that must be there for a write (1)")
    parser.add_argument("--osd-gb", type=float, default=8,
                        help="GiB that an OSD may take of the disk (8; sparse)")
    parser.add_argument("--no-auth", dest="auth", action="store_false", help="without cephx")
    parser.add_argument("--default-paxos", action="store_true",
                        help="collect changes of maps for a second, as Ceph does by default")


def up_options(arguments: argparse.Namespace) -> dict[str, object]:
    return {name: getattr(arguments, name)
            for name in ("osds", "size", "min_size", "osd_gb", "auth", "default_paxos")}


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev ceph", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--dir", type=pathlib.Path, default=ROOT / "build" / "ceph",
                        help="the cluster's folder (build/ceph)")
    # Before the command or after it.
    same = argparse.ArgumentParser(add_help=False)
    same.add_argument("--dir", type=pathlib.Path, default=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", required=True)
    add_up_options(commands.add_parser("up", parents=[same],
                                       help="make it, or start what does not run"))
    down = commands.add_parser("down", parents=[same], help="stop it and remove it")
    down.add_argument("--keep", action="store_true", help="keep its data for the next `up`")
    down.add_argument("--at-eof", action="store_true", help="when standard input ends")
    commands.add_parser("status", parents=[same], help="what runs, and `ceph -s`")
    for name, text in (("start", "one daemon"), ("kill", "one daemon, with -9")):
        of_one = commands.add_parser(name, parents=[same], help=text)
        of_one.add_argument("daemon", help="mon.a, osd.0, ...")
    arguments = parser.parse_args()
    cluster = Cluster(arguments.dir)
    try:
        if arguments.command == "up":
            began = time.monotonic()
            if cluster.made():
                print("it was made before: options are those of then", file=sys.stderr)
            cluster.up(**up_options(arguments))
            print(f"up after {time.monotonic() - began:.1f} s", file=sys.stderr)
            print(f"export CEPH_CONF={cluster.conf}")
        elif arguments.command == "down":
            if arguments.at_eof:
                sys.stdin.read()
            cluster.down(keep=arguments.keep)
        elif arguments.command == "status":
            return show_status(cluster)
        elif arguments.command == "start":
            cluster.start(arguments.daemon)
        else:
            cluster.kill(arguments.daemon)
    except ClusterError as error:
        print(f"./dev ceph: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
