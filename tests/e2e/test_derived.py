"""Volumes of another NBD server: what changed since their image, reading that image here instead,
and going on when the server is killed."""

import json
import os
import random
import subprocess
import threading
import time

import nbd
import pytest

from nbd_tools import SECONDS, need, qemu_io, run
from service import USER_PASSWORD, Images, Service, call
from volumes import Volumes, keep_nbd_port

SERVER = os.path.join(os.path.dirname(os.path.abspath(os.environ.get(
    "TEST_QUARRY_BINARY", "build/release/bin/quarry"))), "derived_test_server")
GIB, MIB, SECTOR = 1 << 30, 1 << 20, 512
IMAGE_BYTES = 37 * MIB + 1536  # neither whole chunks nor whole blocks
STRIPE = 512 * 1024            # one thread's, of as many as there are threads


@pytest.fixture(name="service", scope="module")
def service_on_one_port(tmp_path_factory):
    """Whose NBD clients find it again where it was."""
    with Service(str(tmp_path_factory.mktemp("derived") / "data")) as service:
        keep_nbd_port(service)
        yield service


@pytest.fixture(name="image", scope="module")
def image_of_random_bytes(service, tmp_path_factory):
    data = random.Random(1).randbytes(IMAGE_BYTES - 5 * MIB) + bytes(5 * MIB)
    path = tmp_path_factory.mktemp("image") / "image.raw"
    path.write_bytes(data)
    return Images(service).make(data, "origin"), path


class Derived:
    """derived_test_server on a unix socket."""

    def __init__(self, folder, uri, *options):
        self.socket = str(folder / "derived.sock")
        # pylint: disable-next=consider-using-with
        self.process = subprocess.Popen(
            [SERVER, "--uri", uri, "--unix", self.socket, *map(str, options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def uri(self):
        return f"nbd+unix:///disk?socket={self.socket}"

    def counts(self):
        """Bytes read from the image and from the server, and how often the image failed."""
        self.process.stdin.write("counts\n")
        self.process.stdin.flush()
        return [int(word) for word in self.process.stdout.readline().split()]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            code = self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        assert code == 0, "it did not stop cleanly"


def changed(uri, image_id):
    """Offsets and lengths of what may differ from an image; None: nobody tells."""
    done = run("nbdinfo", f"--map=quarry:changed-since-image/{image_id}", "--json", uri,
               check=False)
    if done.returncode != 0:
        return None
    return [(e["offset"], e["length"]) for e in json.loads(done.stdout) if e["type"] == 1]


def data_name(images, image_id):
    """What the service calls the bytes of an image: in the head of an answer about blocks."""
    kind = "application/vnd.quarry.blocks.v1"
    url = images.url.replace("/v2/images", f"/v2/quarry/images/{image_id}/blocks")
    reply = call("POST", url, b"QBRQ" + (1).to_bytes(2, "little") + bytes(10),
                 {**images.headers, "Content-Type": kind, "Accept": kind})
    assert reply.status == 200 and reply.body[:4] == b"QBLK", reply.body
    return reply.body[16:32].hex()


def wait_until_sealed(volumes, uri, image_id, ranges):
    """A snapshot goes to the chunk store; then what differs is known by the chunk."""
    deadline = time.monotonic() + SECONDS
    while changed(uri, image_id) != ranges:
        assert time.monotonic() < deadline, changed(uri, image_id)
        time.sleep(0.05)


def test_what_changed_since_the_image(service, image):
    need("nbdinfo", "qemu-io")
    volumes, (image_id, _) = Volumes(service), image
    volume = volumes.create(imageRef=image_id)
    attachment, connection = volumes.attach(volume)
    uri = connection["uri"]
    assert changed(uri, image_id) == []
    qemu_io(uri, "write -P 1 1M 8k", "write -P 2 9M 512", "discard 20M 64k", "write -P 3 500M 4k")
    written = [(MIB, 8192), (9 * MIB, 4096), (20 * MIB, 65536), (500 * MIB, 4096)]
    assert changed(uri, image_id) == written

    # Snapshots change nothing of it, but by the chunk once they are in the chunk store.
    snapshot = volumes.snapshot(volume)
    chunks = [(0, 4 * MIB), (8 * MIB, 4 * MIB), (20 * MIB, 4 * MIB), (500 * MIB, 4 * MIB)]
    wait_until_sealed(volumes, uri, image_id, chunks)
    qemu_io(uri, "write -P 4 32M 4k")
    assert changed(uri, image_id) == chunks[:3] + [(32 * MIB, 4096)] + chunks[3:]

    # A larger one; and back to the snapshot, where what was written since is not.
    volumes.ok("POST", f"/volumes/{volume}/action", {"os-extend": {"new_size": 2}})
    volumes.wait("volume", volume, "in-use")
    assert changed(uri, image_id) == chunks[:3] + [(32 * MIB, 4096)] + chunks[3:]
    volumes.detach(attachment)
    volumes.wait("volume", volume, "available")
    volumes.ok("DELETE", f"/snapshots/{snapshot}")
    volumes.wait("snapshot", snapshot, None)
    before = volumes.snapshot(volume)
    attachment, connection = volumes.attach(volume)
    uri = connection["uri"]
    wait_until_sealed(volumes, uri, image_id, chunks[:3] + [(32 * MIB, 4 * MIB)] + chunks[3:])
    qemu_io(uri, "write -P 5 12M 4k")
    volumes.detach(attachment)
    volumes.wait("volume", volume, "available")
    volumes.ok("POST", f"/volumes/{volume}/action", {"revert": {"snapshot_id": before}})
    volumes.wait("volume", volume, "available")
    attachment, connection = volumes.attach(volume)
    assert changed(connection["uri"], image_id) == (
        chunks[:3] + [(32 * MIB, 4 * MIB)] + chunks[3:])
    # All of it given back reads as zeros: that is not what the image has, but where it has none.
    qemu_io(connection["uri"], "discard 0 1G")
    assert sum(length for _, length in changed(connection["uri"], image_id)) >= 32 * MIB
    volumes.detach(attachment)
    volumes.wait("volume", volume, "available")
    volumes.ok("DELETE", f"/volumes/{volume}?cascade=true")


def test_it_is_told_of_images_that_the_project_reads(service, image):
    need("nbdinfo")
    volumes, images, (image_id, _) = Volumes(service), Images(service), image
    volume = volumes.create(imageRef=image_id)
    attachment, connection = volumes.attach(volume)
    uri = connection["uri"]
    assert changed(uri, image_id) == []
    # Any image will do, as it is a comparison; but a qcow2's file is no disk.
    other = images.make(b"x" * MIB, "other")
    assert changed(uri, other) == [(0, 36 * MIB)]  # the last chunk of either is zeros
    qcow = images.create("qcow", disk_format="qcow2")["id"]
    service.new_member("alice", "red")
    hers = Images(service, service.token("alice", USER_PASSWORD, "red")).make(b"y" * MIB, "hers")
    for unknown in (qcow, hers, "0" * 32, "", "../" + image_id, image_id[:-1]):
        assert changed(uri, unknown) is None, unknown
    # With the name of the data it is these bytes or nothing.
    name = data_name(images, image_id)
    assert name != data_name(images, other) and len(name) == 32
    assert changed(uri, f"{image_id}/{name}") == []
    for unknown in (f"{other}/{name}", f"{image_id}/", f"{image_id}/{name[:-1]}", f"/{name}",
                    f"{image_id}/{name}/{name}"):
        assert changed(uri, unknown) is None, unknown
    # Of one that is withdrawn, or gone, nothing is told any more.
    assert images.call("POST", f"/{other}/actions/deactivate").status == 204
    assert changed(uri, other) is None
    assert images.call("POST", f"/{other}/actions/reactivate").status == 204
    assert changed(uri, other) is not None
    assert images.call("DELETE", f"/{other}").status == 204
    assert changed(uri, other) is None
    volumes.detach(attachment)
    volumes.wait("volume", volume, "available")
    volumes.delete(volume)


class Writer(threading.Thread):
    """A connection that reads and writes stripes of its own, and knows what they hold."""

    def __init__(self, uri, number, of, content, seed):
        super().__init__()
        self.rng = random.Random(seed * 100 + number)
        self.number, self.of = number, of
        self.content = content  # shared; the stripes are not
        self.stop = threading.Event()
        self.steps = 0
        self.error = None
        self.connection = nbd.NBD()
        self.connection.connect_uri(uri)
        self.start()

    def run(self):
        try:
            while not self.stop.is_set():
                self.step()
                self.steps += 1
            self.connection.shutdown()
        except (nbd.Error, AssertionError) as error:
            self.error = repr(error)

    def step(self):
        stripe = self.rng.randrange(len(self.content) // STRIPE // self.of) * self.of + self.number
        first = self.rng.randrange(STRIPE // SECTOR)
        most = min(STRIPE // SECTOR - first, self.rng.choice((16, 16, 300)))
        offset = stripe * STRIPE + first * SECTOR
        length = (1 + self.rng.randrange(most)) * SECTOR
        what = self.rng.randrange(10)
        if what < 3:
            data = self.rng.randbytes(length)
            self.connection.pwrite(data, offset, nbd.CMD_FLAG_FUA if what == 0 else 0)
            self.content[offset:offset + length] = data
        elif what == 3:
            self.connection.zero(length, offset)
            self.content[offset:offset + length] = bytes(length)
        elif what == 4:
            self.connection.flush()
        else:
            found = self.connection.pread(length, offset)
            assert found == self.content[offset:offset + length], f"{length} bytes at {offset}"


def load_over_kills(uri, content, kill, kills=6, seed=1):
    """Threads write and read over `uri` while `kill` kills what is behind it, and starts it."""
    writers = [Writer(uri, n, 4, content, seed) for n in range(4)]
    try:
        for _ in range(kills):
            until = sum(w.steps for w in writers) + 150
            while sum(w.steps for w in writers) < until:
                assert not any(w.error for w in writers), [w.error for w in writers]
                time.sleep(0.005)
            kill()
    finally:
        for writer in writers:
            writer.stop.set()
        for writer in writers:
            writer.join(SECONDS)
    assert not any(w.error or w.is_alive() for w in writers), [w.error for w in writers]


def read_all(uri, length):
    connection = nbd.NBD()
    connection.connect_uri(uri)
    return b"".join(connection.pread(min(8 * MIB, length - at), at)
                    for at in range(0, length, 8 * MIB))


def test_a_derived_volume_over_kills_of_the_service(service, image, tmp_path):
    volumes, (image_id, path) = Volumes(service), image
    volume = volumes.create(imageRef=image_id)
    attachment, connection = volumes.attach(volume)
    size = 48 * MIB
    content = bytearray(path.read_bytes().ljust(size, b"\0"))
    options = ["--image", image_id, "--origin", path]

    def kill():
        service.kill()
        service.start()

    with Derived(tmp_path, connection["uri"], *options) as derived:
        load_over_kills(derived.uri(), content, kill)
        from_image, from_server, failed = derived.counts()
        assert from_image > 0 and from_server > 0 and failed == 0
        assert read_all(derived.uri(), size) == content
    # As whoever comes next sees it: over another one, and at the service itself.
    with Derived(tmp_path, connection["uri"], *options) as derived:
        assert read_all(derived.uri(), size) == content
        assert derived.counts()[0] > 0
    assert read_all(connection["uri"], size) == content
    volumes = Volumes(service)  # its API has another port now
    volumes.detach(attachment)
    volumes.wait("volume", volume, "available")
    volumes.delete(volume)


class OtherServer:
    """qemu-nbd or nbdkit with a file, that can be killed and started again."""

    def __init__(self, kind, folder, size):
        self.socket, self.file = str(folder / "other.sock"), folder / "disk.raw"
        with open(self.file, "wb") as file:
            file.truncate(size)
        words = {"qemu-nbd": ["-t", "-e", "16", "-x", "disk", "-f", "raw", "-k", self.socket,
                              "--discard=unmap", self.file],
                 "nbdkit": ["-f", "-U", self.socket, "file", self.file]}[kind]
        self.command = [kind, *map(str, words)]
        self.uri = f"nbd+unix:///{'disk' if kind == 'qemu-nbd' else ''}?socket={self.socket}"
        self.start()

    def start(self):
        if os.path.exists(self.socket):
            os.unlink(self.socket)
        # pylint: disable-next=consider-using-with
        self.process = subprocess.Popen(self.command)
        deadline = time.monotonic() + SECONDS
        while not os.path.exists(self.socket):
            assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def kill_and_start(self):
        self.kill()
        self.start()


@pytest.mark.parametrize("kind", ["qemu-nbd", "nbdkit"])
def test_other_servers_over_kills(kind, tmp_path):
    need(kind)
    size = 32 * MIB
    other = OtherServer(kind, tmp_path, size)
    content = bytearray(size)
    try:
        with Derived(tmp_path, other.uri) as derived:
            load_over_kills(derived.uri(), content, other.kill_and_start)
            assert read_all(derived.uri(), size) == content
        assert other.file.read_bytes() == content
    finally:
        other.kill()


def test_fio_verifies_what_it_wrote(service, image, tmp_path):
    need("fio")
    volumes, (image_id, path) = Volumes(service), image
    volume = volumes.create(imageRef=image_id)
    attachment, connection = volumes.attach(volume)
    with Derived(tmp_path, connection["uri"], "--image", image_id, "--origin", path) as derived:
        for job in (["--rw=randwrite", "--bsrange=512-64k", "--iodepth=32"],
                    ["--rw=randrw", "--bs=4k", "--iodepth=64", "--fsync=64"],
                    ["--rw=write", "--bs=1m", "--iodepth=8"]):
            done = run("fio", "--name=job", "--ioengine=nbd", f"--uri={derived.uri()}",
                       "--size=64m", "--io_size=32m", "--randrepeat=0", "--verify=crc32c",
                       "--verify_fatal=1", *job, cwd=tmp_path)
            assert "err= 0" in done.stdout, done.stdout
    volumes.detach(attachment)
    volumes.wait("volume", volume, "available")
    volumes.delete(volume)
