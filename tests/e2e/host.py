"""A compute host for a test: a real `quarry host`, and the commands that tell it what to do."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from service import QUARRY, START_SECONDS, STOP_SECONDS, call


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Host:
    """The agent of a compute host over a cache of its own. One thread."""

    def __init__(self, service, cache=None, size="256MiB", options=()):
        self.folder = tempfile.mkdtemp(prefix="quarry-host-")
        self.cache = cache or self.folder + "/cache"
        self.sockets = self.folder + "/sockets"
        self.log_path = self.folder + "/log"
        self.port = free_port()
        self.command = [QUARRY, "host", "--cache", self.cache, "--cache-size", size,
                        "--socket-dir", self.sockets, "--data-dir", service.data_dir,
                        "--metrics-listen", f"127.0.0.1:{self.port}", *options]
        self.environment = service.environment
        self.process = None

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, env=self.environment)
        deadline = time.monotonic() + START_SECONDS
        while self.run("ls", check=False).returncode != 0:
            assert self.process.poll() is None and time.monotonic() < deadline, self.log()
            time.sleep(0.02)
        return self

    def stop(self):
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_SECONDS)
        self.process = None
        return code

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        if self.process is not None:
            self.kill()
        shutil.rmtree(self.folder)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def run(self, command, *words, group="host", check=True):
        done = subprocess.run([QUARRY, group, command, *words, "--socket-dir", self.sockets],
                              capture_output=True, text=True, timeout=120, check=False,
                              stdin=subprocess.DEVNULL, env=self.environment)
        if check:
            assert done.returncode == 0, (command, words, done.stderr, self.log()[-4000:])
        return done

    def json(self, command, *words, group="host"):
        return json.loads(self.run(command, *words, "--json", group=group).stdout)

    def attach(self, *words):
        """The NBD URI of what is attached."""
        return self.run("attach", *words).stdout.strip()

    def stats(self):
        return self.json("stats", group="cache")

    def metric(self, name):
        """The sum over all labels."""
        text = call("GET", f"http://127.0.0.1:{self.port}/metrics").body.decode()
        return sum(float(value) for value in
                   re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))

    def wait_until(self, condition, seconds=60):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.log()[-4000:]
            time.sleep(0.05)


def node(uri, **more):
    """A disk as QEMU's block node."""
    name, path = re.fullmatch(r"nbd\+unix:///([^?]+)\?socket=(.+)", uri).groups()
    return {"driver": "nbd", "export": name, "server": {"type": "unix", "path": path}, **more}


def read_disk(uri, **more):
    """All that it reads, through QEMU."""
    with tempfile.NamedTemporaryFile(prefix="quarry-host-") as copy:
        source = "json:" + json.dumps({"driver": "raw", "file": node(uri, **more)})
        done = subprocess.run(["qemu-img", "convert", "-O", "raw", source, copy.name],
                              capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        with open(copy.name, "rb") as data:
            return data.read()


def read_at(uri, offset, length=4096):
    """True if the range can be read."""
    done = subprocess.run(["qemu-io", "-f", "raw", "-r", "-c", f"read {offset} {length}", uri],
                          capture_output=True, text=True, timeout=120, check=False)
    return done.returncode == 0 and "read failed" not in done.stdout + done.stderr
