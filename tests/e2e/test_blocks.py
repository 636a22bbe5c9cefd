"""Images and snapshots as the blocks that are stored, and boot traces: another implementation of
what imaged/API.md says, in Python."""

import collections
import ctypes
import os
import struct

import pytest

from nbd_tools import need, qemu_io
from service import USER_PASSWORD, Images, Service, call
from volumes import Volumes

CHUNK = 4 << 20
BLOCKS = "application/vnd.quarry.blocks.v1"
LIST = "application/vnd.quarry.chunk-list.v1"
TRACE = "application/vnd.quarry.boot-trace.v1"
ENTRY = struct.Struct("<16s16sIIHH")
TABLE, SOME, OTHER = 0, 1, 2


@pytest.fixture(name="service", scope="module")
def running():
    with Service(options=["--store.gc-interval=0s"]) as service:
        yield service
        assert service.stop() == 0


def text(size):
    lines = b"".join(b"line %d of some text\n" % i for i in range(size // 16))
    return lines[:size]


def disk():
    """A raw chunk, two holes, text, one of both kinds, and a short end."""
    return (os.urandom(CHUNK) + bytes(2 * CHUNK) + text(CHUNK) + os.urandom(CHUNK // 2) +
            text(CHUNK // 2) + b"the end")


def image_url(service, image):
    return f"{service.base}/image/v2/quarry/images/{image}"


def snapshot_url(volumes, snapshot):
    return f"{volumes.url}/quarry/snapshots/{snapshot}"


def decompress(frame, size):
    zstd = ctypes.CDLL("libzstd.so.1")
    zstd.ZSTD_decompress.restype = ctypes.c_size_t
    out = ctypes.create_string_buffer(size)
    count = zstd.ZSTD_decompress(out, ctypes.c_size_t(size), frame, ctypes.c_size_t(len(frame)))
    assert count == size
    return out.raw


class Blocks:
    """One image or snapshot, as one user."""

    def __init__(self, url, token):
        self.url, self.token = url, token

    def call(self, method, last, body=None, kind=None, accept="*/*"):
        headers = {"X-Auth-Token": self.token, "Accept": accept}
        if kind:
            headers["Content-Type"] = kind
        return call(method, f"{self.url}/{last}", body, headers)

    @staticmethod
    def request(items):
        """Items are (chunk, None) for a table, (chunk, numbers) for blocks."""
        body = b"QBRQ" + struct.pack("<HHII", 1, 0, len(items), 0)
        for chunk, numbers in items:
            numbers = numbers or []
            body += struct.pack("<IHH", chunk, SOME if numbers else TABLE, len(numbers))
            body += struct.pack(f"<{len(numbers)}H", *numbers)
        return body

    def post(self, items):
        return self.call("POST", "blocks", self.request(items), BLOCKS)

    def ask(self, items):
        """(size, name of the data, for each item (how, [(entry, plain bytes or None)]))."""
        reply = self.post(items)
        assert (reply.status, reply.headers["Content-Type"]) == (200, BLOCKS), reply.body
        body = reply.body
        assert body[:8] == b"QBLK" + struct.pack("<HH", 1, 0)
        size, = struct.unpack_from("<Q", body, 8)
        data, at, answers = body[16:32], 32, []
        for chunk, numbers in items:
            found, how, count = struct.unpack_from("<IHH", body, at)
            assert found == chunk
            at += 8
            entries = [ENTRY.unpack_from(body, at + i * ENTRY.size) for i in range(count)]
            at += count * ENTRY.size
            if numbers is None:
                assert how == TABLE
                answers.append((how, [(entry, None) for entry in entries]))
                continue
            blocks = []
            for entry in entries:
                _, _, plain, stored, _, form = entry
                raw = body[at:at + stored]
                at += stored
                blocks.append((entry, decompress(raw, plain) if form else raw))
            if how == SOME:
                assert [entry[4] for entry in entries] == numbers
            answers.append((how, blocks))
        assert at == len(body)
        return size, data, answers

    def tables(self, chunks):
        return [[entry for entry, _ in blocks]
                for _, blocks in self.ask([(chunk, None) for chunk in chunks])[2]]

    def names(self, chunks):
        return [[entry[0] for entry in table] for table in self.tables(chunks)]

    def read(self):
        """All of it, by tables and then blocks."""
        size, _, _ = self.ask([])
        chunks = range((size + CHUNK - 1) // CHUNK)
        tables = self.tables(chunks)
        wanted = [(chunk, list(range(len(tables[chunk])))) for chunk in chunks if tables[chunk]]
        content = bytearray(size)
        for (chunk, _), (how, blocks) in zip(wanted, self.ask(wanted)[2]):
            assert how == SOME
            plain = b"".join(block for _, block in blocks)
            content[chunk * CHUNK:chunk * CHUNK + len(plain)] = plain
        return bytes(content)


def blocks_of(service, image, token=None):
    return Blocks(image_url(service, image), token or service.token())


@pytest.fixture
def images(service):
    return Images(service)  # for each test: a new start has a new port


Alice = collections.namedtuple("Alice", "project token")


@pytest.fixture(scope="module")
def alice(service):
    """A member of another project."""
    project = service.new_member("alice", "red")
    return Alice(project, service.token("alice", USER_PASSWORD, "red"))


def test_the_blocks_are_the_image(service, images):
    data = disk()
    image = images.make(data)
    blocks = blocks_of(service, image)
    assert blocks.read() == data
    tables = blocks.tables(range(6))
    assert [bool(table) for table in tables] == [True, False, False, True, True, True]
    # The text is stored in less, and comes so.
    assert sum(entry[3] for entry in tables[3]) < CHUNK // 3
    # Some blocks, in any order of chunks.
    _, _, answers = blocks.ask([(4, [1, 3]), (0, [0]), (3, None), (4, [0])])
    assert answers[0][1][0][0] == tables[4][1]
    first = tables[4][0][2]
    begin = 4 * CHUNK + first
    assert answers[0][1][0][1] == data[begin:begin + tables[4][1][2]]
    assert answers[3][1][0][1] == data[4 * CHUNK:4 * CHUNK + first]
    # Numbers that a chunk has not are told apart from a broken answer.
    assert [how for how, _ in blocks.ask([(1, [0]), (5, [1]), (5, [0])])[2]] == [OTHER, OTHER, SOME]


def test_names_last_and_are_equal_where_bytes_are(service, images):
    data = disk()
    one, two = images.make(data), images.make(data[3 * CHUNK:])
    names = blocks_of(service, one).names(range(6))
    assert blocks_of(service, two).names(range(3)) == names[3:]
    flat = [name for table in names for name in table]
    assert len(flat) > 100
    before = blocks_of(service, one).ask([])[1]
    assert before != blocks_of(service, two).ask([])[1]
    service.stop()
    service.start()
    assert blocks_of(service, one).names(range(6)) == names
    assert blocks_of(service, one).ask([])[1] == before


def test_snapshots_are_read_in_the_same_way(service, images):
    need("qemu-io")
    volumes = Volumes(service)
    data = disk()
    volume = volumes.create(imageRef=images.make(data))
    attachment, info = volumes.attach(volume)
    qemu_io(info["uri"], f"write -P 7 {CHUNK + 4096} 4096")
    volumes.detach(attachment)
    snapshot = volumes.snapshot(volume)
    blocks = Blocks(snapshot_url(volumes, snapshot), service.token())
    while (reply := blocks.call("GET", "chunks")).status == 503:
        pass  # it is being put into the chunk store
    assert (reply.status, reply.headers["Content-Type"]) == (200, LIST), reply.body
    _, _, _, size, first, count, _ = struct.unpack_from("<4sHHQQII", reply.body)
    assert (size, first, count) == (1 << 30, 0, 256)
    ids = [reply.body[at:at + 32] for at in range(32, len(reply.body), 32)]
    assert [any(each) for each in ids[:7]] == [True, True, False, True, True, True, False]
    written = bytearray(data.ljust(1 << 30, b"\0"))
    written[CHUNK + 4096:CHUNK + 8192] = b"\7" * 4096
    assert blocks.read() == bytes(written)
    assert blocks.call("GET", "chunks?from=257").status == 400
    assert blocks.post([(256, None)]).status == 400
    assert blocks.call("POST", "blocks", b"{}", "application/json").status == 415
    assert blocks.call("POST", "blocks", b"", BLOCKS, "application/json").status == 406


def test_nobody_elses(service, images, alice):
    volumes = Volumes(service)
    data = disk()
    image = images.make(data)
    snapshot = volumes.snapshot(volumes.create())
    nobodys = "00000000-0000-4000-8000-000000000000"
    her_volumes = Volumes(service, alice.token)
    answers = {}
    for item in (image, nobodys):
        hers = blocks_of(service, item, alice.token)
        replies = [hers.post([(0, None)]), hers.post([]), hers.call("GET", "trace"),
                   hers.call("PUT", "trace", b"", TRACE), hers.call("DELETE", "trace")]
        assert {reply.status for reply in replies} == {404}
        answers[item] = [reply.body.replace(item.encode(), b"") for reply in replies]
    assert answers[image] == answers[nobodys]
    for item in (snapshot, nobodys):
        hers = Blocks(snapshot_url(her_volumes, item), alice.token)
        assert hers.post([(0, None)]).status == hers.call("GET", "chunks").status == 404
    for url in (image_url(service, image), snapshot_url(volumes, snapshot)):
        assert call("POST", url + "/blocks", b"").status == 401
    # Shared with her it is there, and gone when that ends.
    reply = images.call("POST", f"/{image}/members", {"member": alice.project})
    assert reply.status == 200, reply.body
    shared = blocks_of(service, image, alice.token)
    assert shared.read() == data
    assert images.call("DELETE", f"/{image}/members/{alice.project}").status == 204
    assert shared.post([(0, None)]).status == 404


def test_names_tell_her_nothing_of_others(service, images, alice):
    hers = Images(service, alice.token)
    common = os.urandom(CHUNK // 2)
    others = images.make(common + os.urandom(CHUNK // 2))
    # Half of her chunk is in somebody's image.
    mine = hers.make(os.urandom(CHUNK // 4) + common + os.urandom(CHUNK // 4))
    lone = hers.make(os.urandom(CHUNK))
    names = blocks_of(service, mine, alice.token).names([0])[0]
    # Names of her chunk alone: as many as blocks, and the same whatever becomes of the others.
    assert len(set(names)) == len(names)
    assert images.call("DELETE", f"/{others}").status == 204
    assert service.quarry("gc").returncode == 0
    assert blocks_of(service, mine, alice.token).names([0])[0] == names
    # Asking is by places in what she may read: a name is no question.
    table = blocks_of(service, lone, alice.token).tables([0])[0]
    assert blocks_of(service, lone, alice.token).post([(1, None)]).status == 400
    assert table[0][0] not in names


def trace_of(data, runs):
    return (b"QBTR" + struct.pack("<HH", 1, 0) + data + struct.pack("<II", len(runs), 0) +
            b"".join(struct.pack("<IHH", *run) for run in runs))


def test_a_boot_trace_lives_with_the_image(service, images, alice):
    image, other = images.make(disk()), images.make(disk())
    blocks = blocks_of(service, image)
    assert blocks.call("GET", "trace").status == 404
    trace = trace_of(blocks.ask([])[1], [(3, 0, 2), (0, 5, 1), (3, 7, 1)])
    assert blocks.call("PUT", "trace", trace, TRACE).status == 204
    service.kill()
    service.start()
    images = Images(service)
    blocks = blocks_of(service, image)
    kept = blocks.call("GET", "trace", accept=TRACE)
    assert (kept.status, kept.headers["Content-Type"], kept.body) == (200, TRACE, trace)
    assert blocks.call("GET", "trace", accept="text/html").status == 406
    # That of another image, in another project or not.
    assert blocks_of(service, other).call("PUT", "trace", trace, TRACE).status == 409
    hers = Images(service, alice.token).make(disk())
    assert blocks_of(service, hers, alice.token).call("PUT", "trace", trace, TRACE).status == 409
    for bad in (b"", trace[:-1], trace + b"x", trace_of(trace[8:24], [(99, 0, 1)]),
                trace_of(trace[8:24], [(0, 0, 0)]), trace_of(trace[8:24], [(0, 0, 2), (0, 1, 1)])):
        assert blocks.call("PUT", "trace", bad, TRACE).status == 400
    assert blocks.call("PUT", "trace", bytes((1 << 20) + 1), TRACE).status == 413
    assert blocks.call("PUT", "trace", trace, "application/json").status == 415
    assert blocks.call("GET", "trace").body == trace
    # Whoever may read it may not write it.
    made = images.call("PATCH", f"/{image}",
                       b'[{"op": "replace", "path": "/visibility", "value": "public"}]',
                       {"Content-Type": "application/openstack-images-v2.1-json-patch"})
    assert made.status == 200, made.body
    for_her = blocks_of(service, image, alice.token)
    assert for_her.call("GET", "trace").body == trace
    assert for_her.call("PUT", "trace", trace, TRACE).status == 403
    assert for_her.call("DELETE", "trace").status == 403
    assert blocks.call("DELETE", "trace").status == 204
    assert blocks.call("GET", "trace").status == 404
    assert blocks.call("PUT", "trace", trace, TRACE).status == 204
    assert images.call("DELETE", f"/{image}").status == 204
    assert blocks.call("GET", "trace").status == 404
