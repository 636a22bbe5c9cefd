"""`Accept-Encoding: zstd` on image data: who decodes by himself gets the image's bytes."""

import os
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import service as quarry  # noqa: E402

CHUNK = 4 << 20


def text(size):
    return b"".join(b"line %d of text\n" % i for i in range(size // 10))[:size]


@pytest.fixture(scope="module")
def world():
    with quarry.Service(options=["--image.checksum=inline"]) as service:
        yield service


@pytest.fixture(scope="module")
def data():
    """Raw chunks, compressed ones, one of both kinds, holes, and a short end."""
    return (os.urandom(2 * CHUNK) + text(3 * CHUNK) + bytes(4 * CHUNK) +
            os.urandom(CHUNK // 2) + text(CHUNK // 2) + text(3 * CHUNK) + b"the end")


@pytest.fixture(scope="module")
def url(world, data):
    image = quarry.Images(world).make(data, "mixture")
    return f"{world.base}/image/v2/images/{image}/file"


def curl(world, url, target, *options):
    done = subprocess.run(["curl", "-sS", "-f", "-o", str(target), "-H",
                           "X-Auth-Token: " + world.token(), *options, url],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_curl_decodes_by_itself(world, url, data, tmp_path):
    if "zstd" not in subprocess.run(["curl", "-V"], capture_output=True, text=True).stdout:
        pytest.skip("this curl is built without zstd")
    copy = tmp_path / "copy"
    head = tmp_path / "head"
    curl(world, url, copy, "--compressed", "-D", str(head))
    assert copy.read_bytes() == data
    assert "content-encoding: zstd" in head.read_text().lower()
    # The same without decoding: what was on the wire, less than half of it.
    raw = tmp_path / "raw"
    curl(world, url, raw, "-H", "Accept-Encoding: zstd")
    assert raw.stat().st_size < len(data) / 2
    # As often as one likes on one connection.
    twice = curl(world, url, copy, "--compressed", "-o", str(tmp_path / "again"), url, "-w",
                 "%{num_connects}\n").split()
    assert twice == ["1", "0"]
    assert (tmp_path / "again").read_bytes() == data


def test_the_rest_is_of_the_image(world, url, data):
    headers = {"X-Auth-Token": world.token()}
    plain = quarry.call("GET", url, None, headers)
    assert plain.body == data and "Content-Encoding" not in plain.headers
    frames = quarry.call("GET", url, None, {**headers, "Accept-Encoding": "zstd"})
    assert frames.headers["Content-Encoding"] == "zstd"
    for name in ("Content-MD5", "Content-Type", "Vary"):
        assert plain.headers[name] == frames.headers[name] is not None, name
    part = quarry.call("GET", url, None,
                       {**headers, "Accept-Encoding": "zstd", "Range": "bytes=5-9"})
    assert part.status == 206 and part.body == data[5:10]
    assert "Content-Encoding" not in part.headers
    for refused in ("zstd;q=0", "gzip", "*", "identity"):
        reply = quarry.call("HEAD", url, None, {**headers, "Accept-Encoding": refused})
        assert "Content-Encoding" not in reply.headers, refused
        assert int(reply.headers["Content-Length"]) == len(data)


def test_requests_gets_what_it_can_read(world, url, data):
    requests = pytest.importorskip("requests")
    reply = requests.get(url, headers={"X-Auth-Token": world.token()}, timeout=60)
    assert reply.status_code == 200 and reply.content == data
