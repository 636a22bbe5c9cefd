"""The volumes' disk stalls under clients that are connected: they get an I/O error in time, not
silence, and when the disk goes on so do they."""

import subprocess

import nbd
import pytest

import service as quarry
import slow_disk
from volumes import Volumes

MIB = 1 << 20
DEADLINE = "1s"
SECONDS = 60


@pytest.fixture(name="rig")
def make_rig(tmp_path):
    """A service whose volumes are on a disk that can be stalled."""
    data = tmp_path / "data"
    with slow_disk.start_or_skip(tmp_path / "disk") as disk:
        for folder in ("layers", "blobs"):
            disk.take_over(str(data / folder))
        with quarry.Service(str(data), ["--log.level=warn",
                                        f"--block.nbd-deadline={DEADLINE}"]) as service:
            try:
                yield disk, Volumes(service)
            finally:
                disk.go_on()


def connect(info):
    connection = nbd.NBD()
    connection.set_export_name(info["export"])
    connection.connect_tcp(info["host"], str(info["port"]))
    return connection


def fails(call):
    """It is answered with EIO, and while the disk still stalls: else this would wait for ever."""
    with pytest.raises(nbd.Error) as caught:
        call()
    assert caught.value.errno == "EIO", caught.value


def test_a_request_that_the_disk_leaves_undone_is_an_io_error(rig):
    disk, volumes = rig
    attachment, info = volumes.attach(volumes.create())
    connection, other = connect(info), connect(info)
    connection.pwrite(b"a" * MIB, 0)
    connection.flush()
    disk.stall()
    connection.pwrite(b"b" * MIB, 4 * MIB)  # the kernel's memory takes it
    fails(connection.flush)
    fails(lambda: other.pwrite(b"c" * MIB, 8 * MIB, nbd.CMD_FLAG_FUA))
    # What needs no disk is answered as ever, on both connections.
    assert other.pread(MIB, 0) == b"a" * MIB
    assert connection.pread(MIB, 4 * MIB) == b"b" * MIB
    disk.go_on()
    # Late is not lost: a flush covers what the one before was for.
    connection.flush()
    assert other.pread(MIB, 8 * MIB) == b"c" * MIB
    connection.shutdown()
    other.shutdown()
    volumes.detach(attachment)


def test_a_client_whose_disk_stalls_is_detached_and_its_volume_comes_back(rig):
    disk, volumes = rig
    volume = volumes.create()
    attachment, info = volumes.attach(volume)
    connection = connect(info)
    connection.pwrite(b"a" * MIB, 0)
    connection.flush()
    disk.stall()
    connection.pwrite(b"b" * MIB, MIB)
    fails(connection.flush)
    volumes.detach(attachment)
    with pytest.raises(nbd.Error):
        connection.pread(512, 0)
    disk.go_on()
    volumes.wait("volume", volume, "available")
    attachment, info = volumes.attach(volume)
    connection = connect(info)
    assert connection.pread(2 * MIB, 0) == b"a" * MIB + b"b" * MIB
    connection.shutdown()
    volumes.detach(attachment)


def test_who_connects_while_the_disk_stalls_is_served_when_it_goes_on(rig):
    disk, volumes = rig
    attachment, info = volumes.attach(volumes.create())
    disk.stall()
    client = subprocess.Popen(["nbdinfo", "--size", info["uri"]], stdout=subprocess.PIPE, text=True)
    try:
        # Others are served meanwhile.
        assert volumes.call("GET", "/volumes").status == 200
        disk.go_on()
        size, _ = client.communicate(timeout=SECONDS)
    finally:
        client.kill()
        client.wait()
    assert size.strip() == str(1 << 30)
    volumes.detach(attachment)
