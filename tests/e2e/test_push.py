"""`quarry image push`: moves what is lacking, says so, and leaves nothing half done."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import service as quarry  # noqa: E402

CHUNK = 4 << 20
pytestmark = pytest.mark.usefixtures("forward_all")


def push(service, path, *options, environment=None, **kwargs):
    done = run(service, path, "--json", *options, environment=environment, **kwargs)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run(service, path, *options, environment=None, **kwargs):
    return subprocess.run([quarry.QUARRY, "image", "push", str(path), *options],
                          capture_output=True, env=environment or service.as_user(), timeout=60,
                          **kwargs)


def received(service, metric="quarry_http_received_bytes_total"):
    text = quarry.call("GET", service.base + "/metrics").body.decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(metric))


def write(path, data):
    with open(path, "wb") as file:
        for at in range(0, len(data), CHUNK):
            part = data[at:at + CHUNK]
            if any(part):
                file.seek(at)
                file.write(part)
        file.truncate(len(data))
    return path


def disk(seed_chunks=12):
    """Twelve chunks of data, three holes, and a short end."""
    return os.urandom(seed_chunks // 2 * CHUNK) + bytes(3 * CHUNK) + \
        os.urandom(seed_chunks // 2 * CHUNK - 1000)


def body(service, image):
    return quarry.Images(service).call("GET", f"/{image}/file").body


def test_a_changed_copy_sends_what_changed(world, tmp_path):
    data = disk()
    first = push(world, write(tmp_path / "base.raw", data))
    assert first["bytes_already_there"] == 0
    assert first["bytes_zero"] == 3 * CHUNK
    assert first["bytes_total"] == len(data) == first["size"]

    changed = bytearray(data)
    changed[CHUNK + 17] ^= 1
    changed[10 * CHUNK] ^= 1
    copy = write(tmp_path / "copy.raw", changed)
    before = received(world)
    named = received(world, "quarry_imaged_uploaded_named_bytes_total")
    second = push(world, copy)
    wire = received(world) - before
    named = received(world, "quarry_imaged_uploaded_named_bytes_total") - named
    assert named == second["bytes_already_there"]
    # Of two chunks one block each, of at most 128 KiB.
    assert len(data) - 3 * CHUNK - (256 << 10) <= second["bytes_already_there"] < \
        len(data) - 3 * CHUNK
    assert second["bytes_already_there"] + second["bytes_zero"] + second["bytes_sent"] < \
        len(data) + 6000
    # The rest of it: logging in, creating the image.
    assert second["bytes_sent"] <= wire < second["bytes_sent"] + 4000
    assert body(world, second["id"]) == changed
    assert second["os_hash_value"] and second["status"] == "active"

    # For a person: 10 of 12 chunks; then everything.
    changed[3 * CHUNK:5 * CHUNK] = os.urandom(2 * CHUNK)
    write(copy, changed)
    done = run(world, copy, "--name", "third")
    assert done.returncode == 0, done.stderr
    assert b"already there: 83 %, 8.0 MiB sent" in done.stdout
    done = run(world, copy, "--name", "fourth")
    assert b"already there: 100 %, 1023 B sent" in done.stdout, done.stdout
    before = received(world)
    done = run(world, copy, "--name", "fourth")
    assert b"already there: 100 %, nothing sent" in done.stdout, done.stdout
    assert received(world) - before < 4000


def upgraded(data):
    """Pages changed, inserted and gone here and there, as a file system does it: each chunk of
    data differs, and most of what it has lies elsewhere in the old image."""
    pages = [data[at:at + 4096] for at in range(0, len(data), 4096)]
    for at in range(len(pages) - 10, 0, -500):
        pages[at] = os.urandom(4096)
        if at % 1000 < 500:
            pages.insert(at, os.urandom(4096))
        else:
            del pages[at + 3]
    return b"".join(pages)


def test_blocks_within_chunks_are_not_sent_again(world, tmp_path):
    data = disk()
    push(world, write(tmp_path / "old.raw", data))
    new = upgraded(data)
    path = write(tmp_path / "new.raw", new)
    before = received(world)
    pushed = push(world, path)
    wire = received(world) - before
    nonzero = len(new) - pushed["bytes_zero"]
    assert wire < 0.4 * nonzero, (wire, nonzero)
    assert pushed["bytes_already_there"] > 0.6 * nonzero
    assert body(world, pushed["id"]) == new
    # Not by one who could not download the old one; nor is he told of it.
    world.new_member("carol", "blue")
    alice = world.as_user("carol", quarry.USER_PASSWORD, "blue")
    hers = push(world, path, environment=alice)
    assert hers["bytes_already_there"] == 0 and hers["bytes_sent"] > 0.95 * nonzero
    assert body(world, hers["id"]) == new


def test_blocks_of_an_image_that_goes_meanwhile(world, tmp_path):
    """Refused twice, then chunks come whole."""
    data = disk()
    push(world, write(tmp_path / "old.raw", data))
    new = upgraded(data)
    kinds = []

    def on(method, path, sent):
        if method == "PUT" and path.endswith("/file"):
            kinds.append(3 in sent[16:16 + 33 * chunks:33])  # some are assembled
            if kinds[-1]:
                return 409, b"not there"
        return None

    chunks = -(-len(new) // CHUNK)
    world.between.on = on
    pushed = push(world, write(tmp_path / "new.raw", new))
    assert kinds == [True, True, False]
    assert body(world, pushed["id"]) == new


def test_a_service_of_version_1(world, tmp_path):
    """It names no images that are alike, and gets whole chunks."""
    data = disk()
    push(world, write(tmp_path / "old.raw", data))
    changed = bytearray(data)
    changed[CHUNK + 17] ^= 1
    kinds = []

    def on(method, path, sent):
        if method == "POST" and path.endswith("/wanted"):
            return 200, b'{"wanted":[[1,1]]}'
        if method == "PUT" and path.endswith("/file"):
            kinds.append(sent[4])
        return None

    world.between.on = on
    pushed = push(world, write(tmp_path / "new.raw", changed))
    assert kinds == [1]
    assert CHUNK < pushed["bytes_sent"] < CHUNK + 2000
    assert body(world, pushed["id"]) == changed


def test_what_is_sent_is_compressed(world, tmp_path):
    """By a service that takes it so; whole chunks, and the blocks that are new of others."""
    lines = b"".join(b"%d bottles on the wall\n" % (i * i) for i in range(300_000))
    data = lines[:CHUNK] + os.urandom(CHUNK) + lines[CHUNK:][:CHUNK - 5000]
    path = write(tmp_path / "text.raw", data)
    before = received(world)
    pushed = push(world, path)
    wire = received(world) - before
    assert body(world, pushed["id"]) == data
    assert CHUNK < pushed["bytes_sent"] <= wire < 1.6 * CHUNK, wire
    changed = bytearray(data)
    changed[2 * CHUNK + 9:2 * CHUNK + 200_009] = b"".join(
        b"%d bottles fell\n" % (i * i) for i in range(20_000))[:200_000]
    pushed = push(world, write(tmp_path / "changed.raw", changed))
    assert body(world, pushed["id"]) == changed
    assert pushed["bytes_sent"] < 100_000, pushed

    # One that does not say so gets it plainly, assembled all the same.
    seen = []

    def on(method, target, sent):
        if method == "POST" and target.endswith("/wanted"):
            reply = quarry.call(method, world.base + target, sent, {
                "X-Auth-Token": world.token(),
                "Content-Type": "application/vnd.quarry.chunk-list.v1"})
            answer = json.loads(reply.body)
            del answer["encodings"]
            return 200, json.dumps(answer).encode()
        if method == "PUT" and target.endswith("/file"):
            seen.append(tuple(sent[4:8]))
        return None

    world.between.on = on
    changed[CHUNK + 1] ^= 1
    changed[2 * CHUNK + 50_000:2 * CHUNK + 150_000] = lines[-100_000:]
    pushed = push(world, write(tmp_path / "again.raw", changed))
    assert seen == [(2, 0, 0, 0)]
    assert body(world, pushed["id"]) == changed
    assert 100_000 < pushed["bytes_sent"] < 1_000_000


def test_another_project_is_told_nothing(world, tmp_path):
    data = disk()
    mine = push(world, write(tmp_path / "mine.raw", data))
    world.new_member("alice", "red")
    alice = world.as_user("alice", quarry.USER_PASSWORD, "red")
    hers = push(world, tmp_path / "mine.raw", environment=alice)
    assert hers["bytes_already_there"] == 0 and hers["bytes_sent"] > len(data) - 3 * CHUNK
    reply = quarry.Images(world).call(
        "PATCH", f"/{mine['id']}", b'[{"op": "replace", "path": "/visibility", "value": "public"}]',
        {"Content-Type": "application/openstack-images-v2.1-json-patch"})
    assert reply.status == 200, reply.body
    # Her own copy and the public image: one is enough.
    assert quarry.Images(world).call("DELETE", f"/{hers['id']}").status == 204
    again = push(world, tmp_path / "mine.raw", "--name", "again", environment=alice)
    assert again["bytes_already_there"] == len(data) - 3 * CHUNK


@pytest.mark.parametrize("status", [404, 405, 415])
def test_a_service_that_is_no_quarry_gets_all_of_it(world, tmp_path, status):
    seen = []

    def on(method, path, _):
        if "/quarry/" in path:
            seen.append(path)
            return status, b"no such thing"
        return None

    data = disk()
    push(world, write(tmp_path / "image.raw", data))
    world.between.on = on
    pushed = push(world, tmp_path / "image.raw", "--again")
    assert len(seen) == 1
    assert pushed["bytes_sent"] == pushed["bytes_total"] == len(data)
    assert pushed["bytes_already_there"] == 0
    assert body(world, pushed["id"]) == data


def test_the_owner_of_what_is_named_goes_meanwhile(world, tmp_path):
    data = disk()
    owner = push(world, write(tmp_path / "image.raw", data))
    puts = []

    def on(method, path, _):
        if method == "PUT" and path.endswith("/file"):
            puts.append(path)
            if len(puts) == 1:
                assert quarry.Images(world).call("DELETE", f"/{owner['id']}").status == 204
                assert world.quarry("gc").returncode == 0
        return None

    world.between.on = on
    pushed = push(world, tmp_path / "image.raw", "--again")
    assert len(puts) == 2
    assert pushed["bytes_already_there"] == 0
    assert pushed["bytes_sent"] > len(data) - 3 * CHUNK
    assert body(world, pushed["id"]) == data


def test_a_service_that_takes_back_its_word_gets_all_of_it(world, tmp_path):
    data = disk()
    push(world, write(tmp_path / "image.raw", data))
    puts = []

    def on(method, path, sent):
        if method == "PUT" and path.endswith("/file"):
            puts.append(len(sent))
            if len(sent) < len(data):
                return 409, b"not there"
        return None

    world.between.on = on
    pushed = push(world, tmp_path / "image.raw", "--again")
    assert len(puts) == 4 and puts[3] == len(data)
    assert pushed["bytes_already_there"] == 0 and pushed["bytes_sent"] > len(data)
    assert body(world, pushed["id"]) == data


@pytest.mark.parametrize("plain", [False, True])
def test_a_file_that_changes_is_an_error_and_leaves_nothing(world, tmp_path, plain):
    path = write(tmp_path / "image.raw", disk())
    before = len(quarry.Images(world).list())

    def on(method, target, sent):
        if method == "POST" and "/quarry/" in target:
            if plain:
                return 404, b""
            if len(sent) > 32:  # it was hashed by now
                with open(path, "r+b") as file:
                    file.seek(5 * CHUNK)
                    file.write(b"changed")
        if plain and method == "POST" and target.endswith("/images"):
            with open(path, "r+b") as file:
                file.write(b"changed")
        return None

    world.between.on = on
    done = run(world, path, "--name", f"changing-{plain}")
    assert done.returncode == 1
    assert b"changed while it was pushed" in done.stderr, done.stderr
    assert b"nothing is left of it" in done.stderr
    assert len(quarry.Images(world).list()) == before


def test_through_a_pipe(world, tmp_path):
    # Without the proxy, which knows no chunked bodies.
    with quarry.Service() as service:
        data = disk()
        pushed = push(service, "-", input=data)
        assert pushed["name"] == "stdin" and pushed["size"] == len(data) == pushed["bytes_sent"]
        assert body(service, pushed["id"]) == data
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        writer = threading.Thread(target=lambda: open(fifo, "wb").write(b"QFI\xfb" + bytes(100)))
        writer.start()
        done = run(service, fifo)
        writer.join()
        # The format is told by the first bytes, and the service looks closer.
        assert done.returncode == 1 and b"qcow2" in done.stderr, done.stderr


def test_odd_files(world, tmp_path):
    empty = push(world, write(tmp_path / "empty", b""))
    assert empty["size"] == 0 and empty["bytes_sent"] < 100
    zeros = run(world, write(tmp_path / "zeros", bytes(3 * CHUNK + 5)))
    assert b"nothing but zeros" in zeros.stdout, zeros.stderr
    for path, words in ((tmp_path, b"directory"), (tmp_path / "none", b"No such file")):
        done = run(world, path)
        assert done.returncode == 1 and words in done.stderr, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_push_leaves_nothing(number):
    with quarry.Service() as service:
        images = quarry.Images(service)
        push_process = subprocess.Popen(
            [quarry.QUARRY, "image", "push", "-", "--name", "broken-off"], stdin=subprocess.PIPE,
            stderr=subprocess.PIPE, env=service.as_user())
        push_process.stdin.write(os.urandom(CHUNK))  # the rest never comes
        push_process.stdin.flush()
        deadline = time.monotonic() + 30
        while not any(image["status"] == "saving" for image in images.list()):
            assert time.monotonic() < deadline, images.list()
            time.sleep(0.05)
        push_process.send_signal(number)
        said = push_process.communicate(timeout=30)[1]
        assert push_process.returncode == 128 + number, said
        assert b"nothing is left" in said, said
        assert images.list() == []


def test_a_killed_push_goes_on():
    """Less than a batch of 64 chunks is sent twice: what was on its way when the client died."""
    with quarry.Service() as service:
        data = os.urandom(40 * CHUNK)
        with tempfile.TemporaryDirectory() as folder:
            path = write(os.path.join(folder, "large.raw"), data)
            images = quarry.Images(service)
            before = received(service)
            process = subprocess.Popen([quarry.QUARRY, "image", "push", path, "--name", "killed"],
                                       env=service.as_user(), stderr=subprocess.DEVNULL)

            def bytes_read():
                with open(f"/proc/{process.pid}/io", encoding="ascii") as io:
                    return int(io.read().split()[1])

            # Once to be hashed; then twelve chunks to be sent.
            while bytes_read() < len(data) + 12 * CHUNK:
                pass
            process.kill()
            assert process.wait() == -signal.SIGKILL
            deadline = time.monotonic() + 60
            while any(image["status"] == "saving" for image in images.list()):
                assert time.monotonic() < deadline, images.list()
                time.sleep(0.02)
            again = push(service, path, "--name", "again")
            wire = received(service) - before
        assert again["bytes_already_there"] > 0
        assert wire < len(data) + 16 * CHUNK, "sent twice"
        assert body(service, again["id"]) == data


def test_what_is_known_costs_next_to_nothing(world, tmp_path):
    """Less than 0.5 % of the image on the wire."""
    data = disk(48)
    path = write(tmp_path / "image.raw", data)
    push(world, path)
    before = received(world)
    again = push(world, path, "--again")
    assert again["bytes_already_there"] == len(data) - 3 * CHUNK
    assert received(world) - before < len(data) / 200
