"""Faults that a machine shows for real: a full disk, a client that breaks off, many clients."""

import http.server
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import service as quarry  # noqa: E402

MIB = 1 << 20


@pytest.fixture
def small_disk():
    """A directory on a file system of its own, of 256 MiB."""
    with tempfile.TemporaryDirectory(prefix="quarry-small-") as path:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", path],
                                 capture_output=True, text=True)
        if mounted.returncode != 0:
            pytest.skip("NOT TESTED: a full disk under the service, because this user may not "
                        f"mount a tmpfs ({mounted.stderr.strip()})")
        try:
            yield path
        finally:
            subprocess.run(["umount", path], check=True)


def status_of(images, image_id):
    return images.show(image_id).json()["status"]


def wait_for_status(images, image_id, status):
    deadline = time.monotonic() + 20
    while status_of(images, image_id) != status and time.monotonic() < deadline:
        time.sleep(0.02)
    assert status_of(images, image_id) == status


def test_a_full_disk_refuses_uploads_and_loses_nothing(small_disk):
    with quarry.Service(data_dir=small_disk + "/data") as service:
        images = quarry.Images(service)
        kept_bytes = os.urandom(20 * MIB)
        kept = images.make(kept_bytes, "kept")
        victim = images.create("too large")["id"]
        try:
            reply = images.upload(victim, os.urandom(300 * MIB))
            assert reply.status in (503, 507), (reply.status, reply.body[:200])
        except OSError:
            pass  # the answer may come before all was sent, and the connection end
        wait_for_status(images, victim, "queued")
        assert images.call("GET", f"/{kept}/file").body == kept_bytes
        # Deleting works on the full disk, and what the upload took comes back.
        assert images.call("DELETE", f"/{victim}").status == 204
        collected = service.quarry("gc", "--json")
        assert collected.returncode == 0, collected.stderr
        stats = json.loads(service.quarry("stats", "--json").stdout)
        assert stats["unique_bytes"] == len(kept_bytes)
        again = os.urandom(40 * MIB)
        assert images.call("GET", f"/{images.make(again, 'fits')}/file").body == again


def test_an_upload_that_is_broken_off_leaves_nothing():
    with quarry.Service(options=["--store.gc-interval=0s"]) as service:
        images = quarry.Images(service)
        image = images.create()["id"]
        host, port = service.base.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            head = (f"PUT /image/v2/images/{image}/file HTTP/1.1\r\nHost: {host}\r\n"
                    f"X-Auth-Token: {images.headers['X-Auth-Token']}\r\n"
                    f"Content-Type: application/octet-stream\r\n"
                    f"Content-Length: {64 * MIB}\r\n\r\n")
            client.sendall(head.encode() + os.urandom(20 * MIB))
            wait_for_status(images, image, "saving")
        wait_for_status(images, image, "queued")
        assert images.call("GET", f"/{image}/file").status == 204
        assert service.quarry("gc").returncode == 0
        stats = json.loads(service.quarry("stats", "--json").stdout)
        assert stats["unique_bytes"] == 0 and stats["holders"] == 0
        # The same image takes another upload.
        data = os.urandom(MIB)
        assert images.upload(image, data).status == 204
        assert images.call("GET", f"/{image}/file").body == data


def test_more_connections_than_allowed_are_turned_away_and_others_go_on():
    with quarry.Service(options=["--http.max-connections=64"]) as service:
        host, port = service.base.removeprefix("http://").split(":")
        held = [socket.create_connection((host, int(port))) for _ in range(64)]
        held[0].sendall(f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert b" 200 " in held[0].recv(4096)
        with socket.create_connection((host, int(port))) as extra:
            extra.settimeout(20)
            answer = extra.recv(4096)
            assert b" 503 " in answer and b"Retry-After" in answer, answer
        held[1].sendall(f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert b" 200 " in held[1].recv(4096)
        for client in held:
            client.close()


def test_a_sparse_upload_costs_nothing():
    with quarry.Service() as service:
        images = quarry.Images(service)
        image = images.create()["id"]
        size = 8 << 30
        with tempfile.NamedTemporaryFile() as sparse:
            sparse.truncate(size)
            done = subprocess.run(
                ["curl", "-sS", "-f", "-X", "PUT", "-T", sparse.name,
                 "-H", f"X-Auth-Token: {images.headers['X-Auth-Token']}",
                 "-H", "Content-Type: application/octet-stream", f"{images.url}/{image}/file"],
                capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert images.show(image).json()["size"] == size
        stats = json.loads(service.quarry("stats", "--json").stdout)
        assert stats["logical_bytes"] == size and stats["unique_bytes"] == 0
        assert stats["physical_bytes"] < 64 * 1024


class DrippingWeb(http.server.BaseHTTPRequestHandler):
    """/drip sends a byte now and then and never ends; anything else is a small image at once."""

    def do_GET(self):
        self.send_response(200)
        if self.path != "/drip":
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(bytes(1000))
            return
        self.end_headers()
        try:
            while not self.server.stopping.is_set():
                self.wfile.write(b"x")
                self.wfile.flush()
                self.server.stopping.wait(0.2)
        except OSError:
            pass  # let go of: what the test is about

    def log_message(self, *_):
        pass


def test_deleting_an_import_that_drips_makes_room_for_another():
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), DrippingWeb)
    web.stopping = threading.Event()
    threading.Thread(target=web.serve_forever, daemon=True).start()
    port = web.server_port
    try:
        with quarry.Service(options=[f"--import.allowed-ports={port}", "--store.lease=600s",
                                     "--import.allowed-networks=127.0.0.0/8"]) as service:
            images = quarry.Images(service)

            def start(path):
                image = images.create()["id"]
                reply = images.call("POST", f"/{image}/import", {"method": {
                    "name": "web-download", "uri": f"http://127.0.0.1:{port}{path}"}})
                assert reply.status == 202, reply.body
                return image

            slow = [start("/drip") for _ in range(8)]
            for image in slow:
                wait_for_status(images, image, "importing")
            for image in slow:
                assert images.call("DELETE", f"/{image}").status == 204
            wait_for_status(images, start("/image"), "active")
    finally:
        web.stopping.set()
        web.shutdown()
