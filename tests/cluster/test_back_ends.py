"""Volumes in a data directory and volumes on RBD, side by side in one service: types choose, and a
retype moves the bytes."""

import hashlib
import os
import pathlib
import random
import subprocess
import sys

import nbd
import pytest

import ceph

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from service import Images, Service  # noqa: E402
from volumes import Volumes  # noqa: E402

MIB = 1 << 20


@pytest.fixture(name="service", scope="module")
def service_with_both():
    with ceph.temporary_cluster(osds=1, size=1, osd_gb=4) as cluster:
        os.environ["CEPH_CONF"] = str(cluster.conf)
        with Service(options=["--block.rbd-pool=volumes"]) as service:
            yield service


@pytest.fixture(name="volumes", scope="module")
def volumes_with_types(service):
    volumes = Volumes(service)
    for name, back_end in (("embedded", "store"), ("rbd", "rbd")):
        volumes.ok("POST", "/types", {"volume_type": {
            "name": name, "extra_specs": {"volume_backend_name": back_end}}})
    return volumes


class Disk:
    """A volume as somebody who is attached to it has it."""

    def __init__(self, volumes, volume):
        self.volumes, self.volume = volumes, volume

    def __enter__(self):
        self.attachment, connection = self.volumes.attach(self.volume)
        self.nbd = nbd.NBD()
        self.nbd.connect_uri(connection["uri"])
        return self.nbd

    def __exit__(self, *_):
        self.nbd.shutdown()
        self.volumes.detach(self.attachment)
        self.volumes.wait("volume", self.volume, "available")


def fill(volumes, volume, seed):
    chance = random.Random(seed)
    with Disk(volumes, volume) as disk:
        for _ in range(40):
            data = chance.randbytes(chance.randrange(1, 512) * 512)
            disk.pwrite(data, chance.randrange(0, 2000) * 512 * 1024)
        disk.flush()


def sha256(volumes, volume):
    digest = hashlib.sha256()
    with Disk(volumes, volume) as disk:
        for offset in range(0, disk.get_size(), 16 * MIB):
            digest.update(disk.pread(16 * MIB, offset))
    return digest.hexdigest()


def back_end(volumes, volume):
    shown = volumes.ok("GET", f"/volumes/{volume}")["volume"]
    return shown["os-vol-host-attr:host"], shown["volume_type"]


def test_a_retype_moves_the_bytes_there_and_back(volumes):
    volume = volumes.create(1, volume_type="embedded")
    fill(volumes, volume, 1)
    before = sha256(volumes, volume)
    for new, host in (("rbd", "quarry@rbd#rbd"), ("embedded", "quarry@store#store")):
        refused = volumes.call("POST", f"/volumes/{volume}/action",
                               {"os-retype": {"new_type": new, "migration_policy": "never"}})
        assert refused.status == 400 and b"on-demand" in refused.body
        with Disk(volumes, volume):
            attached = volumes.call("POST", f"/volumes/{volume}/action", {
                "os-retype": {"new_type": new, "migration_policy": "on-demand"}})
            assert attached.status == 400 and b"detach it first" in attached.body
        volumes.ok("POST", f"/volumes/{volume}/action",
                   {"os-retype": {"new_type": new, "migration_policy": "on-demand"}})
        volumes.wait("volume", volume, "available")
        assert back_end(volumes, volume) == (host, new)
        assert sha256(volumes, volume) == before
    volumes.delete(volume)


def test_what_a_volume_of_one_becomes_on_the_other(service, volumes, tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(random.Random(2).randbytes(24 * MIB))
    subprocess.run(["truncate", "-s", "1G", disk], check=True)
    image = Images(service).make(disk.read_bytes()[:64 * MIB])
    made = {kind: volumes.create(1, volume_type=kind, imageRef=image)
            for kind in ("embedded", "rbd")}
    expected = hashlib.sha256(disk.read_bytes()).hexdigest()
    for kind, other in (("embedded", "rbd"), ("rbd", "embedded")):
        assert sha256(volumes, made[kind]) == expected
        snapshot = volumes.snapshot(made[kind])
        fill(volumes, made[kind], 3)
        copy = volumes.create(1, volume_type=other, snapshot_id=snapshot)
        assert sha256(volumes, copy) == expected
        assert back_end(volumes, copy)[1] == other
        refused = volumes.call("POST", "/volumes", {"volume": {
            "size": 1, "volume_type": other, "source_volid": made[kind]}})
        assert refused.status == 400 and b"snapshot of it" in refused.body
    pools = volumes.ok("GET", "/scheduler-stats/get_pools")["pools"]
    assert [pool["name"] for pool in pools] == ["quarry@store#store", "quarry@rbd#rbd"]
