#!/usr/bin/python3
"""A small cloud on this machine alone, as one would run it on many: `./dev ha up|down|status`.

Ceph (see ceph.py), three processes each of controlplane, imaged and blockd over it, and HAProxy in
front of them: one address for all APIs, one for NBD. Any process may end; the others go on. Tests
use the class.
"""

import argparse
import json
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import ceph

ROOT = ceph.ROOT
EACH = 3
KINDS = ("controlplane", "imaged", "blockd")
START_SECONDS = 60
STOP_SECONDS = 60
PASSWORD_VARIABLE = "QUARRY_IDENTITY_ADMIN_PASSWORD"

# A process that gives no answer for two checks in a row gets nothing new; who is being served by it
# is cut off at once when it is gone, and a moment later when it only hangs.
HAPROXY = """global
  maxconn 4096
  stats socket {folder}/run/haproxy.sock mode 600
defaults
  mode http
  timeout connect 2s
  timeout client 10m
  timeout server 10m
  timeout check 2s
  option redispatch 1
  retries 3
  default-server check inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions
frontend apis
  bind 127.0.0.1:{http_port}
  use_backend imaged if {{ path_beg /image }}
  use_backend blockd if {{ path_beg /volume }}
  default_backend controlplane
{backends}
# All connections of one host to one volume must end at one process: by where they come from.
frontend nbd
  mode tcp
  bind 127.0.0.1:{nbd_port}
  timeout client 24h
  default_backend blockd-nbd
backend blockd-nbd
  mode tcp
  balance source
  hash-type consistent
  timeout server 24h
  option httpchk GET /healthz
{nbd_servers}
"""


class Cloud:
    """By its folder. Daemons are "imaged.1", ...; also "haproxy", and Ceph's by `self.ceph`."""

    def __init__(self, folder: pathlib.Path | str):
        self.folder = pathlib.Path(folder).resolve()
        self.ceph = ceph.Cluster(self.folder / "ceph")
        self.binary = pathlib.Path(os.environ.get("TEST_QUARRY_BINARY",
                                                  ROOT / "build/release/bin/quarry"))

    # What is there.

    def made(self) -> bool:
        return (self.folder / "ports.json").exists()

    def ports(self) -> dict[str, int]:
        return json.loads((self.folder / "ports.json").read_text())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports()['http']}"

    def daemons(self) -> list[str]:
        return [f"{kind}.{number}" for kind in KINDS for number in range(1, EACH + 1)]

    def pid(self, name: str) -> int | None:
        """Of the running process, if it is ours."""
        try:
            pid = int((self.folder / "run" / f"{name}.pid").read_text())
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, ValueError):
            return None
        return pid if os.fsencode(self.folder) in words and state not in "ZX" else None

    def clouds_yaml(self) -> pathlib.Path:
        return self.folder / "data" / "controlplane.1" / "clouds.yaml"

    # The whole.

    def up(self, **ceph_options: object) -> None:
        """Makes what is not there, and starts what does not run."""
        if not self.binary.exists():
            raise ceph.ClusterError(f"{self.binary} is not there: run `./dev build`")
        if shutil.which("haproxy") is None:
            raise ceph.ClusterError("haproxy not found: apt-get install haproxy")
        self.ceph.up(**ceph_options)
        for name in ("run", "log", "data"):
            (self.folder / name).mkdir(exist_ok=True)
        if not self.made():
            self.make()
        # The first makes the admin and the catalog.
        self.start("controlplane.1")
        for name in self.daemons():
            self.start(name, wait=False)
        for name in self.daemons():
            self.wait_until_well(name)
        self.start_haproxy()

    def down(self, keep: bool = False) -> None:
        """Stops all; removes the folder unless it is kept for the next `up`."""
        names = ["haproxy", *self.daemons()]
        for name in names:
            self.kill(name, signal.SIGCONT)
            self.kill(name, signal.SIGTERM, wait=False)
        for name in names:
            self.wait_gone(name)
        self.ceph.down(keep=keep)
        if not keep and self.folder.exists():
            shutil.rmtree(self.folder)

    def make(self) -> None:
        names = ["http", "nbd", *self.daemons(), *(f"nbd-of-{name}" for name in self.daemons()
                                                   if name.startswith("blockd"))]
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in names]
        ports = {name: one.getsockname()[1] for name, one in zip(names, sockets)}
        for one in sockets:
            one.close()
        (self.folder / "password").write_text(secrets.token_urlsafe(24))
        (self.folder / "password").chmod(0o600)
        (self.folder / "haproxy.cfg").write_text(self.haproxy_configuration(ports))
        (self.folder / "ports.json").write_text(json.dumps(ports))

    def haproxy_configuration(self, ports: dict[str, int]) -> str:
        backends = []
        for kind in KINDS:
            lines = [f"backend {kind}", "  balance leastconn", "  option httpchk GET /healthz"]
            for number in range(1, EACH + 1):
                lines.append(f"  server {kind}.{number} 127.0.0.1:{ports[f'{kind}.{number}']}")
            backends.append("\n".join(lines))
        nbd = [f"  server blockd.{number} 127.0.0.1:{ports[f'nbd-of-blockd.{number}']} "
               f"port {ports[f'blockd.{number}']}" for number in range(1, EACH + 1)]
        return HAPROXY.format(folder=self.folder, http_port=ports["http"], nbd_port=ports["nbd"],
                              backends="\n".join(backends), nbd_servers="\n".join(nbd))

    # One daemon.

    def options(self, name: str) -> list[str]:
        ports = self.ports()
        kind = name.partition(".")[0]
        options = [
            f"--data-dir={self.folder}/data/{name}",
            f"--listen=127.0.0.1:{ports[name]}", f"--public-url={self.url}",
            "--store.back-end=ceph", f"--ceph.conf={self.ceph.conf}", "--ceph.pool=chunks",
            "--ceph.meta-pool=meta", "--block.rbd-pool=volumes", "--http.drain-timeout=5s"]
        if kind == "blockd":
            options += [f"--block.nbd-listen=127.0.0.1:{ports[f'nbd-of-{name}']}",
                        "--block.nbd-host=127.0.0.1", f"--block.nbd-port={ports['nbd']}"]
        return options

    def start(self, name: str, wait: bool = True) -> None:
        """Fine if it runs."""
        if self.pid(name) is None:
            environment = {**self.ceph.environment(),
                           PASSWORD_VARIABLE: (self.folder / "password").read_text()}
            binary = self.binary.parent / name.partition(".")[0]
            self.spawn(name, [str(binary), *self.options(name)], environment)
        if wait:
            self.wait_until_well(name)

    def start_haproxy(self) -> None:
        configuration = self.folder / "haproxy.cfg"
        if self.pid("haproxy") is None:
            self.spawn("haproxy", ["haproxy", "-db", "-f", str(configuration)], dict(os.environ))
        self.wait_until_well("haproxy")

    def spawn(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        with open(self.folder / "log" / f"{name}.log", "ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       env=environment, start_new_session=True)
        (self.folder / "run" / f"{name}.pid").write_text(str(process.pid))

    def wait_until_well(self, name: str) -> None:
        port = self.ports()["http" if name == "haproxy" else name]
        began = time.monotonic()
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5):
                    return
            except (OSError, urllib.error.URLError):
                pass
            waited = time.monotonic() - began
            # A process that was just made may not have its own command line yet.
            if waited > START_SECONDS or waited > 1 and self.pid(name) is None:
                log = (self.folder / "log" / f"{name}.log").read_text(errors="replace")
                raise ceph.ClusterError(f"{name} does not serve; its log ends:\n{log[-2000:]}")
            time.sleep(0.05)

    def kill(self, name: str, how: signal.Signals = signal.SIGKILL, wait: bool = True) -> None:
        """SIGKILL, SIGTERM, SIGSTOP, SIGCONT; after the first two it is gone. Fine if it is."""
        pid = self.pid(name)
        if pid is None:
            return
        try:
            os.kill(pid, how)
        except ProcessLookupError:
            return
        if wait and how in (signal.SIGKILL, signal.SIGTERM):
            self.wait_gone(name)

    def wait_gone(self, name: str) -> None:
        give_up = time.monotonic() + STOP_SECONDS
        while (pid := self.pid(name)) is not None:
            if time.monotonic() > give_up:
                self.kill(name, signal.SIGKILL, wait=False)
            try:
                os.waitpid(pid, os.WNOHANG)  # one of ours: nobody else looks
            except ChildProcessError:
                pass
            time.sleep(0.02)


def show_status(cloud: Cloud) -> int:
    if not cloud.made():
        print(f"no cloud in {cloud.folder}; start one with `./dev ha up`")
        return 1
    print(f"APIs: {cloud.url}, credentials: {cloud.clouds_yaml()}")
    running = {name: cloud.pid(name) for name in ["haproxy", *cloud.daemons()]}
    for name, pid in running.items():
        port = cloud.ports().get(name, cloud.ports()["http"])
        print(f"  {name:16} {f'process {pid}, port {port}' if pid else 'not running'}")
    for daemon in cloud.ceph.daemons():
        pid = cloud.ceph.pid(daemon)
        print(f"  {daemon:16} {f'process {pid}' if pid else 'not running'}")
    return 0 if all(running.values()) else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev ha", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--dir", type=pathlib.Path, default=ROOT / "build" / "ha",
                        help="the cloud's folder (build/ha)")
    commands = parser.add_subparsers(dest="command", required=True)
    ceph.add_up_options(commands.add_parser("up", help="make it, or start what does not run"))
    down = commands.add_parser("down", help="stop it and remove it")
    down.add_argument("--keep", action="store_true", help="keep its data for the next `up`")
    commands.add_parser("status", help="what runs, and where")
    for name, text in (("start", "one process again"), ("kill", "one process, with -9")):
        of_one = commands.add_parser(name, help=text)
        of_one.add_argument("daemon", help="controlplane.1, imaged.2, blockd.3, ...")
    arguments = parser.parse_args()
    cloud = Cloud(arguments.dir)
    try:
        if arguments.command == "up":
            cloud.up(**ceph.up_options(arguments))
            show_status(cloud)
            print(f"\nTry:\n  export OS_CLIENT_CONFIG_FILE={cloud.clouds_yaml()} OS_CLOUD=quarry\n"
                  "  openstack volume create --size 1 first && openstack volume list\n"
                  "  ./dev ha kill blockd.1    # and go on")
        elif arguments.command == "down":
            cloud.down(keep=arguments.keep)
        elif arguments.command == "status":
            return show_status(cloud)
        elif arguments.command == "start":
            cloud.start(arguments.daemon)
        else:
            cloud.kill(arguments.daemon)
    except ceph.ClusterError as error:
        print(f"./dev ha: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
