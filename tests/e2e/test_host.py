"""`quarry host`: disks for the guests of a compute host, read through its cache."""

import hashlib
import json
import os
import re
import socket
import stat
import subprocess
import sys
import threading

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import guest as qemu  # noqa: E402
import service as quarry  # noqa: E402
from host import Host, free_port, node, read_at, read_disk  # noqa: E402
from nbd_tools import need, run  # noqa: E402
from test_guest import WRITER, check_files, finish, last_synced  # noqa: E402

CHUNK = 4 << 20


def disk(seed=0):
    """Data of three kinds, holes, and a last chunk that is not whole."""
    noise = hashlib.sha256(b"%d" % seed).digest() * (CHUNK // 64)
    return (os.urandom(CHUNK) + bytes(2 * CHUNK) + noise + noise[::-1] + os.urandom(2 * CHUNK)
            + bytes(CHUNK) + os.urandom(512 * 100))


# The first is for a disk that is open, the second for a kill while it is opened.
PATIENT = {"reconnect-delay": 60, "open-timeout": 60}


@pytest.fixture(scope="module")
def service():
    need("qemu-img", "qemu-io", "nbdinfo")
    # At the same address after a restart.
    with quarry.Service(listen=f"127.0.0.1:{free_port()}",
                        options=["--store.gc-interval=0s"]) as running:
        yield running


@pytest.fixture(name="data", scope="module")
def data_of_the_image():
    return disk()


@pytest.fixture(name="image", scope="module")
def image_of(images, data):
    return images.make(data, "wanted")


@pytest.fixture(name="host")
def a_host(service):
    with Host(service) as running:
        yield running


def test_a_disk_is_the_image_and_the_second_time_it_is_here(host, image, data):
    uri = host.attach("wanted")
    told = json.loads(run("nbdinfo", "--json", uri).stdout)["exports"][0]
    assert told["export-size"] == len(data) and told["is_read_only"] and told["can_multi_conn"]
    assert read_disk(uri) == data
    first = host.stats()
    assert 0 < first["fetched_bytes"] < len(data)
    assert first["disk_bytes"] <= first["limit_bytes"]

    again = host.json("attach", image)
    assert again["image"] == image and again["uri"] != uri
    assert read_disk(again["uri"]) == data
    assert host.stats()["fetched_bytes"] == first["fetched_bytes"], "fetched again"
    assert host.stats()["hit_plain_bytes"] > first["hit_plain_bytes"]
    assert host.metric("quarry_host_read_bytes_total") >= len(data)

    listed = host.json("ls")
    assert {disk["id"] for disk in listed} == {again["id"], uri.split("/")[3].split(".")[0]}
    host.run("detach", again["id"])
    host.run("detach", uri)
    assert host.json("ls") == []
    assert not read_at(uri, 0)


def test_a_sibling_brings_only_what_is_its_own(host, images, image, data):
    sibling = images.make(data[:-4096] + os.urandom(4096) + os.urandom(CHUNK), "sibling")
    assert read_disk(host.attach(image)) == data
    before = host.stats()
    read_disk(host.attach(sibling))
    after = host.stats()
    own = after["fetched_bytes"] - before["fetched_bytes"]
    assert CHUNK <= own < CHUNK + (1 << 20), own


def sent_bytes(service):
    """Of all answers of the service."""
    text = quarry.call("GET", service.base + "/metrics").body.decode()
    return sum(float(value) for value in
               re.findall(r"^quarry_http_sent_bytes_total\S* (\S+)$", text, re.MULTILINE))


def test_fifty_guests_fetch_an_image_once(host, service, image, data):
    before = sent_bytes(service)
    uris = [host.attach(image) for _ in range(50)]
    digest = hashlib.sha256(data).digest()
    wrong = []

    def read(uri):
        if hashlib.sha256(read_disk(uri)).digest() != digest:
            wrong.append(uri)
    readers = [threading.Thread(target=read, args=(uri,)) for uri in uris]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert not wrong
    stats = host.stats()
    assert stats["fetched_blocks"] == stats["blocks"], stats
    assert sent_bytes(service) - before < stats["fetched_bytes"] + (1 << 20)


def test_guests_ride_out_a_kill_of_the_agent(host, image, data):
    uri = host.attach(image)
    digest = hashlib.sha256(data).digest()
    outcomes = []

    def read():
        for _ in range(6):
            outcomes.append(hashlib.sha256(
                read_disk(uri, **PATIENT)).digest() == digest)
    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(4):
        read_before = host.metric("quarry_host_read_bytes_total")
        host.wait_until(lambda: not reader.is_alive() or
                        host.metric("quarry_host_read_bytes_total") > read_before + CHUNK)
        host.kill()
        host.start()
    reader.join()
    assert outcomes == [True] * 6
    assert host.stop() == 0
    host.start()
    assert read_disk(uri) == data


def test_a_service_that_is_down(service, image, data):
    with Host(service, options=["--patience=1s", "--trace=off"]) as host:
        uri = host.attach(image)
        assert read_at(uri, 0)
        service.kill()
        assert read_at(uri, 0), "what is here is not read"
        assert not read_at(uri, 5 * CHUNK), "what is not here was read"
        refused = host.run("attach", image, check=False)
        assert refused.returncode == 1 and "quarry:" in refused.stderr
        # It starts all the same.
        host.kill()
        host.start()
        refused = host.run("attach", image, check=False)
        assert refused.returncode == 1 and "nobody to log in at" in refused.stderr
        assert "`quarry host --cloud NAME" in refused.stderr and "--data-dir" not in \
            refused.stderr.replace("`quarry serve --data-dir DIR`", ""), refused.stderr
        service.start()
        assert read_disk(uri) == data


def test_a_cache_on_a_full_disk(service, image, data, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(small)],
                             capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("nothing can be mounted here: " + mounted.stderr)
    try:
        with Host(service, cache=str(small / "cache"), size="64MiB") as host:
            uri = host.attach(image)
            assert read_disk(uri) == data
            assert read_disk(uri) == data
    finally:
        run("umount", small)


def test_an_image_that_is_deleted_meanwhile(host, images):
    data = disk(7)
    image = images.make(data, "doomed")
    uri = host.attach(image)
    assert read_at(uri, 0)
    assert images.call("DELETE", f"/{image}").status == 204
    assert read_at(uri, 0)
    assert not read_at(uri, 5 * CHUNK)
    assert "no image" in host.run("attach", image, check=False).stderr
    host.run("detach", uri)


def test_what_can_not_be_attached_says_what_to_do(host, images, tmp_path):
    run("qemu-img", "create", "-f", "qcow2", tmp_path / "disk.qcow2", "1M")
    images.make((tmp_path / "disk.qcow2").read_bytes(), "formatted", disk_format="qcow2")
    said = host.run("attach", "formatted", check=False)
    assert said.returncode == 1 and "quarry host attach --volume" in said.stderr, said.stderr
    images.create("empty")
    assert "queued" in host.run("attach", "empty", check=False).stderr
    assert "quarry image ls" in host.run("attach", "nothing", check=False).stderr
    assert host.run("attach", check=False).returncode == 2
    assert "quarry host ls" in host.run("detach", "nothing", check=False).stderr
    assert host.run("drop", group="cache", check=False).returncode == 2
    host.stop()
    said = host.run("ls", check=False)
    assert said.returncode == 1 and "quarry host --cache" in said.stderr
    host.start()


def test_sockets_and_secrets_are_the_owners(host, image):
    uri = host.attach(image)
    assert stat.S_IMODE(os.stat(host.sockets).st_mode) == 0o700
    for name in ("control.sock", "nbd.sock", "attached.json"):
        assert stat.S_IMODE(os.stat(f"{host.sockets}/{name}").st_mode) == 0o600, name
    name = uri.split("/")[3].split("?")[0]
    assert not read_at(uri.replace(name, name[:-1] + ("a" if name[-1] != "a" else "b")), 0)
    assert "export-size" not in run("nbdinfo", "--list", uri.replace(name, ""), check=False).stdout
    assert name.split(".")[1] not in host.log()


def test_the_cache_commands(host, image, data):
    host.run("warm", image, group="cache")
    warm = host.stats()
    assert read_disk(host.attach(image)) == data
    assert host.stats()["fetched_bytes"] == warm["fetched_bytes"]
    host.run("pin", image, group="cache")
    assert host.stats()["pinned"][0]["name"] == f"image/{image}"
    assert host.json("drop", "--all", group="cache")["blocks"] == 0
    host.run("unpin", "wanted", group="cache")
    assert "not pinned" in host.run("unpin", "wanted", group="cache", check=False).stderr
    assert host.json("drop", "wanted", group="cache")["blocks"] == warm["blocks"]
    assert host.stats()["blocks"] == 0
    assert "trace" in host.run("warm", image, "--trace", group="cache", check=False).stderr
    assert "%" in host.run("stats", group="cache").stdout


def boot(host, uri, folder, name):
    """Boots a guest on a disk that it can't write to; how many blocks it had to wait for."""
    before = host.stats()["miss_blocks"]
    disk_node = {"driver": "raw", "read-only": True, "file": node(uri, **{"read-only": True})}
    with qemu.Guest(folder, disk_node, name) as machine:
        machine.run("ls -R /usr/bin /etc > /dev/null; cat /etc/passwd > /dev/null")
        assert "I/O error" not in machine.run("dmesg")
    return host.stats()["miss_blocks"] - before


def test_a_boot_is_recorded_and_brought_ahead_of_the_next(service, tmp_path):
    qemu.make_images("base")
    pushed = service.quarry("image", "push", f"{qemu.IMAGES}/base.raw", "--name", "debian",
                            "--json")
    assert pushed.returncode == 0, pushed.stderr
    image = json.loads(pushed.stdout)["id"]
    with Host(service, options=["--trace-window=15s"]) as first:
        cold = boot(first, first.attach(image), tmp_path, "first")
        assert cold > 20
        assert boot(first, first.attach(image), tmp_path, "again") <= 0.05 * cold
        first.wait_until(lambda: first.metric("quarry_host_traces_sent_total") == 1)

    with Host(service) as second:
        second.run("warm", image, "--trace", group="cache")
        traced = second.stats()["fetched_blocks"]
        assert traced > 0
        assert boot(second, second.attach(image), tmp_path, "second") <= 0.5 * cold
    with Host(service) as third:
        uri = third.attach(image)
        third.wait_until(lambda: third.stats()["fetched_blocks"] >= traced)
        assert third.metric("quarry_host_traces_brought_total") == 1
        assert boot(third, uri, tmp_path, "third") <= 0.5 * cold
        assert third.metric("quarry_host_traces_sent_total") == 0
    with Host(service, options=["--trace=off"]) as without:
        without.attach(image)
        assert without.metric("quarry_host_traces_brought_total") == 0


def pull(service, host, image, target, *options):
    done = service.quarry("image", "pull", image, str(target), "--json", "--socket-dir",
                          host.sockets, *options)
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout), "stderr": done.stderr}


def test_a_pull_takes_from_the_cache_and_fills_it(host, service, images, image, data, tmp_path):
    present = len(data) - sum(not any(data[at:at + CHUNK]) for at in range(0, len(data), CHUNK)
                              ) * CHUNK
    before = sent_bytes(service)
    first = pull(service, host, image, tmp_path / "first.raw")
    whole = sent_bytes(service) - before
    assert (tmp_path / "first.raw").read_bytes() == data and first["verified"]
    assert first["bytes_from_cache"] == first["bytes_already_here"] == 0
    assert 0.98 * whole < first["bytes_fetched"] <= whole
    assert host.stats()["fetched_bytes"] > 0, "nothing stays"

    before = sent_bytes(service)
    second = pull(service, host, image, tmp_path / "second.raw")
    again = sent_bytes(service) - before
    assert (tmp_path / "second.raw").read_bytes() == data
    assert again < 0.05 * whole, (again, whole)
    assert second["bytes_from_cache"] == second["bytes_already_here"] == present
    assert second["bytes_fetched"] <= again
    said = service.quarry("image", "pull", image, str(tmp_path / "said.raw"), "--socket-dir",
                          host.sockets).stdout
    assert "100 % was here" in said and "in the host's cache" in said

    # A sibling has one block of its own, and a chunk.
    changed = data[:-4096] + os.urandom(4096) + os.urandom(CHUNK)
    sibling = images.make(changed, "sibling of it")
    before = sent_bytes(service)
    third = pull(service, host, sibling, tmp_path / "third.raw")
    own = sent_bytes(service) - before
    assert (tmp_path / "third.raw").read_bytes() == changed
    assert CHUNK < own < CHUNK + (1 << 20), own
    assert third["bytes_from_cache"] > present - (1 << 20)
    # What it read was no boot, and guests have it now.
    fetched = host.stats()["fetched_bytes"]
    assert read_disk(host.attach(image)) == data
    assert host.stats()["fetched_bytes"] == fetched


def test_a_pull_does_without_the_cache(service, image, data, tmp_path):
    """Where no agent runs, or it has another cloud, or it is killed: from the service itself."""
    with Host(service) as host:
        host.kill()
        pulled = pull(service, host, image, tmp_path / "alone.raw")
        assert pulled["bytes_from_cache"] == 0 and "no agent listens" in pulled["stderr"]
        assert (tmp_path / "alone.raw").read_bytes() == data
        # By default nobody is expected.
        done = service.quarry("image", "pull", image, str(tmp_path / "default.raw"))
        assert done.returncode == 0 and done.stderr.count("quarry:") == 0, done.stderr
    with quarry.Service() as elsewhere, Host(elsewhere) as host:
        pulled = pull(service, host, image, tmp_path / "other.raw")
        assert pulled["bytes_from_cache"] == 0 and "going on without" in pulled["stderr"]
        assert (tmp_path / "other.raw").read_bytes() == data


def test_a_lying_agent_is_not_believed(service, image, data, tmp_path):
    """It sends other bytes than the image's, then other chunks, then nothing more."""
    def lie(listener, answer):
        with listener.accept()[0] as client:
            client.recv(1 << 16)
            try:
                client.sendall(answer)
            except OSError:
                pass  # it had enough

    lies = {
        "other bytes": b'{"chunk":0,"bytes":5}\nhello{"ok":1}\n',
        "no chunk of it": b'{"chunk":12345,"bytes":5}\nhello{"ok":1}\n',
        "too much": b'{"chunk":0,"bytes":4194305}\n' + bytes(4194305),
        "not all": b'{"chunk":0,"bytes":4194304}\n' + data[:CHUNK] + b'{"chunk":3,"by',
        "no line": b"hello",
        "nothing": b"",
    }
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "control.sock"))
        listener.listen()
        for what, answer in lies.items():
            thread = threading.Thread(target=lie, args=(listener, answer))
            thread.start()
            target = tmp_path / what
            done = service.quarry("image", "pull", image, str(target), "--json", "--socket-dir",
                                  str(tmp_path))
            thread.join()
            assert done.returncode == 0 and "going on without" in done.stderr, (what, done.stderr)
            assert target.read_bytes() == data, what
            cached = json.loads(done.stdout)["bytes_from_cache"]
            assert cached == (CHUNK if what == "not all" else 0), what


def test_a_volume_reads_its_image_through_the_cache(host, service, volumes, images):
    data = disk(3)
    image = images.make(data, "root-disk")
    volume = volumes.create(imageRef=image)
    uri = host.attach("--volume", volume)
    assert read_disk(uri)[:len(data)] == data
    here = host.stats()["fetched_bytes"]
    assert here > 0, "the image's bytes came from the volume's server"
    run("qemu-io", "-f", "raw", "-c", f"write -P 7 {CHUNK} 64k", "-c", "flush", uri)
    changed = bytearray(data)
    changed[CHUNK:CHUNK + 65536] = b"\7" * 65536
    assert read_disk(uri)[:len(data)] == changed
    host.kill()
    host.start()
    assert read_disk(uri)[:len(data)] == changed
    host.run("detach", volume)
    assert volumes.wait("volume", volume, "available")
    _, plain = volumes.attach(volume)
    assert run("qemu-io", "-f", "raw", "-r", "-c", f"read -P 7 {CHUNK} 64k", plain["uri"])
    said = host.run("attach", "--volume", volume, check=False)
    assert said.returncode == 1 and "quarry volume detach" in said.stderr, said.stderr


def test_a_volume_of_several_writers_is_refused(host, volumes):
    kind = volumes.ok("POST", "/types", {"volume_type": {
        "name": "shared", "extra_specs": {"multiattach": "<is> True"}}})["volume_type"]
    volume = volumes.create(volume_type=kind["id"])
    said = host.run("attach", "--volume", volume, check=False)
    assert said.returncode == 1 and "quarry volume attach" in said.stderr, said.stderr
    assert volumes.ok("GET", f"/volumes/{volume}")["volume"]["status"] == "available"


def test_a_snapshot_is_a_disk_to_read(host, volumes, images):
    data = disk(4)
    volume = volumes.create(imageRef=images.make(data, "below"))
    snapshot = volumes.snapshot(volume)
    assert read_disk(host.attach("--snapshot", snapshot))[:len(data)] == data


def test_a_guest_lives_on_a_volume_of_its_host(host, service, volumes, tmp_path):
    """It writes while the agent is killed, and the service, and started again."""
    qemu.make_images("base")
    pushed = service.quarry("image", "push", f"{qemu.IMAGES}/base.raw", "--name", "root-of-a-guest",
                            "--again", "--json")
    assert pushed.returncode == 0, pushed.stderr
    volume = volumes.create(imageRef=json.loads(pushed.stdout)["id"])
    uri = host.attach("--volume", volume)
    patient = {"driver": "raw", "file": node(uri, **PATIENT)}
    synced = {}
    with qemu.Guest(tmp_path, patient, "rider") as rider:
        rider.say(WRITER)
        for end, begin in ((host.kill, host.start), (service.kill, service.start),
                           (host.stop, host.start)):
            last_synced(rider, synced, len(synced) + 3)
            end()
            begin()
        last_synced(rider, synced, len(synced) + 3)
        finish(rider, synced)
        rider.run("echo 3 > /proc/sys/vm/drop_caches")
        check_files(rider, synced)
        assert "I/O error" not in rider.run("dmesg")
    assert host.stats()["hit_blocks"] + host.stats()["miss_blocks"] > 0, "read past the cache"
