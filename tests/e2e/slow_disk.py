"""A disk that stalls on demand, with nothing pretended: ext4 on a loop device on a file of FUSE,
whose bytes nbdkit serves. While nbdkit is stopped, whatever needs the disk waits."""

import os
import shutil
import signal
import subprocess
import time

import pytest

SIZE = "2G"
SECONDS = 60
TOOLS = ("nbdkit", "nbdfuse", "fusermount3", "mke2fs", "mount")


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr}")


def start_or_skip(folder):
    """A disk that runs, in a new folder; the test is skipped where there can be none."""
    disk = SlowDisk(str(folder))
    try:
        disk.start()
    except OSError as error:
        pytest.skip(f"a disk that stalls was not tried: {error}")
    return disk


class SlowDisk:
    """Mounted at `path`, below a folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.path = os.path.join(folder, "mounted")
        self.fuse_path = os.path.join(folder, "fuse")
        self.server = self.fuse = None
        self.mounts = []

    def start(self):
        """OSError where there can be no such disk: tools or rights are missing."""
        missing = [tool for tool in TOOLS if shutil.which(tool) is None]
        if missing:
            raise OSError(f"install {', '.join(missing)}")
        os.makedirs(self.path)
        os.makedirs(self.fuse_path)
        socket = os.path.join(self.folder, "disk.sock")
        try:
            self.server = subprocess.Popen(["nbdkit", "-f", "-U", socket, "memory", SIZE])
            self.wait_for(self.server, socket)
            self.fuse = subprocess.Popen(["nbdfuse", self.fuse_path,
                                          f"nbd+unix:///?socket={socket}"])
            disk = os.path.join(self.fuse_path, "nbd")
            self.wait_for(self.fuse, disk)
            run("mke2fs", "-q", "-F", "-t", "ext4", disk)
            run("mount", "-o", "loop", disk, self.path)
            self.mounts.append(self.path)
        except BaseException:
            self.stop()
            raise

    @staticmethod
    def wait_for(process, path):
        deadline = time.monotonic() + SECONDS
        while not os.path.exists(path):
            if process.poll() is not None or time.monotonic() > deadline:
                raise OSError(f"{process.args[0]} did not start")
            time.sleep(0.01)

    def take_over(self, folder):
        """What will be in `folder` lies on this disk."""
        here = os.path.join(self.path, os.path.basename(folder))
        os.makedirs(here)
        os.makedirs(folder, exist_ok=True)
        run("mount", "--bind", here, folder)
        self.mounts.append(folder)

    def stall(self):
        self.server.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.server.send_signal(signal.SIGCONT)

    def stop(self):
        if self.server is not None:
            self.go_on()
        for mounted in reversed(self.mounts):
            run("umount", mounted)
        if self.fuse is not None and self.fuse.poll() is None:
            run("fusermount3", "-u", self.fuse_path)
            self.fuse.wait(SECONDS)
        if self.server is not None:
            self.server.terminate()
            self.server.wait(SECONDS)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
