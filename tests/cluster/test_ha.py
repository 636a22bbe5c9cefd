"""Processes that end, hang and are replaced, while a cloud of many of them is in use.

Whoever is told "done" must find it so whatever happens next, whoever isn't may ask again, and
nobody waits long. What happens is in EVENTS; HA_ROUNDS=N repeats them N times.
"""

import hashlib
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import uuid

import nbd
import pytest

import ceph
import ha

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from service import call  # noqa: E402

ROUNDS = int(os.environ.get("HA_ROUNDS", "1"))
# How long anything may be refused or unanswered: what a lease needs to run out, and a bit.
GAP_SECONDS = 10
STOPPED_SECONDS = 30
BLOCK = 4096
MIB = 1 << 20


@pytest.fixture(name="cloud", scope="module")
def running_cloud():
    cloud = ha.Cloud(tempfile.mkdtemp(prefix="quarry-ha-"))
    with ceph.guarded(cloud.ceph):
        try:
            cloud.up(osds=3, size=2, osd_gb=4)
            yield cloud
        finally:
            cloud.down()
            shutil.rmtree(cloud.folder, ignore_errors=True)


class Client:
    """Asks as a patient client does: what failed by the way is asked again, after a look whether it
    happened all the same. Notes how long it ever had to wait for an answer that counts."""

    def __init__(self, cloud):
        self.base = cloud.url
        self.longest_gap = 0.0
        reply = self.ask("POST", "/identity/v3/auth/tokens", {"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": "admin", "domain": {"id": "default"},
                "password": (cloud.folder / "password").read_text()}}},
            "scope": {"project": {"name": "admin", "domain": {"id": "default"}}}}})
        self.headers = {"X-Auth-Token": reply.headers["X-Subject-Token"]}
        self.project = reply.json()["token"]["project"]["id"]
        self.volumes = f"/volume/v3/{self.project}"

    def ask(self, method, path, body=None, headers=None, happened=None):
        """`happened`: what is asked before it is asked again; what it gives, if not None, is the
        answer. `body` may be made of the number of the attempt, and so may what happened."""
        began = time.monotonic()
        headers = {**getattr(self, "headers", {}), **(headers or {})}
        again = 0
        while True:
            try:
                if again and happened is not None and (found := happened(again - 1)) is not None:
                    break
                found = call(method, self.base + path, body(again) if callable(body) else body,
                             headers, timeout=2 * STOPPED_SECONDS)
                if found.status < 500:
                    break
            except OSError:
                pass
            again += 1
            waited = time.monotonic() - began
            assert waited < 2 * STOPPED_SECONDS, f"{method} {path}: no answer for {waited:.0f} s"
            time.sleep(0.1)
        if again:
            self.longest_gap = max(self.longest_gap, time.monotonic() - began)
        return found

    def named(self, collection, path, name):
        """The one of this name, if there is one; there are never two."""
        reply = call("GET", f"{self.base}{path}?name={name}", None, self.headers, timeout=60)
        if reply.status != 200:
            raise OSError(reply.status)
        found = reply.json()[collection]
        assert len(found) < 2, f"{name} was made twice"
        return found[0] if found else None

    def volume(self, name):
        # A process that hangs may do what it was asked once it wakes: another attempt has another
        # name, so that one never answered for is not taken for one made twice.
        path = self.volumes + "/volumes"
        made = self.ask("POST", path,
                        lambda attempt: {"volume": {"size": 1, "name": f"{name}.{attempt}"}},
                        {"OpenStack-API-Version": "volume 3.50"},
                        happened=lambda attempt: self.named("volumes", path, f"{name}.{attempt}"))
        assert isinstance(made, dict) or made.status == 202, made.body
        volume = made if isinstance(made, dict) else made.json()["volume"]
        self.wait_for(volume["id"], "available")
        return volume["id"]

    def wait_for(self, volume, status):
        give_up = time.monotonic() + 2 * STOPPED_SECONDS
        while True:
            reply = self.ask("GET", f"{self.volumes}/volumes/{volume}")
            assert reply.status == 200, reply.body
            now = reply.json()["volume"]["status"]
            if now == status:
                return
            assert now not in ("error", "error_deleting") and time.monotonic() < give_up, now
            time.sleep(0.05)

    def image(self, name, data):
        image = str(uuid.uuid5(uuid.NAMESPACE_OID, name))
        made = self.ask("POST", "/image/v2/images", {
            "id": image, "name": name, "disk_format": "raw", "container_format": "bare"})
        assert made.status in (201, 409), made.body  # 409: an attempt that got no answer

        def is_there(_=0):
            reply = call("GET", f"{self.base}/image/v2/images/{image}", None, self.headers)
            return reply if reply.status == 200 and reply.json()["status"] == "active" else None
        give_up = time.monotonic() + 3 * STOPPED_SECONDS
        while is_there() is None:
            # 409: what a process that ended had begun; its lease must end first.
            self.ask("PUT", f"/image/v2/images/{image}/file", data,
                     {"Content-Type": "application/octet-stream"}, happened=is_there)
            assert time.monotonic() < give_up, f"image {image} can't be uploaded"
        return image

    def attach(self, volume):
        reply = self.ask("POST", self.volumes + "/attachments", {"attachment": {
            "volume_uuid": volume, "instance_uuid": "6f4620d6-3fae-4b4f-9b0a-3c1f3f1c7b10",
            "connector": {"host": "here"}}}, {"OpenStack-API-Version": "volume 3.44"},
            happened=lambda _: self.attachment_of(volume))
        assert reply.status == 200, reply.body
        return reply.json()["attachment"]

    def attachment_of(self, volume):
        reply = call("GET", f"{self.base}{self.volumes}/attachments?volume_id={volume}", None,
                     {**self.headers, "OpenStack-API-Version": "volume 3.44"}, timeout=60)
        found = reply.json()["attachments"] if reply.status == 200 else []
        if not found:
            return None
        return call("GET", f"{self.base}{self.volumes}/attachments/{found[0]['id']}", None,
                    {**self.headers, "OpenStack-API-Version": "volume 3.44"}, timeout=60)


class Guest(threading.Thread):
    """Writes over NBD, reads back what it wrote, and connects again when it is cut off."""

    def __init__(self, uri):
        super().__init__()
        self.uri = uri
        self.stop = threading.Event()
        self.flushed = {}  # block: what it must hold
        self.longest_gap = 0.0
        self.connections = 0
        self.error = None

    def connect(self):
        client = nbd.NBD()
        client.connect_uri(self.uri)
        self.connections += 1
        return client

    def one_round(self, client, number):
        chance = random.Random(number)  # a round that is cut off and begun again is the same
        fresh = {chance.randrange(2048): (number * 7919 + i) % 251 for i in range(16)}
        for block, value in fresh.items():
            client.pwrite(bytes([value]) * BLOCK, block * BLOCK)
        client.flush()
        self.flushed.update(fresh)
        for block in random.sample(sorted(self.flushed), min(8, len(self.flushed))):
            assert client.pread(BLOCK, block * BLOCK) == bytes([self.flushed[block]]) * BLOCK

    def run(self):
        client, number, began = None, 0, time.monotonic()
        try:
            while not self.stop.is_set():
                try:
                    client = client or self.connect()
                    # What a cut-off round wrote may be there or not: its blocks are written again.
                    self.one_round(client, number)
                    self.longest_gap = max(self.longest_gap, time.monotonic() - began)
                    number, began = number + 1, time.monotonic()
                except nbd.Error:
                    client = None
                    assert time.monotonic() - began < 3 * STOPPED_SECONDS, "never comes back"
                    time.sleep(0.1)
        except Exception as error:  # for the test, which is another thread
            self.error = error


def load(client, number, stop, made):
    """Volumes and images, one after the other, until it is told to stop."""
    count = 0
    while not stop.is_set():
        name = f"of-{number}-{count}"
        data = random.Random(name).randbytes(5 * MIB)
        made["volumes"][name] = client.volume(name)
        made["images"][name] = (client.image(name, data), hashlib.sha256(data).hexdigest())
        count += 1


def killed(cloud, name):
    cloud.kill(name)
    time.sleep(2)
    cloud.start(name)


def stopped(cloud, name):
    cloud.kill(name, signal.SIGSTOP)
    time.sleep(STOPPED_SECONDS)
    cloud.kill(name, signal.SIGCONT)


def restarted(cloud, name):
    cloud.kill(name, signal.SIGTERM)
    cloud.start(name)


EVENTS = [(killed, name) for name in ("controlplane.1", "imaged.1", "blockd.1", "blockd.2",
                                      "blockd.3", "imaged.2")]
EVENTS += [(stopped, "imaged.3"), (stopped, "SERVING")]
EVENTS += [(restarted, f"{kind}.{number}") for kind in ha.KINDS
           for number in range(1, ha.EACH + 1)]


def serving(cloud, guest_volume):
    """The blockd whose log says that it opened the volume last."""
    last = {}
    for number in range(1, ha.EACH + 1):
        log = (cloud.folder / "log" / f"blockd.{number}.log").read_text(errors="replace")
        lines = [line for line in log.splitlines() if f"opened volume {guest_volume}" in line]
        if lines:
            last[lines[-1].split(" ", 1)[0]] = f"blockd.{number}"
    return last[max(last)]


def test_whatever_process_ends_or_hangs(cloud):
    client = Client(cloud)
    client.ask("PUT", f"{client.volumes}/os-quota-sets/{client.project}",
               {"quota_set": {"volumes": -1, "gigabytes": -1}})
    guest_volume = client.volume("of-a-guest")
    attachment = client.attach(guest_volume)
    guest = Guest(attachment["connection_info"]["uri"])
    guest.start()
    stop, made, errors = threading.Event(), {"volumes": {}, "images": {}}, []

    def guarded_load(number, mine):
        try:
            load(mine, number, stop, made)
        except BaseException as error:  # for the test, which is another thread
            errors.append(error)
    clients = [Client(cloud) for _ in range(3)]
    threads = [threading.Thread(target=guarded_load, args=(number, mine))
               for number, mine in enumerate(clients)]
    for thread in threads:
        thread.start()
    for _ in range(ROUNDS):
        for event, name in EVENTS:
            event(cloud, serving(cloud, guest_volume) if name == "SERVING" else name)
            assert not errors and guest.error is None, (event.__name__, name, errors, guest.error)
    stop.set()
    for thread in threads:
        thread.join()
    guest.stop.set()
    guest.join()
    assert not errors and guest.error is None, (errors, guest.error)

    gap = max(one.longest_gap for one in clients)
    print(f"\n{len(made['volumes'])} volumes, {len(made['images'])} images; longest wait for an "
          f"API {gap:.1f} s; the guest connected {guest.connections} times, longest gap "
          f"{guest.longest_gap:.1f} s", file=sys.stderr)
    assert made["volumes"] and made["images"] and guest.connections > 1
    check_all(cloud, client, made)
    check_guest(guest)
    assert guest.longest_gap < GAP_SECONDS
    assert gap < GAP_SECONDS


def check_guest(guest):
    client = nbd.NBD()
    client.connect_uri(guest.uri)
    for block, value in guest.flushed.items():
        assert client.pread(BLOCK, block * BLOCK) == bytes([value]) * BLOCK, f"block {block}"


def check_all(cloud, client, made):
    """Nothing is lost, nothing is there twice, and what is counted is what is there."""
    for name, volume in made["volumes"].items():
        client.wait_for(volume, "available")
    for name, (image, sha256) in made["images"].items():
        data = client.ask("GET", f"/image/v2/images/{image}/file").body
        assert hashlib.sha256(data).hexdigest() == sha256, name
        assert client.named("images", "/image/v2/images", name)["id"] == image
    listed = client.ask("GET", client.volumes + "/volumes?limit=1000").json()["volumes"]
    names = [volume["name"] for volume in listed]
    assert len(names) == len(set(names)), "a volume was made twice"
    assert set(made["volumes"].values()) <= {volume["id"] for volume in listed}
    usage = client.ask("GET", f"{client.volumes}/os-quota-sets/{client.project}?usage=true").json()
    assert usage["quota_set"]["volumes"]["in_use"] == len(listed)
    ceph.run(cloud.binary, "scrub", "--data-dir", cloud.folder / "data" / "controlplane.1",
             seconds=300, env=cloud.ceph.environment())
