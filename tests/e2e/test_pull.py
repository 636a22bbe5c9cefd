"""`quarry image pull`: fetches what is lacking here, goes on after a break, believes nobody."""

import hashlib
import json
import os
import struct
import subprocess
import sys
import threading
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import service as quarry  # noqa: E402
from between import Behind  # noqa: E402

CHUNK = 4 << 20
LIST_TYPE = "application/vnd.quarry.chunk-list.v1"
BYTES_TYPE = "application/vnd.quarry.chunk-bytes.v1"
pytestmark = pytest.mark.usefixtures("forward_all")


def run(service, image, target, *options):
    return subprocess.run([quarry.QUARRY, "image", "pull", image, str(target), *options],
                          capture_output=True, env=service.as_user(), timeout=120)


def pull(service, image, target, *options):
    done = run(service, image, target, "--json", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def noise(chunks):
    return os.urandom(chunks * CHUNK)


def disk():
    """Ten chunks of data, three holes, and a short end."""
    return noise(6) + bytes(3 * CHUNK) + noise(4) + os.urandom(1000)


DATA = disk()
HOLES = 3 * CHUNK


@pytest.fixture(scope="module")
def image(world):
    return quarry.Images(world).make(DATA, "wanted")


def part_of(target, image):
    return target.with_name(f"{target.name}.{image}.part")


def chunk_list(ids, size, first=0):
    return b"QCHL" + struct.pack("<HHQQII", 1, 0, size, first, len(ids), 0) + b"".join(ids)


def ids_of(data):
    chunks = [data[at:at + CHUNK] for at in range(0, len(data), CHUNK)]
    return [hashlib.sha256(c).digest() if any(c) else bytes(32) for c in chunks]


def test_twice_and_from_what_is_here(world, image, tmp_path):
    target = tmp_path / "copy.raw"
    first = pull(world, image, target)
    assert target.read_bytes() == DATA
    assert first["verified"] and first["bytes_already_here"] == 0
    assert first["bytes_zero"] == HOLES
    assert len(DATA) - HOLES < first["bytes_fetched"] < (len(DATA) - HOLES) * 1.001 + 1000
    assert target.stat().st_blocks * 512 < len(DATA) - HOLES + CHUNK, "holes were not kept"

    refused = run(world, image, target)
    assert refused.returncode == 1 and b"--force" in refused.stderr
    again = pull(world, image, target, "--force")
    assert again["bytes_fetched"] < 1000
    assert again["bytes_already_here"] == len(DATA) - HOLES
    assert target.read_bytes() == DATA

    # A sibling: two chunks differ, and one has moved to another place.
    changed = bytearray(DATA)
    changed[17] ^= 1
    changed[10 * CHUNK] ^= 1
    changed[7 * CHUNK:8 * CHUNK] = changed[2 * CHUNK:3 * CHUNK]
    sibling = quarry.Images(world).make(bytes(changed), "sibling")
    other = tmp_path / "other.raw"
    nothing = tmp_path / "nothing.raw"
    nothing.write_bytes(b"has nothing of it")
    done = run(world, sibling, other, "--from", f"{nothing},{target}")
    assert done.returncode == 0, done.stderr
    assert other.read_bytes() == changed
    assert b"fetched 8.0 MiB of 52.0 MiB; 81 % was here" in done.stdout, done.stdout
    assert target.read_bytes() == DATA, "it was only to be read"


def test_a_missing_source_is_said_before_anything_is_done(world, image, tmp_path):
    target = tmp_path / "copy.raw"
    done = run(world, image, target, "--from", str(tmp_path / "none"))
    assert done.returncode == 1 and b"none" in done.stderr, done.stderr
    done = run(world, image, target, "--from", str(tmp_path))
    assert done.returncode == 1 and b"is a directory" in done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == []


def partial_answer(world, path, body, length):
    """The service's own answer of plain bytes, cut off: for a proxy to send."""
    headers = {"X-Auth-Token": world.token(), "Accept": BYTES_TYPE,
               "Content-Type": "application/json"}
    whole = quarry.call("POST", world.base + path, body, headers)
    assert whole.status == 200 and len(whole.body) > length
    return (f"HTTP/1.1 200 OK\r\nContent-Type: {BYTES_TYPE}\r\n"
            f"Content-Length: {len(whole.body)}\r\n\r\n").encode() + whole.body[:length]


def test_a_killed_pull_goes_on(world, image, tmp_path):
    target = tmp_path / "copy.raw"
    told = threading.Event()
    stop = threading.Event()

    def on(method, path, body):
        if method != "POST" or not path.endswith("/chunks"):
            return None

        def answer(handler):
            handler.wfile.write(partial_answer(world, path, body, 3 * CHUNK + 1000))
            handler.wfile.flush()
            told.set()
            stop.wait(60)
        return answer

    world.between.on = on
    process = subprocess.Popen([quarry.QUARRY, "image", "pull", image, str(target)],
                               env=world.as_user(), stderr=subprocess.DEVNULL)
    assert told.wait(60)
    part = part_of(target, image)

    def came():
        return part.exists() and part.read_bytes()[:3 * CHUNK] == DATA[:3 * CHUNK]

    deadline = time.monotonic() + 60
    while not came():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    stop.set()
    assert not target.exists()
    world.between.on = lambda method, path, body: None
    done = pull(world, image, target)
    assert done["resumed_bytes"] == done["bytes_already_here"] == 3 * CHUNK
    lacking = len(DATA) - HOLES - 3 * CHUNK
    assert lacking < done["bytes_fetched"] < lacking * 1.001 + 1000
    assert target.read_bytes() == DATA and not part.exists()


def test_a_part_that_rotted_is_mended(world, image, tmp_path):
    target = tmp_path / "copy.raw"
    rotten = bytearray(DATA)
    rotten[5 * CHUNK + 5] ^= 1          # data
    rotten[7 * CHUNK + 7] ^= 1          # a hole
    part_of(target, image).write_bytes(rotten + b"and more than there should be")
    done = pull(world, image, target)
    assert target.read_bytes() == DATA
    assert CHUNK < done["bytes_fetched"] < CHUNK + 5000
    assert done["resumed_bytes"] == len(DATA) - HOLES - CHUNK


def test_the_service_is_killed_in_the_middle(tmp_path):
    with Behind() as service:
        image = quarry.Images(service).make(DATA, "wanted")

        def on(method, path, body):
            if method != "POST" or not path.endswith("/chunks"):
                return None
            sent = partial_answer(service, path, body, 5 * CHUNK)
            service.kill()
            return lambda handler: handler.wfile.write(sent)

        service.between.on = on
        target = tmp_path / "copy.raw"
        done = run(service, image, target)
        assert done.returncode == 1 and b"the same command goes on" in done.stderr, done.stderr
        assert not target.exists()
        service.between.on = lambda method, path, body: None
        service.start()
        again = pull(service, image, target)
        assert again["resumed_bytes"] == 5 * CHUNK
        assert target.read_bytes() == DATA


@pytest.mark.parametrize("status", [404, 405, 406, 415])
def test_a_service_that_is_no_quarry_gives_all_of_it(world, image, tmp_path, status):
    seen = []

    def on(method, path, _):
        if "/quarry/" in path:
            seen.append(path)
            return status, b"no such thing"
        return None

    world.between.on = on
    target = tmp_path / "copy.raw"
    part_of(target, image).write_bytes(DATA[:2 * CHUNK])
    done = pull(world, image, target, "--from", str(target) + "." + image + ".part")
    assert len(seen) == 1
    assert target.read_bytes() == DATA
    assert done["resumed_bytes"] == 2 * CHUNK
    assert done["bytes_fetched"] == len(DATA) - 2 * CHUNK


def test_a_page_for_a_list_means_that_it_is_not_spoken(world, image, tmp_path):
    world.between.on = lambda method, path, _: (
        (200, b"<html>", {"Content-Type": "text/html"}) if "/quarry/" in path else None)
    target = tmp_path / "copy.raw"
    assert pull(world, image, target)["bytes_fetched"] == len(DATA)
    assert target.read_bytes() == DATA


def liar(list_answer=None, chunks_answer=None):
    def on(method, path, body):
        if not ("/quarry/" in path and "/chunks" in path):
            return None
        return list_answer if method == "GET" else chunks_answer
    return on


def as_list(body):
    return 200, body, {"Content-Type": LIST_TYPE}


def as_bytes(body, **headers):
    return 200, body, {"Content-Type": BYTES_TYPE, **headers}


def endless(first, again):
    """An answer that goes on for as long as somebody reads it."""
    def answer(handler):
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {BYTES_TYPE}\r\n{first}\r\n"
        handler.wfile.write(head.encode())
        try:
            while True:
                handler.wfile.write(again)
        except OSError:
            pass
    return answer


PLAIN = DATA[:6 * CHUNK] + DATA[9 * CHUNK:]  # what is asked for
IDS = ids_of(DATA)
LIES = {
    "other bytes": (liar(None, as_bytes(bytes(len(PLAIN)))), b"chunk 0 "),
    "other bytes later": (liar(None, as_bytes(PLAIN[:-1] + b"!")), b"chunk 13 "),
    "too few": (liar(None, as_bytes(PLAIN[:-1])), b"ends within chunk 13"),
    "too many": (liar(None, as_bytes(PLAIN + b"!")), b"more than the chunks"),
    "none": (liar(None, (204, b"", {})), b"ends within chunk 0"),
    "no end": (liar(None, endless("", PLAIN)), b"more than the chunks"),
    "no end of nothing": (
        liar(None, endless("Content-Encoding: zstd\r\n",
                           b"\x50\x2a\x4d\x18\x00\x00\x10\x00" + bytes(1 << 20))),
        b"more than the chunks"),
    "no zstd": (liar(None, as_bytes(PLAIN, **{"Content-Encoding": "zstd"})), b"no zstd"),
    "another coding": (liar(None, as_bytes(PLAIN, **{"Content-Encoding": "br"})), b"br"),
    "a page": (liar(None, (200, PLAIN, {"Content-Type": "text/html"})), b"text/html"),
    "a list of another size": (liar(as_list(chunk_list(IDS, len(DATA) + 1))), b"list of chunks"),
    "a list from elsewhere": (liar(as_list(chunk_list(IDS[1:], len(DATA), 1))), b"list of chunks"),
    "a list of nothing": (liar(as_list(chunk_list([], len(DATA)))), b"list of chunks"),
    "a list that is none": (liar(as_list(b"QCHL" + bytes(28))), b"bad chunk list"),
    "a list too long": (liar(as_list(chunk_list(IDS, len(DATA)) + b"!")), b"bad chunk list"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_service_is_not_believed(world, image, tmp_path, lie):
    on, words = LIES[lie]
    world.between.on = on
    target = tmp_path / "copy.raw"
    target.write_bytes(b"what was there before")
    done = run(world, image, target, "--force")
    assert done.returncode == 1 and words in done.stderr, done.stderr
    assert target.read_bytes() == b"what was there before"
    # What was right is kept, and what was wrong is not.
    world.between.on = lambda method, path, body: None
    assert pull(world, image, target, "--force")["verified"]
    assert target.read_bytes() == DATA


def test_lies_that_fit_each_other_are_not_the_image(world, image, tmp_path):
    other = bytes(b ^ 1 for b in DATA[:CHUNK]) + DATA[CHUNK:]
    plain = other[:6 * CHUNK] + other[9 * CHUNK:]
    world.between.on = liar(as_list(chunk_list(ids_of(other), len(DATA))), as_bytes(plain))
    target = tmp_path / "copy.raw"
    done = run(world, image, target)
    assert done.returncode == 1 and b"its digest differs" in done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_odd_images(world, tmp_path):
    images = quarry.Images(world)
    for name, data in (("empty", b""), ("tiny", b"x"), ("zeros", bytes(2 * CHUNK + 5)),
                       ("whole", noise(1) * 3)):
        image = images.make(data, name)
        target = tmp_path / name
        done = pull(world, image, target)
        assert target.read_bytes() == data, name
        assert done["bytes_zero"] == (len(data) if name == "zeros" else 0)
        # One chunk three times is one.
        assert done["bytes_fetched"] < CHUNK * 1.001 + 1000
