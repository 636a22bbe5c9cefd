"""Similar disk images: how much is stored and how fast it is taken in, against backup programs."""

import os
import time
from pathlib import Path

from system import MIB, Failed, disk_bytes, install, run, settle, warm
from transfer import curl, wait_idle

IMAGES = ["base", "added", "upgraded", "rebuilt", "rebuilt-upgraded", "rebuilt-added"]


class Restic:
    name = "restic"

    def __init__(self, directory):
        self.data = directory / "restic"
        self._env = dict(os.environ, RESTIC_PASSWORD="benchmark", HOME=str(directory))
        self._restic("init")

    def _restic(self, *args):
        run("restic", "--quiet", "--no-cache", "-r", self.data, *args, env=self._env)

    def store(self, path):
        self._restic("backup", path)


class Borg:
    name = "borg"

    def __init__(self, directory):
        self.data = directory / "borg"
        self._env = dict(os.environ, BORG_BASE_DIR=str(directory),
                         BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK="yes")
        run("borg", "init", "--encryption=none", self.data, env=self._env)

    def store(self, path):
        run("borg", "create", "--compression=zstd", "--files-cache=disabled",
            f"{self.data}::{path.stem}", path, env=self._env)


class Casync:
    name = "casync"

    def __init__(self, directory):
        self.data = directory / "casync"
        self.data.mkdir()

    def store(self, path):
        run("casync", "make", f"--store={self.data}/default.castr",
            self.data / f"{path.stem}.caibx", path)


class QuarryStore:
    """Quarry by its Image API, as the others by their command lines."""

    name = "quarry"

    def __init__(self, quarry):
        self._quarry, self.data = quarry, quarry.data

    def store(self, path):
        cloud = self._quarry.cloud
        image = cloud.create_image(path.stem)
        status, _, _ = curl("-X", "PUT", "-T", path, "-H", f"X-Auth-Token: {cloud.token}", "-H",
                            "Content-Type: application/octet-stream", "-H", "Expect:",
                            cloud.file_url(image))
        if status != 204:
            raise Failed(f"quarry answered {status} to the upload of {path.name}")

    def finish(self):
        wait_idle(self._quarry)


def take_in(figures, store, images):
    """Stores all images one after the other in a fresh store."""
    settle()
    started, stored = time.monotonic(), 0
    for path in images:
        store.store(path)
        now = disk_bytes(store.data)
        figures.add("similar images", f"added by {path.stem}", "MiB", store.name,
                    (now - stored) / MIB)
        stored = now
    elapsed = time.monotonic() - started
    if hasattr(store, "finish"):
        store.finish()
    stored = disk_bytes(store.data)
    logical = sum(path.stat().st_size for path in images)
    filled = sum(disk_bytes(path) for path in images)
    figures.add("similar images", "stored", "MiB", store.name, stored / MIB)
    figures.add("similar images", "data / stored", "x", store.name, filled / stored)
    figures.add("similar images", "logical / stored", "x", store.name, logical / stored)
    figures.add("similar images", "ingest of data", "MiB/s", store.name, filled / MIB / elapsed)
    figures.add("similar images", "ingest, elapsed", "s", store.name, elapsed)


def measure(context, figures):
    install(["restic", "borgbackup", "casync"])
    images = [context.image(name) for name in IMAGES]
    for path in images:
        warm(path)
    figures.note("similar images: six 1 GiB ext4 disks, one after the other into an empty store: "
                 + ", ".join(IMAGES) + "; 'data' is what they occupy (holes not counted)")
    figures.note("similar images: restic encrypts; borg with zstd, unencrypted; casync with zstd; "
                 "Quarry by its API, stored bytes after its background work")
    for number in context.rounds("similar images"):
        turns = [lambda d, kind=kind: take_in(figures, kind(d), images)
                 for kind in (Restic, Borg, Casync)]
        with context.fresh_quarry() as quarry:
            if quarry:
                turns.insert(0, lambda _: take_in(figures, QuarryStore(quarry), images))
            turn = number % len(turns)
            for take_turn in turns[turn:] + turns[:turn]:
                with context.folder() as directory:
                    take_turn(Path(directory))
