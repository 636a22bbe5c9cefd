"""NBD's clients, for tests: those that people have."""

import contextlib
import os
import shutil
import subprocess
import sys
import time

import pytest

SECONDS = 60


def need(*programs):
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.fail(f"install {', '.join(missing)} "
                    "(libnbd-bin, fuse3, fio, qemu-utils, gnutls-bin); ./dev test does")


def run(*command, check=True, **kwargs):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          timeout=SECONDS, **kwargs)
    if check:
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done


def pattern(size):
    """Data, holes, and data that does not end on a block."""
    block = os.urandom(1 << 20)
    return (block * 3 + bytes(5 << 20) + block + bytes(512) + block)[:size].ljust(size, b"\0")


def qemu_io(uri, *commands, check=True, options=()):
    words = [word for command in commands for word in ("-c", command)]
    done = run("qemu-io", "-f", "raw", *options, *words, uri, check=check)
    # qemu-io says on its output that a pattern differs, or that a request failed.
    if check:
        assert "fail" not in done.stdout.lower(), done.stdout
    return done


def need_fuse():
    need("nbdfuse", "fusermount3")
    if not os.path.exists("/dev/fuse"):
        print("nbdfuse was NOT tried: this machine has no /dev/fuse", file=sys.stderr)
        pytest.skip("no /dev/fuse: nbdfuse was not tried")


@contextlib.contextmanager
def mounted(folder, uri):
    """A volume as a file: its path."""
    mount = folder / "disk"
    mount.mkdir()
    fuse = subprocess.Popen(["nbdfuse", str(mount), uri])
    try:
        disk = mount / "nbd"
        deadline = time.monotonic() + SECONDS
        while not disk.exists():
            assert fuse.poll() is None and time.monotonic() < deadline, "nbdfuse did not start"
            time.sleep(0.01)
        yield disk
    finally:
        run("fusermount3", "-u", mount, check=False)
        fuse.wait(SECONDS)


def write_and_read(disk, data):
    with open(disk, "r+b", buffering=0) as volume:
        for at in range(0, len(data), 1 << 20):
            volume.write(data[at:at + (1 << 20)])
        os.fsync(volume.fileno())
    with open(disk, "rb") as volume:
        assert volume.read(len(data)) == data


def make_secrets(folder):
    """A CA, certificates for localhost and for a client (in client/), and a pre-shared key, as QEMU
    and libnbd want them."""
    need("openssl", "psktool")

    def openssl(*words):
        run("openssl", *words, cwd=folder)
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca-key.pem", "-out",
            "ca-cert.pem", "-days", "2", "-subj", "/CN=test CA",
            "-addext", "keyUsage=critical,keyCertSign")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "server-key.pem", "-out",
            "server.csr", "-subj", "/CN=localhost")
    (folder / "san").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem",
            "-CAcreateserial", "-days", "2", "-extfile", "san", "-out", "server-cert.pem")
    client = folder / "client"
    client.mkdir()
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "client/client-key.pem", "-out",
            "client.csr", "-subj", "/CN=client")
    openssl("x509", "-req", "-in", "client.csr", "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem",
            "-CAcreateserial", "-days", "2", "-out", "client/client-cert.pem")
    shutil.copy(folder / "ca-cert.pem", client)
    run("psktool", "-u", "alice", "-p", folder / "keys.psk")
    return folder
