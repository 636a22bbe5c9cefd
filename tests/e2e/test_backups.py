"""Backups with the stock `openstack` client: full, incremental, attached, restored, and taken over
by a second service when the first is lost."""

import hashlib
import json

import pytest

from nbd_tools import need, qemu_io, run
from service import Images, Service, call
from test_volumes_client import NEWEST, Cli
from volumes import Volumes

MIB = 1 << 20


class BackupCli(Cli):
    """The stock `openstack` client as a service's administrator."""

    def __init__(self, service):
        super().__init__(OS_CLIENT_CONFIG_FILE=service.data_dir + "/clouds.yaml", OS_CLOUD="quarry")

    def run(self, *arguments, check=True):
        return super().run(*NEWEST, *arguments, check=check)

    def backup(self, *arguments):
        """A backup that is there: its id."""
        made = self.json("volume", "backup", "create", *arguments)["id"]
        self.wait("available", "volume", "backup", "show", made)
        return made


@pytest.fixture(name="backup_dir", scope="module")
def where_backups_are(tmp_path_factory):
    return tmp_path_factory.mktemp("backups") / "kept"


@pytest.fixture(name="service")
def running(backup_dir):
    need("nbdcopy", "qemu-io")
    with Service(options=["--block.backup-dir", str(backup_dir)]) as service:
        yield service


def digest(volumes, volume_id, folder):
    """Of the first 32 MiB, as a client reads it."""
    attachment, info = volumes.attach(volume_id)
    path = folder / volume_id
    run("qemu-img", "dd", "-f", "raw", "-O", "raw", "bs=1M", "count=32", "if=" + info["uri"],
        f"of={path}")
    volumes.detach(attachment)
    volumes.wait("volume", volume_id, "available")
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def write(volumes, volume_id, *commands):
    attachment, info = volumes.attach(volume_id)
    qemu_io(info["uri"], *commands, "flush")
    volumes.detach(attachment)
    volumes.wait("volume", volume_id, "available")


def restore(cli, volumes, backup_id, volume_id=None):
    """To a new volume, or to one that is there: its id. The client can't show the answer."""
    to = ["--force", backup_id, volume_id] if volume_id else [backup_id]
    code, _, errors = cli.run("volume", "backup", "restore", *to, check=False)
    assert code == 0 or "VolumeBackupsRestore object" in errors, errors
    if volume_id is None:
        found = volumes.ok("GET", f"/volumes?name=restore_backup_{backup_id}")["volumes"]
        volume_id = found[0]["id"]
    volumes.wait("volume", volume_id, "available")
    return volume_id


def moved_bytes(service):
    text = call("GET", service.base + "/metrics").body.decode()
    for line in text.splitlines():
        if line.startswith("quarry_backup_moved_bytes_total"):
            return float(line.split()[-1])
    raise AssertionError("no such metric")


def test_the_life_of_backups(service, backup_dir, tmp_path):
    cli, volumes = BackupCli(service), Volumes(service)
    disk = volumes.create(name="disk")
    write(volumes, disk, "write -P 17 0 9M", "write -P 34 20M 1M")
    first_digest = digest(volumes, disk, tmp_path)
    first = cli.backup("--name", "first", "--description", "d", disk)
    assert moved_bytes(service) <= 20 * MIB

    before = moved_bytes(service)
    write(volumes, disk, "write -P 51 5M 4k")
    second_digest = digest(volumes, disk, tmp_path)
    second = cli.backup("--name", "second", "--incremental", disk)
    assert moved_bytes(service) - before == 4 * MIB, "one chunk was written to"
    assert second_digest != first_digest

    listed = cli.json("volume", "backup", "list", "--long")
    assert {(b["Name"], b["Status"]) for b in listed} == {("first", "available"),
                                                         ("second", "available")}
    shown = cli.json("volume", "backup", "show", "second")
    assert (shown["is_incremental"], shown["has_dependent_backups"]) == (True, False)
    assert shown["volume_id"] == disk and shown["size"] == 1
    cli.run("volume", "backup", "set", "--name", "renamed", "--property", "a=b", second)
    assert cli.json("volume", "backup", "show", "renamed")["metadata"] == {"a": "b"}
    cli.run("volume", "backup", "unset", "--property", "a", second)
    assert cli.json("volume", "backup", "show", second)["metadata"] == {}

    # The parent goes, and the other is whole all the same.
    restored = restore(cli, volumes, first)
    assert digest(volumes, restored, tmp_path) == first_digest
    cli.run("volume", "backup", "delete", first)
    cli.wait(None, "volume", "backup", "show", first)
    assert restore(cli, volumes, second, restored) == restored
    assert digest(volumes, restored, tmp_path) == second_digest
    made = volumes.ok("POST", "/volumes", {"volume": {"backup_id": second, "size": 2}})["volume"]
    volumes.wait("volume", made["id"], "available")
    assert digest(volumes, made["id"], tmp_path) == second_digest

    # Attached, while a client is connected.
    _, info = volumes.attach(disk)
    assert volumes.call("POST", "/backups", {"backup": {"volume_id": disk}}).status == 400
    qemu_io(info["uri"], "write -P 68 0 64k", "flush")
    third = cli.backup("--name", "third", "--force", disk)
    other = restore(cli, volumes, third)
    attachment, info = volumes.attach(other)
    qemu_io(info["uri"], "read -P 68 0 64k", "read -P 51 5M 4k", "read -P 34 20M 1M")
    volumes.detach(attachment)

    # Of a snapshot that was taken before.
    snapshot = volumes.snapshot(other)
    fourth = cli.backup("--name", "fourth", "--snapshot", snapshot, other)
    record = cli.json("volume", "backup", "record", "export", fourth)
    assert service.stop() == 0

    # The service is lost, with all it knew; the directory of backups is not.
    with Service(options=["--block.backup-dir", str(backup_dir)]) as successor:
        cli, volumes = BackupCli(successor), Volumes(successor)
        assert cli.json("volume", "backup", "list") == []
        forged = record["backup_url"][:-4] + "AAAA"
        assert "no backup that is kept" in cli.refused(
            "volume", "backup", "record", "import", record["backup_service"], forged)
        cli.run("volume", "backup", "record", "import", record["backup_service"],
                record["backup_url"])
        assert [b["ID"] for b in cli.json("volume", "backup", "list")] == [fourth]
        assert len(volumes.ok("POST", "/backups/import_all", {})["backups"]) == 2
        back = restore(cli, volumes, second)
        assert digest(volumes, back, tmp_path) == second_digest
        for backup in cli.json("volume", "backup", "list"):
            cli.run("volume", "backup", "delete", backup["ID"])
        assert successor.stop() == 0


def test_without_a_directory_for_them():
    with Service() as service:
        cli, volumes = BackupCli(service), Volumes(service)
        disk = volumes.create()
        assert "block.backup-dir" in cli.refused("volume", "backup", "create", disk)
        assert cli.json("volume", "backup", "list") == []
        assert volumes.wait("volume", disk, "available")


def test_volumes_do_not_wait_for_a_damaged_store_of_backups(tmp_path):
    kept = tmp_path / "kept"
    with Service(options=["--block.backup-dir", str(kept)]) as service:
        volumes = Volumes(service)
        disk = volumes.create()
        assert service.stop() == 0
        (kept / "meta" / "CURRENT").write_text("MANIFEST-none\n")
        service.start()
        volumes = Volumes(service)
        assert volumes.wait("volume", disk, "available")
        refused = volumes.call("POST", "/backups", {"backup": {"volume_id": disk}})
        assert refused.status == 503 and b"is down" in refused.body, refused.body
        down = [row["state"] for row in volumes.ok("GET", "/os-services")["services"]
                if row["binary"] == "cinder-backup"]
        assert down == ["down"]
        said = [line for line in service.log_text().splitlines() if "no backups until" in line]
        assert "block.backup-dir" in said[-1] and service.data_dir not in said[-1], said


def test_the_store_of_the_backups_is_maintained_while_the_service_runs(service, backup_dir):
    cli, volumes = BackupCli(service), Volumes(service)
    disk = volumes.create(name="kept")
    write(volumes, disk, "write -P 77 0 8M")
    backup = cli.backup("--name", "looked-at", disk)
    for command in "stats", "gc", "scrub":
        done = service.quarry(command, "--backups", "--json")
        assert done.returncode == 0, (command, done.stderr)
    Images(service).make(b"not among the backups")
    known = json.loads(service.quarry("stats", "--backups", "--json").stdout)
    mine = json.loads(service.quarry("stats", "--json").stdout)
    assert known["holders"] != mine["holders"] and known["physical_bytes"] > 0
    wrong = service.quarry("stats", "--backups", "looked-at")
    assert wrong.returncode == 1 and "leave out --backups" in wrong.stderr
    for command in "stats", "gc", "scrub":
        held = Service(data_dir=str(backup_dir)).quarry(command)
        assert held.returncode == 1 and "--backups" in held.stderr, held.stderr
        assert "process " + str(service.process.pid) in held.stderr
    assert service.stop() == 0
    gone = service.quarry("stats", "--backups")
    assert gone.returncode == 1 and "no service runs" in gone.stderr
    offline = json.loads(Service(data_dir=str(backup_dir)).quarry("stats", "--json").stdout)
    assert offline["holders"] == known["holders"]
    service.start()
    cli.run("volume", "backup", "delete", backup)


def test_without_backups_their_store_is_not_asked():
    with Service() as service:
        none = service.quarry("stats", "--backups")
        assert none.returncode == 1 and "keeps no backups" in none.stderr
