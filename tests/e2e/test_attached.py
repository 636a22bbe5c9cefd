"""Volumes attached by the Block Storage API, under the clients that people have."""

import json
import os
import subprocess
import time

import pytest

from nbd_tools import (SECONDS, make_secrets, mounted, need, need_fuse, pattern, qemu_io, run,
                       write_and_read)
from service import GRAIN_BYTES, Service
from volumes import Volumes

GIB = 1 << 30
MIB = 1 << 20
DATA = 64 * MIB  # what a test fills of a volume


class Attached:
    """A volume of the service, attached."""

    def __init__(self, volumes, size_gb=1, **fields):
        self.volumes = volumes
        self.volume = volumes.create(size_gb, **fields)
        self.attachment, self.data = volumes.attach(self.volume)
        assert self.data["driver_volume_type"] == "nbd"

    def uris(self):
        """Over TCP, and over the unix socket."""
        return [self.data["uri"],
                f"nbd+unix:///{self.data['export']}?socket={self.data['socket']}"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.attachment is not None:
            self.volumes.detach(self.attachment)
            self.volumes.wait("volume", self.volume, "available")
        self.volumes.ok("DELETE", f"/volumes/{self.volume}?cascade=true")
        self.volumes.wait("volume", self.volume, None)


@pytest.fixture(name="volumes", scope="module")
def service_with_a_socket(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    with Service(str(folder / "data"), [f"--block.nbd-socket={folder}/nbd.sock"]) as service:
        yield Volumes(service)
        assert service.stop() == 0


def test_nbdinfo(volumes):
    need("nbdinfo", "qemu-nbd")
    with Attached(volumes, size_gb=2) as disk:
        for uri in disk.uris():
            info = json.loads(run("nbdinfo", "--json", uri).stdout)
            assert info["structured"] and not info["TLS"]
            export = info["exports"][0]
            assert export["export-size"] == 2 * GIB and not export["is_read_only"]
            for ability in ("cache", "df", "fast_zero", "flush", "fua", "multi_conn", "trim"):
                assert export[f"can_{ability}"], ability
            # The name is the key: what is like it opens nothing, and nobody is told any.
            for wrong in (uri.replace(disk.attachment, "x" + disk.attachment[1:]),
                          uri.replace(disk.data["export"], disk.attachment),
                          uri.replace(disk.data["export"], disk.data["export"][:-1])):
                assert run("nbdinfo", "--size", wrong, check=False).returncode != 0, wrong
        listed = run("qemu-nbd", "--list", "-k", disk.data["socket"], check=False)
        assert disk.attachment not in listed.stdout


def test_nbdcopy(volumes, tmp_path):
    need("nbdcopy", "nbdinfo")
    source, back = tmp_path / "source.raw", tmp_path / "back.raw"
    source.write_bytes(pattern(DATA))
    os.truncate(source, GIB)
    with Attached(volumes) as disk:
        for uri in disk.uris():
            run("nbdcopy", "--connections=4", "--requests=64", "--flush", source, uri)
            back.unlink(missing_ok=True)
            run("nbdcopy", "--connections=4", uri, back)
            run("cmp", source, back)
        extents = json.loads(run("nbdinfo", "--map", "--json", disk.uris()[0]).stdout)
        assert sum(e["length"] for e in extents) == GIB
        assert sum(e["length"] for e in extents if e["type"] == 0) <= 8 * MIB


def test_qemu_img(volumes, tmp_path):
    need("qemu-img")
    source, qcow = tmp_path / "source.raw", tmp_path / "copy.qcow2"
    source.write_bytes(pattern(DATA))
    os.truncate(source, GIB)
    with Attached(volumes) as disk:
        tcp, unix = disk.uris()
        run("qemu-img", "convert", "-n", "-W", "-m", "16", "-f", "raw", "-O", "raw", source, tcp)
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", source, unix)
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", unix, qcow)
        run("qemu-img", "compare", "-f", "raw", source, qcow)
        extents = json.loads(run("qemu-img", "map", "--output=json", "-f", "raw", tcp).stdout)
        assert sum(e["length"] for e in extents) == GIB
        assert sum(e["length"] for e in extents if e["data"]) <= 8 * MIB
        for write in ([], ["-w", "--flush-interval=64"]):
            bench = run("qemu-img", "bench", "-c", "2000", "-d", "32", "-s", "4k", "-f", "raw",
                        *write, unix)
            assert "Run completed" in bench.stdout, bench.stdout


def test_qemu_io(volumes):
    need("qemu-io")
    with Attached(volumes) as disk:
        for uri in disk.uris():
            qemu_io(uri, "write -P 0x11 0 1M", "write -P 0x22 512 512", "write -f -P 0x33 1M 64k",
                    "read -P 0x11 0 512", "read -P 0x22 512 512", "read -P 0x11 1k 1023k",
                    "discard 8k 16k", "read -P 0 8k 16k", "read -P 0x11 24k 4k",
                    "write -z 512 512", "read -P 0 512 512", "write -z -u 32k 32k",
                    "read -P 0 32k 32k", "read -P 0x33 1M 64k", "flush",
                    "aio_write -P 0x44 2M 4M", "aio_write -P 0x55 8M 20M", "aio_flush",
                    "read -P 0x44 2M 4M", "read -P 0x55 8M 20M", "discard 0 1G", "read -P 0 0 32M",
                    f"read -P 0 {GIB - 4096} 4k")


def test_fio(volumes, tmp_path):
    need("fio")
    with Attached(volumes) as disk:
        for uri in disk.uris():
            for job in (["--rw=randwrite", "--bsrange=512-64k", "--iodepth=32"],
                        ["--rw=randrw", "--bs=4k", "--iodepth=128", "--fsync=64"],
                        ["--rw=write", "--bs=1m", "--iodepth=8"]):
                done = run("fio", "--name=job", "--ioengine=nbd", f"--uri={uri}", f"--size={DATA}",
                           "--io_size=32m", "--randrepeat=0", "--verify=crc32c",
                           "--verify_fatal=1", *job, cwd=tmp_path)
                assert "err= 0" in done.stdout, done.stdout


def test_nbdfuse(volumes, tmp_path):
    need_fuse()
    with Attached(volumes) as disk, mounted(tmp_path, disk.uris()[1]) as file:
        assert file.stat().st_size == GIB
        write_and_read(file, pattern(16 * MIB))


def changed_ranges(uri, snapshot):
    """What nbdinfo tells of quarry:changed-since: offsets and lengths."""
    extents = json.loads(run("nbdinfo", f"--map=quarry:changed-since/{snapshot}", "--json",
                             uri).stdout)
    assert sum(e["length"] for e in extents) == GIB
    return [(e["offset"], e["length"]) for e in extents if e["type"] == 1]


def test_what_changed_since_a_snapshot(volumes, tmp_path):
    need("nbdinfo", "nbdcopy", "qemu-img", "qemu-io")
    before, now = tmp_path / "before.raw", tmp_path / "now.raw"
    with Attached(volumes) as disk, Attached(volumes) as other:
        uri = disk.uris()[0]
        qemu_io(uri, "write -P 0x11 0 32M", "write -P 0x12 500M 1M")
        run("nbdcopy", uri, before)
        snapshot = volumes.snapshot(disk.volume)
        assert changed_ranges(uri, snapshot) == []
        qemu_io(uri, "write -P 0x22 1M 8k", "write -P 0x33 20481K 512", "discard 500M 64k",
                "write -P 0x44 1023M 1M")
        ranges = changed_ranges(uri, snapshot)
        assert ranges == [(at // GRAIN_BYTES * GRAIN_BYTES, max(length, GRAIN_BYTES))
                          for at, length in [(MIB, 8192), (20480 * 1024, 4096), (500 * MIB, 65536),
                                             (1023 * MIB, MIB)]]

        # QEMU's way to ask: what is dirty is told to have no data.
        host, port = disk.data["host"], disk.data["port"]
        extents = json.loads(run(
            "qemu-img", "map", "--output=json", "--image-opts",
            f"driver=nbd,server.type=inet,server.host={host},server.port={port},"
            f"export={disk.data['export']},x-dirty-bitmap=quarry:changed-since/{snapshot}").stdout)
        assert [(e["start"], e["length"]) for e in extents if not e["data"]] == ranges

        # An incremental backup: the changed ranges over a copy of the snapshot are the volume.
        run("nbdcopy", uri, now)
        later = volumes.snapshot(disk.volume)
        with open(before, "r+b") as copy, open(now, "rb") as volume:
            for offset, length in changed_ranges(uri, snapshot):
                volume.seek(offset)
                copy.seek(offset)
                copy.write(volume.read(length))
        run("cmp", before, now)
        assert changed_ranges(uri, later) == []

        # Only snapshots of this volume, and only those that are there.
        foreign = volumes.snapshot(other.volume)
        for unknown in (foreign, "0" * 32, ""):
            refused = run("nbdinfo", f"--map=quarry:changed-since/{unknown}", uri, check=False)
            assert refused.returncode != 0, unknown
        volumes.ok("DELETE", f"/snapshots/{snapshot}")
        volumes.wait("snapshot", snapshot, None)
        gone = run("nbdinfo", f"--map=quarry:changed-since/{snapshot}", uri, check=False)
        assert gone.returncode != 0


def test_a_detach_cuts_off_who_is_connected(volumes, tmp_path):
    need("fio", "nbdinfo")
    with Attached(volumes) as disk:
        uri = disk.uris()[0]
        with open(tmp_path / "noise.log", "wb") as log:
            noise = subprocess.Popen(
                ["fio", "--name=noise", "--ioengine=nbd", f"--uri={uri}", "--rw=randwrite",
                 "--bs=4k", "--iodepth=32", f"--size={DATA}", "--time_based", "--runtime=60"],
                stdout=log, stderr=log, cwd=tmp_path)
        try:
            time.sleep(0.3)  # lets it run a while; nothing depends on how long
            disk.volumes.detach(disk.attachment)
            disk.volumes.wait("volume", disk.volume, "available")
            assert noise.wait(SECONDS) != 0, "it went on writing to a volume that was detached"
        finally:
            noise.kill()
            noise.wait()
        assert run("nbdinfo", "--size", uri, check=False).returncode != 0
        disk.attachment, disk.data = volumes.attach(disk.volume)
        assert run("nbdinfo", "--size", disk.uris()[0]).stdout.strip() == str(GIB)
        assert disk.uris()[0] != uri


def test_an_extended_volume_is_larger_for_who_connects_then(volumes):
    need("nbdinfo", "qemu-io")
    with Attached(volumes) as disk:
        tcp, unix = disk.uris()
        qemu_io(tcp, f"write -P 0x77 {GIB - 4096} 4k")
        volumes.ok("POST", f"/volumes/{disk.volume}/action", {"os-extend": {"new_size": 3}})
        volumes.wait("volume", disk.volume, "in-use")
        assert run("nbdinfo", "--size", unix).stdout.strip() == str(3 * GIB)
        qemu_io(unix, f"read -P 0x77 {GIB - 4096} 4k", f"read -P 0 {GIB} 1M",
                f"write -P 0x88 {3 * GIB - 4096} 4k", f"read -P 0x88 {3 * GIB - 4096} 4k")


@pytest.fixture(name="secrets", scope="module")
def secrets_of_this_module(tmp_path_factory):
    return make_secrets(tmp_path_factory.mktemp("tls"))


def test_tls_with_certificates(secrets, tmp_path):
    need("nbdinfo", "nbdcopy", "qemu-io")
    options = [f"--block.nbd-tls-cert={secrets}/server-cert.pem",
               f"--block.nbd-tls-key={secrets}/server-key.pem", "--block.nbd-listen=0.0.0.0:0",
               "--block.nbd-host=localhost"]
    with Service(str(tmp_path / "data"), options) as service, \
            Attached(Volumes(service)) as disk:
        assert disk.data["tls"] and disk.data["uri"].startswith("nbds://localhost:")
        uri = f"{disk.data['uri']}?tls-certificates={secrets}"
        info = json.loads(run("nbdinfo", "--json", uri).stdout)
        assert info["TLS"] and info["exports"][0]["export-size"] == GIB
        source, back = tmp_path / "source.raw", tmp_path / "back.raw"
        source.write_bytes(pattern(DATA))
        os.truncate(source, GIB)
        run("nbdcopy", source, uri)
        run("nbdcopy", uri, back)
        run("cmp", source, back)
        run("qemu-io", "--object", f"tls-creds-x509,id=tls,endpoint=client,dir={secrets}",
            "--image-opts", "-c", "write -P 0x66 1M 8M", "-c", "read -P 0x66 1M 8M",
            f"driver=nbd,host=localhost,port={disk.data['port']},export={disk.data['export']},"
            "tls-creds=tls")
        # Beyond loopback nothing goes in clear text.
        plain = run("nbdinfo", "--size", disk.data["uri"].replace("nbds:", "nbd:"), check=False)
        assert plain.returncode != 0 and "TLS" in plain.stderr, plain.stderr


def test_tls_with_certificates_of_clients(secrets, tmp_path):
    need("nbdinfo", "qemu-img")
    options = [f"--block.nbd-tls-cert={secrets}/server-cert.pem",
               f"--block.nbd-tls-key={secrets}/server-key.pem",
               f"--block.nbd-tls-client-ca={secrets}/ca-cert.pem"]
    with Service(str(tmp_path / "data"), options) as service, \
            Attached(Volumes(service)) as disk:
        own = f"{disk.data['uri']}?tls-certificates={secrets}/client"
        assert run("nbdinfo", "--size", own).stdout.strip() == str(GIB)
        info = json.loads(run(
            "qemu-img", "info", "--output=json", "--object",
            f"tls-creds-x509,id=tls,endpoint=client,dir={secrets}/client", "--image-opts",
            f"driver=nbd,host={disk.data['host']},port={disk.data['port']},"
            f"export={disk.data['export']},tls-creds=tls").stdout)
        assert info["virtual-size"] == GIB
        # Who has the name, and no certificate.
        none = f"{disk.data['uri']}?tls-certificates={secrets}"
        assert run("nbdinfo", "--size", none, check=False).returncode != 0


def test_tls_with_keys(secrets, tmp_path):
    need("nbdinfo", "nbdcopy", "qemu-io")
    keys, socket = secrets / "keys.psk", tmp_path / "nbd.sock"
    options = [f"--block.nbd-tls-psk={keys}", f"--block.nbd-socket={socket}"]
    with Service(str(tmp_path / "data"), options) as service, \
            Attached(Volumes(service)) as disk:
        uri = disk.data["uri"].replace("nbds://", "nbds://alice@") + f"?tls-psk-file={keys}"
        assert json.loads(run("nbdinfo", "--json", uri).stdout)["TLS"]
        source, back = tmp_path / "source.raw", tmp_path / "back.raw"
        source.write_bytes(pattern(DATA))
        os.truncate(source, GIB)
        run("nbdcopy", source, uri)
        run("nbdcopy", f"nbds+unix://alice@/{disk.data['export']}?socket={socket}"
                       f"&tls-psk-file={keys}", back)
        run("cmp", source, back)
        run("qemu-io", "--object",
            f"tls-creds-psk,id=tls,endpoint=client,dir={secrets},username=alice", "--image-opts",
            "-c", "write -P 0x66 1M 8M", "-c", "read -P 0x66 1M 8M",
            f"driver=nbd,server.type=unix,server.path={socket},export={disk.data['export']},"
            "tls-creds=tls")
        wrong = tmp_path / "wrong.psk"
        wrong.write_text("alice:" + "00" * 32 + "\n")
        refused = run("nbdinfo", uri.replace(str(keys), str(wrong)), check=False)
        assert refused.returncode != 0


def test_off_loopback_a_service_without_tls_does_not_start(tmp_path):
    service = Service(str(tmp_path / "data"), ["--block.nbd-listen=0.0.0.0:0"])
    with pytest.raises(RuntimeError, match="TLS"):
        service.start()


def test_the_command_names_the_way_out_of_an_attachment(volumes):
    service = volumes.service
    disk = volumes.create(name="taken")
    held = service.quarry("volume", "attach", "taken", "--json")
    assert held.returncode == 0, held.stderr
    refused = service.quarry("volume", "attach", "taken")
    assert refused.returncode == 1
    assert json.loads(held.stdout)["attachment_id"] + ", attached" in refused.stderr
    assert f"`quarry volume detach {disk}`" in refused.stderr
    assert service.quarry("volume", "detach", disk).returncode == 0
    volumes.wait("volume", disk, "available")
    # As a command leaves it that is killed before its second call.
    half_made = volumes.ok("POST", "/attachments", {"attachment": {
        "volume_uuid": disk, "connector": {"host": "killed"}}})["attachment"]["id"]
    refused = service.quarry("volume", "attach", "taken")
    assert refused.returncode == 1 and half_made + ", attaching" in refused.stderr
    ended = service.quarry("volume", "detach", "taken")
    assert ended.returncode == 0 and half_made in ended.stdout, (ended.stdout, ended.stderr)
    volumes.wait("volume", disk, "available")
    assert service.quarry("volume", "attach", "taken").returncode == 0
    assert service.quarry("volume", "detach", "taken").returncode == 0
    volumes.wait("volume", disk, "available")
    volumes.delete(disk)
