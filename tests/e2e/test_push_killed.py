"""`quarry image push`, and a service that is killed in the middle of it: the next try goes on."""

import json
import os
import select
import socket
import subprocess
import sys
import threading

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import service as quarry  # noqa: E402

CHUNK = 4 << 20
IMAGE_CHUNKS = 50
CUT_CHUNKS = 35
# What a service may have of a push, and not stored yet: its buffers for one upload, and a socket's.
LOST_CHUNKS = 16
# What is abandoned is collected soon.
LEASES = ["--store.lease=1s", "--store.gc-interval=100ms"]


class Relay:
    """Between clients and a service: counts what clients send, and holds it back after so many
    bytes until somebody is killed."""

    def __init__(self):
        self.target = None
        self.sent = 0
        self.limit = None
        self.held = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        try:
            service = socket.create_connection(self.target)
        except OSError:
            client.close()
            return
        with client, service:
            try:
                self.forward(client, service)
            except OSError:  # one of them is gone: so are we
                pass

    def forward(self, client, service):
        while True:
            holds = self.limit is not None and self.sent >= self.limit
            if holds:
                self.held.set()
            ready, _, _ = select.select([service] if holds else [client, service], [], [], 0.1)
            for source in ready:
                data = source.recv(1 << 16)
                if not data:
                    return
                if source is client:
                    self.sent += len(data)
                (service if source is client else client).sendall(data)

    def close(self):
        self.listener.close()


class Relayed(quarry.Service):
    """A service that is found through a relay, wherever it listens."""

    def __init__(self, relay, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.relay = relay
        self.options += ["--public-url=" + relay.url, *LEASES]

    def start(self):
        super().start()
        host, port = self.base.split("//")[1].split(":")
        self.relay.target = (host, int(port))
        return self

    def entrance(self):
        return self.relay.url


@pytest.fixture(name="relay")
def a_relay():
    relay = Relay()
    yield relay
    relay.close()


def start_push(service, path):
    return subprocess.Popen([quarry.QUARRY, "image", "push", path, "--json", "--name", "pushed"],
                            env=service.as_user(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def end_push(process):
    out, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return json.loads(out)


def cut_push(service, path, chunks=CUT_CHUNKS):
    """One that got so far, and stands still."""
    relay = service.relay
    relay.held.clear()
    relay.sent = 0
    relay.limit = chunks * CHUNK
    process = start_push(service, path)
    assert relay.held.wait(60), process.communicate()
    return process


def goes_on(service, path, data, sent_before):
    relay = service.relay
    relay.limit, relay.sent = None, 0
    again = end_push(start_push(service, path))
    twice = sent_before + relay.sent - len(data)
    assert twice < LOST_CHUNKS * CHUNK, f"{twice / CHUNK:.1f} chunks were sent twice"
    assert again["bytes_already_there"] > sent_before - LOST_CHUNKS * CHUNK
    body = quarry.Images(service).call("GET", f"/{again['id']}/file").body
    assert body == data
    return again


@pytest.mark.parametrize("client_dies", [False, True])
def test_a_push_into_a_service_that_is_killed_goes_on(relay, tmp_path, client_dies):
    data = os.urandom(IMAGE_CHUNKS * CHUNK - 1000)
    path = str(tmp_path / "large.raw")
    with open(path, "wb") as file:
        file.write(data)
    with Relayed(relay) as service:
        process = cut_push(service, path)
        if client_dies:
            process.kill()
        service.kill()
        said = process.communicate(timeout=60)[1]
        assert process.returncode != 0, said
        sent = relay.sent
        assert CUT_CHUNKS * CHUNK <= sent < len(data)
        service.start()
        assert all(image["status"] == "queued" for image in quarry.Images(service).list())
        again = goes_on(service, path, data, sent)
        nothing_is_left(service, again["id"])


def test_each_of_three_kills_costs_little(relay, tmp_path):
    """Parts of parts: what the second try named is kept as well."""
    data = os.urandom(IMAGE_CHUNKS * CHUNK)
    path = str(tmp_path / "large.raw")
    with open(path, "wb") as file:
        file.write(data)
    with Relayed(relay) as service:
        sent = 0
        for _ in range(3):
            process = cut_push(service, path, chunks=CUT_CHUNKS // 3)
            service.kill()
            process.communicate(timeout=60)
            sent += relay.sent
            service.start()
        again = goes_on(service, path, data, sent - 2 * LOST_CHUNKS * CHUNK)
        nothing_is_left(service, again["id"])


def nothing_is_left(service, image_id):
    """Once the image, the parts and what was abandoned are gone."""
    for image in quarry.Images(service).list():
        assert quarry.Images(service).call("DELETE", f"/{image['id']}").status == 204
    assert service.stop() == 0
    service.options.append("--image.kept-bytes=0")
    service.start()
    for _ in range(60):
        assert service.quarry("gc", "--orphans").returncode == 0
        stats = json.loads(service.quarry("stats", "--json").stdout)
        if stats["chunks"] == 0 and stats["holders"] == 0:
            return
        threading.Event().wait(1)
    raise AssertionError(stats)
