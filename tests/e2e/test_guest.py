"""The main job of volumes: an image becomes a volume, a real guest boots it and writes to it, a
snapshot taken meanwhile becomes a second guest's disk and an image again. With the stock client."""

import hashlib
import json
import os
import re
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import guest as qemu  # noqa: E402
import service as quarry  # noqa: E402
from volumes import Volumes  # noqa: E402

CHUNK = 4 << 20
GIB = 1 << 30

# Writes files and says of each, once it is synced, what is in it; on and on. Beside them it writes
# over one file in place.
WRITER = """mkdir /data; (n=0; while [ ! -e /enough ]; do n=$((n + 1))
head -c 262144 /dev/urandom > /data/$n; dd if=/data/$n of=/same conv=notrunc 2>/dev/null; sync
echo "synced $n $(sha256sum < /data/$n)"; done; echo all written) < /dev/null &"""

SYNCED = r"synced (\d+) ([0-9a-f]{64})  -\r?\n"


class Cli:
    """The stock `openstack` client, set up as the README says."""

    def __init__(self, service):
        self.environment = {k: v for k, v in os.environ.items()
                            if not k.startswith(("OS_", "QUARRY_"))}
        self.environment.update(OS_CLIENT_CONFIG_FILE=service.data_dir + "/clouds.yaml",
                                OS_CLOUD="quarry")

    def run(self, *args):
        done = subprocess.run(["/usr/bin/openstack", *args], env=self.environment,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (args, done.stdout, done.stderr)
        return done.stdout

    def json(self, *args):
        return json.loads(self.run(*args, "-f", "json"))


def chunks_of(path):
    """Every 4 MiB piece of a file that is not all zeros: its number -> its SHA-256."""
    zeros = bytes(CHUNK)
    with open(path, "rb") as data:
        pieces = enumerate(iter(lambda: data.read(CHUNK), b""))
        return {number: hashlib.sha256(piece).digest() for number, piece in pieces
                if piece != zeros[:len(piece)]}


def stored_chunks(service):
    """How many chunks the store has, garbage not counted."""
    done = service.quarry("stats", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["chunks"]


def tcp(connection):
    """An attached volume as QEMU's block node."""
    return {"driver": "nbd", "export": connection["export"],
            "server": {"type": "inet", "host": connection["host"],
                       "port": str(connection["port"])}}


def unix(connection):
    return {"driver": "nbd", "export": connection["export"],
            "server": {"type": "unix", "path": connection["socket"]}}


def disk(node):
    return {"driver": "raw", "file": node}


def copy_out(connection, path):
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "raw", connection["uri"], str(path)],
                   check=True)


def attach(service, volume):
    """`quarry volume attach`: how to connect."""
    done = service.quarry("volume", "attach", volume, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def detach(service, volume):
    done = service.quarry("volume", "detach", volume)
    assert done.returncode == 0, done.stderr


def last_synced(machine, files, count):
    """Reads the console until `count` files are synced; adds to `files` what they hold."""
    while len(files) < count:
        _, found = machine.expect(SYNCED)
        files[int(found[1])] = found[2]


def finish(machine, files):
    """Ends the writing, and reads what is still said of it."""
    rest = machine.run("touch /enough") + "\n" + machine.expect("all written")[0]
    files.update((int(name), digest) for name, digest in re.findall(SYNCED, rest))


def check_files(machine, files):
    """What the guest had synced is there, and its file system is whole."""
    there = machine.run("cd /data && sha256sum *; cd /")
    found = {int(name): digest for digest, name in re.findall(r"([0-9a-f]{64})  (\d+)", there)}
    missing = {name for name, digest in files.items() if found.get(name) != digest}
    assert not missing, (sorted(missing), sorted(found))
    machine.run("mount -o remount,ro / && fsck.ext4 -f -n /dev/vda")
    return found


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    qemu.make_images("base")
    socket = tmp_path_factory.mktemp("nbd") / "nbd.sock"
    with quarry.Service(options=[f"--block.nbd-socket={socket}"]) as running:
        yield running


def test_a_guest_lives_on_volumes(service, tmp_path):
    cli, volumes = Cli(service), Volumes(service)
    base = f"{qemu.IMAGES}/base.raw"
    cli.run("image", "create", "--file", base, "--disk-format", "raw", "--container-format", "bare",
            "debian")
    before = stored_chunks(service)
    in_base = set(chunks_of(base).values())
    assert before == len(in_base)

    root = cli.json("volume", "create", "--image", "debian", "--size", "1", "root")["id"]
    assert volumes.wait("volume", root, "available")["bootable"] == "true"
    assert stored_chunks(service) == before, "a volume of an image took space"
    connection = attach(service, "root")
    assert cli.json("volume", "show", "root")["status"] == "in-use"

    synced = {}
    with qemu.Guest(tmp_path, disk(tcp(connection)), "first") as first:
        first.say(WRITER)
        last_synced(first, synced, 5)
        promised = dict(synced)
        snapshot = cli.json("volume", "snapshot", "create", "--volume", "root", "--force",
                            "meanwhile")["id"]
        volumes.wait("snapshot", snapshot, "available")
        last_synced(first, synced, len(synced) + 5)  # it went on writing
        finish(first, synced)

        grow(cli, volumes, first, connection, root)
        first.run("sync")
        check_files(first, synced)

    copy_root = cli.json("volume", "create", "--snapshot", "meanwhile", "second")["id"]
    volumes.wait("volume", copy_root, "available")
    copy_connection = attach(service, "second")
    copy_out(copy_connection, tmp_path / "snapshot.raw")
    with qemu.Guest(tmp_path, disk(unix(copy_connection)), "second") as second:
        found = check_files(second, promised)
        assert set(found) <= set(synced)
        second.run("mount -o remount,rw / && echo here >/second && sync")

    # The first volume went its own way meanwhile: deleting it takes nothing from the second.
    detach(service, "root")
    detach(service, "second")
    volumes.wait("volume", root, "available")
    volumes.wait("volume", copy_root, "available")
    cli.run("volume", "snapshot", "delete", "meanwhile")
    volumes.wait("snapshot", snapshot, None)
    cli.run("volume", "delete", "root")
    volumes.wait("volume", root, None)

    image = become_image(cli, volumes, copy_root)
    pulled = service.quarry("image", "pull", image, str(tmp_path / "image.raw"))
    assert pulled.returncode == 0, pulled.stderr
    copy_out(attach(service, "second"), tmp_path / "volume.raw")
    in_image = chunks_of(tmp_path / "image.raw")
    assert in_image == chunks_of(tmp_path / "volume.raw")
    assert set(in_image.values()) - in_base, "the guests wrote nothing"
    in_snapshot = set(chunks_of(tmp_path / "snapshot.raw").values())
    assert stored_chunks(service) <= len(in_base | in_snapshot | set(in_image.values()))


def grow(cli, volumes, machine, connection, volume_id):
    """The volume grows under the running guest: QEMU connects anew, and tells it."""
    cli.run("--os-volume-api-version", "3.42", "volume", "set", "--size", "2", "root")
    volumes.wait("volume", volume_id, "in-use")
    assert machine.run("cat /sys/block/vda/size") == str(GIB // 512)
    machine.qmp("blockdev-add", **{"node-name": "again", **tcp(connection)})
    machine.qmp("blockdev-reopen",
                options=[{"node-name": "disk", "driver": "raw", "file": "again"}])
    machine.qmp("block_resize", **{"node-name": "disk", "size": 2 * GIB})
    machine.run("until [ $(cat /sys/block/vda/size) = %d ]; do sleep 0.1; done" % (2 * GIB // 512))
    machine.run("resize2fs /dev/vda && [ $(stat -f -c '%b' /) -gt 400000 ]")


def become_image(cli, volumes, volume_id):
    image = cli.json("image", "create", "--volume", "second", "again")["image_id"]
    volumes.wait("volume", volume_id, "available")
    shown = cli.json("image", "show", image)
    assert shown["status"] == "active" and shown["size"] == GIB, shown
    return image


def test_a_guest_rides_out_a_restart(service, tmp_path):
    """The service is stopped, and killed, and started again under a running guest, whose QEMU
    connects anew."""
    volumes = Volumes(service)
    volume = volumes.create()
    _, connection = volumes.attach(volume)
    subprocess.run(["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw",
                    f"{qemu.IMAGES}/base.raw", connection["uri"]], check=True)
    synced = {}
    patient = {**unix(connection), "reconnect-delay": 60}
    with qemu.Guest(tmp_path, disk(patient), "rider") as rider:
        rider.say(WRITER)
        for end in (service.stop, service.kill, service.stop):
            last_synced(rider, synced, len(synced) + 3)
            assert not end()
            service.start()
        last_synced(rider, synced, len(synced) + 3)
        finish(rider, synced)
        # Past the guest's cache to the disk, and nobody flushes that before the kills.
        written = rider.run("head -c 4194304 /dev/urandom > /tmp/new; sha256sum < /tmp/new; "
                            "dd if=/tmp/new of=/unflushed bs=64k oflag=direct 2>/dev/null")
        for _ in range(2):
            service.kill()
            service.start()
        rider.run("echo 3 > /proc/sys/vm/drop_caches")
        assert rider.run("sha256sum < /unflushed") == written
        check_files(rider, synced)
        assert "I/O error" not in rider.run("dmesg")
    volumes = Volumes(service)
    assert volumes.wait("volume", volume, "in-use")["attachments"]
    assert service.quarry("volume", "detach", volume).returncode == 0
