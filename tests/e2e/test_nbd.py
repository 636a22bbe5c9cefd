"""The NBD server against the clients that people have: QEMU's tools, libnbd's, fio."""

import json
import os
import subprocess
import time

import pytest

from nbd_tools import (SECONDS, make_secrets, mounted, need, need_fuse, pattern, qemu_io, run,
                       write_and_read)

SERVER = os.path.join(os.path.dirname(os.path.abspath(os.environ.get(
    "TEST_QUARRY_BINARY", "build/release/bin/quarry"))), "nbd_test_server")
SIZE = 64 << 20


class Server:
    """nbd_test_server on a unix socket (and whatever the options say)."""

    def __init__(self, folder, *options, size=SIZE):
        self.socket = str(folder / "nbd.sock")
        self.process = subprocess.Popen(
            [SERVER, "--unix", self.socket, "--size", str(size), *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = None
        while True:
            line = self.process.stdout.readline()
            assert line, "the server did not start"
            word, value = line.split()
            if word == "port":
                self.port = int(value)
            if word == "ready":
                self.attachment = value
                break

    def uri(self, name="disk"):
        return f"nbd+unix:///{name}?socket={self.socket}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            code = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        assert code == 0, "the server did not stop cleanly"


def test_nbdinfo_sees_what_is_served(tmp_path):
    need("nbdinfo")
    with Server(tmp_path) as server:
        info = json.loads(run("nbdinfo", "--json", server.uri()).stdout)["exports"][0]
        assert info["export-size"] == SIZE
        assert info["block_size_minimum"] == 512
        assert info["block_size_preferred"] == 4096 and info["block_size_maximum"] == 32 << 20
        for ability in ("cache", "df", "fast_zero", "flush", "fua", "multi_conn", "trim", "zero"):
            assert info[f"can_{ability}"], ability
        assert not info["is_read_only"]
        readonly = json.loads(run("nbdinfo", "--json", server.uri("readonly")).stdout)["exports"][0]
        assert readonly["is_read_only"] and not readonly["can_trim"]
        changed = run("nbdinfo", "--map=quarry:changed-since/before", server.uri()).stdout
        assert [line.split()[:3] for line in changed.splitlines()] == [
            ["0", str(1 << 20), "1"], [str(1 << 20), str(SIZE - (1 << 20)), "0"]]


def test_names_are_secrets(tmp_path):
    need("nbdinfo", "qemu-nbd")
    with Server(tmp_path) as server:
        for name in ("", "nosuch", "attachment", "attachment.", server.attachment[:-1],
                     server.attachment + "x"):
            assert run("nbdinfo", "--size", server.uri(name), check=False).returncode != 0, name
        assert run("nbdinfo", "--size", server.uri(server.attachment)).stdout.strip() == str(SIZE)
        listed = run("qemu-nbd", "--list", "-k", server.socket, check=False)
        assert "disk" not in listed.stdout and server.attachment not in listed.stdout


def test_exports_are_listed_where_that_is_allowed(tmp_path):
    need("nbdinfo", "qemu-nbd")
    with Server(tmp_path, "--list") as server:
        listed = run("qemu-nbd", "--list", "-k", server.socket).stdout
        assert "'disk'" in listed and "'readonly'" in listed
        exports = json.loads(run("nbdinfo", "--json", "--list",
                                 f"nbd+unix://?socket={server.socket}").stdout)["exports"]
        assert [export["export-name"] for export in exports] == ["disk", "readonly"]


def test_nbdcopy_there_and_back(tmp_path):
    need("nbdcopy")
    source, back = tmp_path / "source.raw", tmp_path / "back.raw"
    source.write_bytes(pattern(SIZE))
    with Server(tmp_path) as server:
        # Four connections, many requests in flight.
        run("nbdcopy", "--connections=4", "--requests=64", "--flush", source, server.uri())
        run("nbdcopy", "--connections=4", server.uri(), back)
        assert back.read_bytes() == source.read_bytes()
        # Holes were not sent as bytes: the server says that they take no space.
        extents = json.loads(run("nbdinfo", "--map", "--json", server.uri()).stdout)
        assert sum(e["length"] for e in extents if e["type"] == 0) < 8 << 20
        # Without structured replies and one request at a time.
        run("nbdcopy", "--synchronous", "--request-size=65536", server.uri(), back)
        assert back.read_bytes() == source.read_bytes()


def test_qemu_img_converts_and_compares(tmp_path):
    need("qemu-img")
    source, qcow = tmp_path / "source.raw", tmp_path / "copy.qcow2"
    source.write_bytes(pattern(SIZE))
    with Server(tmp_path) as server:
        run("qemu-img", "convert", "-n", "-W", "-m", "16", "-f", "raw", "-O", "raw", source,
            server.uri())
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", source, server.uri())
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", server.uri(), qcow)
        run("qemu-img", "compare", "-f", "raw", source, qcow)
        extents = json.loads(run("qemu-img", "map", "--output=json", "-f", "raw",
                                 server.uri()).stdout)
        assert any(extent["zero"] for extent in extents)


def test_qemu_io_writes_trims_and_zeroes(tmp_path):
    need("qemu-io")
    with Server(tmp_path) as server:
        qemu_io(server.uri(),
                "write -P 0x11 0 1M", "write -P 0x22 512 512", "write -f -P 0x33 1M 64k",
                "read -P 0x11 0 512", "read -P 0x22 512 512", "read -P 0x11 1k 1023k",
                "read -P 0x33 1M 64k",
                "discard 8k 16k", "read -P 0 8k 16k", "read -P 0x11 24k 4k",
                "write -z 512 512", "read -P 0 512 512",          # zero, may unmap
                "write -z -u 32k 32k", "read -P 0 32k 32k", "flush",
                "aio_write -P 0x44 2M 4M", "aio_write -P 0x55 8M 20M", "aio_flush",
                "read -P 0x44 2M 4M", "read -P 0x55 8M 20M",
                f"read -P 0 {SIZE - 4096} 4k")
        refused = qemu_io(server.uri("readonly"), "write 0 4k", check=False)
        assert "read-only" in (refused.stdout + refused.stderr).lower() or refused.returncode != 0
        assert "read 4096/4096" in qemu_io(server.uri("readonly"), "read -P 0x11 1k 4k",
                                           options=["-r"]).stdout


def test_fio_verifies_what_it_wrote(tmp_path):
    need("fio")
    with Server(tmp_path) as server:
        for job in (["--rw=randwrite", "--bsrange=512-64k", "--iodepth=32"],
                    ["--rw=randrw", "--bs=4k", "--iodepth=128", "--fsync=64"],
                    ["--rw=write", "--bs=1m", "--iodepth=8"],
                    ["--rw=randtrim", "--bs=64k", "--iodepth=8"]):
            verify = [] if "--rw=randtrim" in job else ["--verify=crc32c", "--verify_fatal=1"]
            done = run("fio", "--name=job", "--ioengine=nbd", f"--uri={server.uri()}",
                       f"--size={SIZE}", "--io_size=32m", "--randrepeat=0", *job, *verify,
                       cwd=tmp_path)
            assert "err= 0" in done.stdout, done.stdout


def test_limits_hold_for_a_real_client(tmp_path):
    need("fio")
    with Server(tmp_path, "--iops", "500") as server:
        done = run("fio", "--name=job", "--ioengine=nbd", f"--uri={server.uri()}", "--rw=randread",
                   "--bs=4k", "--iodepth=32", f"--size={SIZE}", "--time_based", "--runtime=3",
                   "--output-format=json", cwd=tmp_path)
        # How closely is for the simulation to say; here, that a real client meets the limit.
        rate = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]["read"]["iops"]
        assert 250 < rate < 600, rate


def test_nbdfuse_shows_the_volume_as_a_file(tmp_path):
    need_fuse()
    with Server(tmp_path) as server, mounted(tmp_path, server.uri()) as disk:
        write_and_read(disk, pattern(16 << 20))


def test_a_client_that_goes_away_harms_nobody(tmp_path):
    need("fio", "qemu-io")
    with Server(tmp_path) as server:
        noise = subprocess.Popen(
            ["fio", "--name=noise", "--ioengine=nbd", f"--uri={server.uri()}", "--rw=randwrite",
             "--bs=4k", "--iodepth=64", f"--size={SIZE // 2}", "--time_based", "--runtime=60"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)
        time.sleep(0.3)  # lets it run a while; nothing depends on how long
        noise.kill()
        noise.wait()
        qemu_io(server.uri(), f"write -P 0x77 {SIZE // 2} 1M", f"read -P 0x77 {SIZE // 2} 1M")


@pytest.fixture(name="secrets", scope="module")
def secrets_of_this_module(tmp_path_factory):
    return make_secrets(tmp_path_factory.mktemp("tls"))


def test_tls_with_certificates(tmp_path, secrets):
    need("nbdinfo", "nbdcopy", "qemu-io")
    with Server(tmp_path, "--tcp", "127.0.0.1:0", "--tls-cert", str(secrets / "server-cert.pem"),
                "--tls-key", str(secrets / "server-key.pem")) as server:
        uri = f"nbds://localhost:{server.port}/disk?tls-certificates={secrets}"
        info = json.loads(run("nbdinfo", "--json", uri).stdout)
        assert info["TLS"] and info["structured"]
        source, back = tmp_path / "source.raw", tmp_path / "back.raw"
        source.write_bytes(pattern(SIZE))
        run("nbdcopy", source, uri)
        run("nbdcopy", uri, back)
        assert back.read_bytes() == source.read_bytes()
        run("qemu-io", "--object", f"tls-creds-x509,id=tls,endpoint=client,dir={secrets}",
            "--image-opts", "-c", "write -P 0x66 1M 8M", "-c", "read -P 0x66 1M 8M",
            f"driver=nbd,host=localhost,port={server.port},export=disk,tls-creds=tls")
        # Clear text is still possible over loopback; off it, it would not be.
        assert run("nbdinfo", "--size", f"nbd://localhost:{server.port}/disk").returncode == 0


def test_tls_with_keys(tmp_path, secrets):
    need("nbdinfo", "nbdcopy", "qemu-img")
    with Server(tmp_path, "--tcp", "127.0.0.1:0", "--tls-psk", str(secrets / "keys.psk")) as server:
        keys = secrets / "keys.psk"
        uri = f"nbds://alice@localhost:{server.port}/disk?tls-psk-file={keys}"
        info = json.loads(run("nbdinfo", "--json", uri).stdout)
        assert info["TLS"]
        source = tmp_path / "source.raw"
        source.write_bytes(pattern(SIZE))
        run("nbdcopy", source, uri)
        over_unix = f"nbds+unix://alice@/disk?socket={server.socket}&tls-psk-file={keys}"
        back = tmp_path / "back.raw"
        run("nbdcopy", over_unix, back)
        assert back.read_bytes() == source.read_bytes()
        wrong = tmp_path / "wrong.psk"
        wrong.write_text("alice:" + "00" * 32 + "\n")
        refused = run("nbdinfo", f"nbds://alice@localhost:{server.port}/disk?tls-psk-file={wrong}",
                      check=False)
        assert refused.returncode != 0


def test_tls_with_certificates_and_keys_at_once(tmp_path, secrets):
    need("nbdinfo")
    keys = secrets / "keys.psk"
    with Server(tmp_path, "--tcp", "127.0.0.1:0", "--tls-psk", str(keys), "--tls-cert",
                str(secrets / "server-cert.pem"), "--tls-key",
                str(secrets / "server-key.pem")) as server:
        for who in (f"alice@localhost:{server.port}/disk?tls-psk-file={keys}",
                    f"localhost:{server.port}/disk?tls-certificates={secrets}"):
            assert json.loads(run("nbdinfo", "--json", "nbds://" + who).stdout)["TLS"]


def test_short_keys_are_refused(tmp_path):
    keys = tmp_path / "keys.psk"
    keys.write_text("alice:0011\n")
    refused = subprocess.run([SERVER, "--unix", str(tmp_path / "s"), "--tls-psk", str(keys)],
                             capture_output=True, text=True, timeout=30)
    assert refused.returncode != 0 and "16 bytes" in refused.stderr, refused.stderr


def test_off_loopback_needs_tls(tmp_path):
    refused = subprocess.run([SERVER, "--unix", str(tmp_path / "s"), "--tcp", "0.0.0.0:0"],
                             stdin=subprocess.DEVNULL, capture_output=True, text=True,
                             timeout=SECONDS, check=False)
    assert refused.returncode == 1 and "TLS" in refused.stderr


def test_beyond_loopback_clear_text_reaches_nothing(tmp_path, secrets):
    need("nbdinfo")
    with Server(tmp_path, "--tcp", "0.0.0.0:0", "--tls-psk", str(secrets / "keys.psk")) as server:
        plain = run("nbdinfo", "--size", f"nbd://127.0.0.1:{server.port}/disk", check=False)
        assert plain.returncode != 0 and "TLS" in plain.stderr, plain.stderr
        keys = secrets / "keys.psk"
        secret = f"nbds://alice@127.0.0.1:{server.port}/disk?tls-psk-file={keys}"
        assert run("nbdinfo", "--size", secret).stdout.strip() == str(SIZE)
