"""kill -9 of the service under clients that connect again by themselves: what was answered is
there, though nobody flushed it."""

import os
import subprocess

import pytest

from nbd_tools import SECONDS, need, qemu_io
from service import Service
from volumes import Volumes, keep_nbd_port

MIB = 1 << 20
PIECES = 40  # places of a write, a few maps' pages apart
APART = 24 * MIB


class Client:
    """qemu-io, waiting for a killed service; it flushes when it is told, and when it ends."""

    def __init__(self, connection, over):
        server = (f"path={connection['socket']}" if over == "unix" else
                  f"host={connection['host']},port={connection['port']}")
        self.process = subprocess.Popen(
            ["qemu-io", "--cache=writeback", "--image-opts",
             f"driver=nbd,{server},export={connection['export']},reconnect-delay={SECONDS}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def do(self, *commands):
        """Waits for the answer to each."""
        for command in commands:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
            said = self.process.stdout.readline()
            assert " bytes at offset " in said, (command, said)
            self.process.stdout.readline()  # how long it took
            assert "fail" not in said, (command, said)

    def end(self):
        """As if the machine that it runs on lost its power."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture(name="service")
def service_on_one_port(tmp_path):
    """Whose NBD clients find it again where it was."""
    options = [f"--block.nbd-socket={tmp_path}/nbd.sock"]
    with Service(str(tmp_path / "data"), options) as service:
        keep_nbd_port(service)
        yield service


def places(command):
    return [command.format(n * APART) for n in range(PIECES)]


@pytest.mark.parametrize("over", ["tcp", "unix"])
def test_what_was_not_flushed_is_there(service, over):
    need("qemu-io")
    volumes = Volumes(service)
    volume = volumes.create()
    attachment, connection = volumes.attach(volume)
    client = Client(connection, over)
    try:
        # Old, and flushed; then new, over it, beside it and zeros, which is not.
        client.do(*places("write -P 0x0d {} 64k"))
        qemu_io(connection["uri"], "flush")
        for generation in (1, 2, 3):
            client.do(*places(f"write -P {generation} {{}} 128k"),
                      *(f"write -z {n * APART + 65536} 4k" for n in range(PIECES)))
            service.kill()
            service.start()
            # The same client, under the same name.
            client.do(*places(f"read -P {generation} {{}} 64k"),
                      *(f"read -P 0 {n * APART + 65536} 4k" for n in range(PIECES)),
                      *(f"read -P {generation} {n * APART + 69632} 60k" for n in range(PIECES)))
        # And another, after kills while nobody is there; and while it starts.
        client.do(*places("write -P 9 {} 4k"))
        client.end()
        service.kill()
        for _ in range(3):
            service.launch()
            service.kill()
        service.start()
        qemu_io(connection["uri"], *places("read -P 9 {} 4k"))
    finally:
        client.end()
    volumes = Volumes(service)
    assert volumes.wait("volume", volume, "in-use")["attachments"]
    volumes.detach(attachment)
    volumes.wait("volume", volume, "available")


def test_a_stop_leaves_nothing_in_memory(service):
    volumes = Volumes(service)
    volume = volumes.create()
    _, connection = volumes.attach(volume)
    layers = os.stat(service.data_dir + "/layers")
    memory = f"/dev/shm/quarry-{os.geteuid()}-{layers.st_dev:x}-{layers.st_ino:x}"
    client = Client(connection, "tcp")
    try:
        client.do(*places("write -P 1 {} 4k"))
        assert len(os.listdir(memory)) == 1
        service.kill()
        assert len(os.listdir(memory)) == 1
        service.start()
        client.do(*places("read -P 1 {} 4k"))
    finally:
        client.end()
    assert service.stop() == 0
    assert not os.path.exists(memory) and not os.path.exists(service.data_dir + "/layers/live")
    service.start()
    qemu_io(connection["uri"], *places("read -P 1 {} 4k"))


def test_without_a_place_in_memory_it_goes_on_as_it_can(service):
    """As after a power loss: what was flushed is there."""
    service.options.append("--block.live-dir=none")
    assert service.stop() == 0
    service.start()
    volumes = Volumes(service)
    _, connection = volumes.attach(volumes.create())
    qemu_io(connection["uri"], *places("write -P 1 {} 4k"), "flush")
    client = Client(connection, "tcp")
    try:
        client.do(*places("write -P 2 {} 64k"))
        service.kill()
        service.start()
        for n in range(PIECES):  # the blocks that were there keep one of both
            said = qemu_io(connection["uri"], f"read -P 2 {n * APART} 4k", check=False).stdout
            if "fail" in said:
                qemu_io(connection["uri"], f"read -P 1 {n * APART} 4k")
            qemu_io(connection["uri"], f"read -P 0 {n * APART + 4096} 60k")
    finally:
        client.end()
