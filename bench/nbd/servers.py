"""Who serves the bytes: Quarry's volumes, qemu-nbd, nbdkit; and a file without any server."""

import contextlib
import shutil
import subprocess

from system import MIB, Failed, Server, random_file, run

FILE_BYTES = 1024 * MIB


class Pool:
    """quarry_bench_volumes: volumes of a chunk store, told what to do by lines."""

    name = "quarry"

    def __init__(self, binary, directory, cache="128"):
        directory.mkdir()
        self._socket = directory / "socket"
        self._errors = open(directory / "errors", "w+", encoding="utf-8")
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", binary, directory / "data", self._socket, cache],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True)
        if self._process.stdout.readline() != "ready\n":
            self.stop()
            raise Failed(f"{binary} did not start")

    def tell(self, *words, may_fail=False):
        """The figures of the answer: the seconds that it took, and what else it tells."""
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().split()
        if answer[:1] == ["ok"]:
            return [float(word) for word in answer[1:]]
        if may_fail and answer[:1] == ["error"]:
            return None
        raise Failed(f"quarry_bench_volumes: {' '.join(map(str, words))}: {' '.join(answer)}")

    def pid(self):
        return self._process.pid

    def uri(self, volume):
        return f"nbd+unix:///{volume}?socket={self._socket}"

    def cpu_seconds(self):
        with open(f"/proc/{self.pid()}/stat", encoding="ascii") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def stop(self):
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(60)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._errors.close()


class Peer:
    """A server of one file."""

    def __init__(self, name, directory, command, export=""):
        self.name = name
        self._socket = directory / f"{name.replace(' ', '-')}.sock"
        self._server = Server(name.replace(" ", "-"), command(self._socket), directory)
        self._server.wait_until(self._socket.exists)
        self._export = export

    def target(self):
        return f"nbd+unix:///{self._export}?socket={self._socket}"

    direct = None

    def cpu_seconds(self):
        return self._server.cpu_seconds()

    def stop(self):
        self._server.stop()


class Volume:
    """One volume of a pool as a contender."""

    direct = None

    def __init__(self, name, pool, volume):
        self.name, self._pool, self._volume = name, pool, volume

    def target(self):
        return self._pool.uri(self._volume)

    def cpu_seconds(self):
        return self._pool.cpu_seconds()

    def stop(self):
        pass


class File:
    """No server at all: what the machine allows."""

    def __init__(self, name, path, direct):
        self.name, self._path, self.direct = name, path, direct

    def target(self):
        return self._path

    def cpu_seconds(self):
        return 0

    def stop(self):
        pass


def qemu(path, image_format):
    return lambda socket: ["qemu-nbd", "-t", "-f", image_format, "-x", "disk", "-k", socket, "-e",
                           "8", "--cache=writeback", path]


def peers(directory):
    """Each on a file of its own, all written alike: a MiB at a time, from the start."""
    source = random_file(directory / "source.raw", FILE_BYTES)
    for name in ("kit.raw", "qemu.raw", "plain.raw"):
        with open(source, "rb") as bytes_in, open(directory / name, "wb") as copy:
            shutil.copyfileobj(bytes_in, copy, MIB)
    qcow2 = directory / "qemu.qcow2"
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", source, qcow2)
    source.unlink()
    plain = directory / "plain.raw"
    return [
        Peer("qemu-nbd raw", directory, qemu(directory / "qemu.raw", "raw"), "disk"),
        Peer("qemu-nbd qcow2", directory, qemu(qcow2, "qcow2"), "disk"),
        Peer("nbdkit file", directory,
             lambda socket: ["nbdkit", "-f", "-U", socket, "file", directory / "kit.raw"]),
        File("the file", plain, False), File("the file, direct", plain, True)]
