"""What this machine allows: the bounds that no contender can pass."""

import re
import time

from system import MIB, Failed, install, run, settle

DISK_BYTES = 1024 * MIB


def digest_rate(name):
    """MiB/s of one core over large blocks."""
    said = run("openssl", "speed", "-seconds", "1", "-bytes", "1048576", "-evp", name).stdout
    found = re.findall(rf"^{name}\s+([\d.]+)k", said, re.M | re.I)
    if not found:
        raise Failed(f"openssl speed printed no figure for {name}:\n{said}")
    return float(found[-1]) * 1000 / MIB


def disk_write_rate(directory):
    """MiB/s of large writes until they are on the disk."""
    target = directory / "disk-write"
    settle()
    started = time.monotonic()
    run("dd", "if=/dev/zero", f"of={target}", "bs=4M", f"count={DISK_BYTES // (4 * MIB)}",
        "oflag=direct", "conv=fsync")
    elapsed = time.monotonic() - started
    target.unlink()
    return DISK_BYTES / MIB / elapsed


def unzstd_rate(archive, size_bytes):
    """MiB/s of plain bytes that one core unpacks from `archive`."""
    started = time.monotonic()
    run("zstd", "-q", "-t", archive)
    return size_bytes / MIB / (time.monotonic() - started)


def measure(context, figures):
    install(["openssl", "zstd"])
    disk = context.image("full")
    archive = context.work / "disk.zst"
    run("zstd", "-q", "-3", "-T0", "-f", disk, "-o", archive)
    for number in context.rounds("machine"):
        for name, label in (("sha256", "SHA-256"), ("sha512", "SHA-512"), ("md5", "MD5")):
            figures.add("machine", label, "MiB/s", "one core", digest_rate(name))
        figures.add("machine", "zstd -d of the disk image", "MiB/s", "one core",
                    unzstd_rate(archive, disk.stat().st_size))
        figures.add("machine", "disk write (direct, synced)", "MiB/s", "one core",
                    disk_write_rate(context.work))
    archive.unlink()
