"""A client that is detached is cut off at once: what it still sends never reaches the volume,
however busy, slow or stubborn it is, and the next one has the volume for itself."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import service as quarry  # noqa: E402
from volumes import Volumes  # noqa: E402

ROUNDS = 10
REGION = 64 << 20
SECONDS = 60
FIRST, SECOND = "0xaa", "0xbb"


@pytest.fixture(name="volumes", scope="module")
def make_client():
    missing = [tool for tool in ("fio", "qemu-io") if shutil.which(tool) is None]
    if missing:
        pytest.fail(f"install {', '.join(missing)}; ./dev test does")
    with quarry.Service() as running:
        yield Volumes(running)


def write_forever(uri, folder):
    """A client that writes over the region again and again, 32 requests in flight."""
    return subprocess.Popen(
        ["fio", "--name=first", "--ioengine=nbd", f"--uri={uri}", "--rw=randwrite", "--bs=16k",
         "--iodepth=32", f"--size={REGION}", "--time_based", "--runtime=600",
         f"--buffer_pattern={FIRST}"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder)


def qemu_io(uri, *commands):
    words = [word for command in commands for word in ("-c", command)]
    return subprocess.run(["qemu-io", "-f", "raw", *words, uri], capture_output=True, text=True,
                          timeout=SECONDS, check=False)


def take_over(volumes, volume):
    """Another host has the volume now, and writes over all that the first wrote."""
    volumes.wait("volume", volume, "available")
    attachment, connection = volumes.attach(volume, "there")
    done = qemu_io(connection["uri"], f"write -P {SECOND} 0 {REGION}", "flush")
    assert done.returncode == 0, (done.stdout, done.stderr)
    return attachment, connection["uri"]


def check_is_seconds(uri):
    done = qemu_io(uri, f"read -P {SECOND} 0 {REGION}")
    assert done.returncode == 0 and "verification failed" not in done.stdout, done.stdout


@pytest.mark.parametrize("stopped", [False, True], ids=["busy", "stopped"])
def test_what_a_detached_client_sends_goes_nowhere(volumes, tmp_path, stopped):
    """`stopped`: the client's machine hangs in the middle, and wakes up when all is over."""
    volume = volumes.create()
    written = 0
    for _ in range(ROUNDS):
        first, connection = volumes.attach(volume)
        writer = write_forever(connection["uri"], tmp_path)
        try:
            volumes.wait_for_writes(volume, written)
            refused = volumes.call("POST", "/attachments", {"attachment": {
                "volume_uuid": volume, "connector": {"host": "there"}}})
            assert refused.status == 400, "two hosts at once"
            if stopped:
                writer.send_signal(signal.SIGSTOP)
            volumes.detach(first)
            second, uri = take_over(volumes, volume)
            if stopped:
                writer.send_signal(signal.SIGCONT)
            output, _ = writer.communicate(timeout=SECONDS)
            assert writer.returncode != 0, output
        finally:
            writer.kill()
            writer.wait()
        # Its name opens nothing any more.
        assert qemu_io(connection["uri"], f"write -P {FIRST} 0 4k").returncode != 0
        check_is_seconds(uri)
        volumes.detach(second)
        volumes.wait("volume", volume, "available")
        written = volumes.written_bytes(volume)


def test_a_client_that_connects_again_is_refused(volumes):
    """QEMU tries again for a while when its server is gone, under the name that it knows."""
    volume = volumes.create()
    first, connection = volumes.attach(volume)
    options = (f"driver=nbd,host={connection['host']},port={connection['port']},"
               f"export={connection['export']},reconnect-delay=3")
    stubborn = subprocess.Popen(["qemu-io", "--image-opts", options], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        stubborn.stdin.write(f"write -P {FIRST} 0 1M\nflush\n")
        stubborn.stdin.flush()
        volumes.wait_for_writes(volume)
        volumes.detach(first)
        second, uri = take_over(volumes, volume)
        output, _ = stubborn.communicate(f"write -P {FIRST} 0 {REGION}\nflush\nquit\n", SECONDS)
        assert "write failed" in output, output
    finally:
        stubborn.kill()
        stubborn.wait()
    check_is_seconds(uri)
    volumes.detach(second)
