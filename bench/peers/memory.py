"""Quarry's peak memory while eight clients upload 1 GiB of random data each at once."""

import subprocess
import time

from system import MIB, Failed, random_file, settle

UPLOADS = 8
SIZE = 1024 * MIB


def upload_all(quarry, files):
    """Seconds until all uploads are answered."""
    cloud = quarry.cloud
    images = [cloud.create_image(path.name) for path in files]
    started = time.monotonic()
    running = [subprocess.Popen(
        ["curl", "-sS", "-f", "-o", "/dev/null", "-X", "PUT", "-T", path, "-H",
         f"X-Auth-Token: {cloud.token}", "-H", "Content-Type: application/octet-stream", "-H",
         "Expect:", cloud.file_url(image)], stdin=subprocess.DEVNULL)
        for path, image in zip(files, images)]
    try:
        codes = [process.wait(900) for process in running]
    finally:
        for process in running:
            process.kill()
    if any(codes):
        raise Failed(f"uploads failed; curl's exit codes: {codes}")
    return time.monotonic() - started


def measure(context, figures):
    if not context.quarry_binary:
        return
    with context.folder() as folder:
        files = [random_file(folder / f"random-{number}", SIZE) for number in range(UPLOADS)]
        for _ in context.rounds("memory"):
            settle()
            with context.fresh_quarry() as quarry:
                elapsed = upload_all(quarry, files)
                figures.add("memory", f"peak of {UPLOADS} uploads", "MiB", "quarry",
                            quarry.peak_memory() / MIB)
                figures.add("memory", f"rate of {UPLOADS} uploads together", "MiB/s", "quarry",
                            UPLOADS * SIZE / MIB / elapsed)
