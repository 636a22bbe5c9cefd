#!/usr/bin/env python3
"""Kills the service with kill -9 at random moments of negotiated pushes, which share chunks and
assemble them of each other's, while images are deleted and garbage is collected.

What must hold after every kill:
  - a push that ended well left an active image, which comes back byte for byte until its deletion
    was asked for;
  - one that did not left a queued image, or (only the answer was lost) an active and whole one;
  - a deletion that was acknowledged is final;
and at the very end: a scrub finds nothing; with everything deleted, and no part of a push kept,
no chunk, no byte, no file is left.

    tests/e2e/push_crash.py --seconds 45 [--seed N]
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import service as quarry  # noqa: E402
from crash import OPTIONS, settled  # noqa: E402

CHUNK = 4 << 20
PAGE = 4096
PUSHERS = 2
MAX_IMAGES = 8
MAX_KILL_AFTER_SECONDS = 2.0


def sibling(data, rng):
    """Pages changed, inserted and gone here and there: each chunk differs, most of it is known."""
    pages = [data[at:at + PAGE] for at in range(0, len(data), PAGE)]
    for at in range(len(pages) - 10, 0, -rng.randrange(300, 700)):
        pages[at] = rng.randbytes(PAGE)
        if rng.random() < 0.5:
            pages.insert(at, rng.randbytes(PAGE))
        else:
            del pages[at + 3]
    return b"".join(pages)


class Files:
    """What is pushed: two families of siblings, with holes and short ends."""

    def __init__(self, folder, rng):
        self.paths, self.sums = {}, {}
        for family in range(2):
            data = rng.randbytes(3 * CHUNK) + bytes(CHUNK) + rng.randbytes(CHUNK // 2 + family)
            for generation in range(3):
                name = f"f{family}-{generation}"
                self.paths[name] = os.path.join(folder, name)
                self.sums[name] = hashlib.sha256(data).hexdigest()
                with open(self.paths[name], "wb") as file:
                    file.write(data)
                data = sibling(data, rng)


class Expected:
    """Images that were acknowledged: their files; and whose deletion was asked for."""

    def __init__(self):
        self.lock = threading.Lock()
        self.files, self.asked, self.deleted = {}, set(), set()
        self.pushes = self.named_bytes = 0

    def pushed(self, image_id, name, named_bytes):
        with self.lock:
            self.files[image_id] = name
            self.pushes += 1
            self.named_bytes += named_bytes

    def pick(self, rng):
        with self.lock:
            left = sorted(set(self.files) - self.asked)
            if len(left) <= rng.randrange(1, MAX_IMAGES):
                return None
            picked = rng.choice(left)
            self.asked.add(picked)
            return picked


class Workload:
    """Pushers, and one who deletes and collects, until the service is gone."""

    def __init__(self, service, token, files, expected, seed):
        self.service, self.token = service, token
        self.files, self.expected = files, expected
        self.killed = threading.Event()
        self.errors = []
        self.environment = service.as_user()
        self.threads = [threading.Thread(target=self.run, args=(self.push, seed + i))
                        for i in range(PUSHERS)]
        self.threads.append(threading.Thread(target=self.run, args=(self.clear, seed + PUSHERS)))
        for thread in self.threads:
            thread.start()

    def run(self, step, seed):
        rng = random.Random(seed)
        try:
            while not self.killed.is_set():
                step(rng)
        except OSError as error:
            if not self.killed.is_set():
                self.errors.append(f"broken off before the kill: {error!r}")
        except Exception as error:  # noqa: BLE001 - told to the main thread
            self.errors.append(repr(error))

    def push(self, rng):
        name = rng.choice(sorted(self.files.paths))
        done = subprocess.run([quarry.QUARRY, "image", "push", self.files.paths[name], "--again",
                               "--json", "--name", name], env=self.environment,
                              capture_output=True, timeout=60, check=False)
        if done.returncode == 0:
            said = json.loads(done.stdout)
            self.expected.pushed(said["id"], name, said["bytes_already_there"])
        elif not self.killed.is_set():
            raise AssertionError(f"push ended with {done.returncode}: {done.stderr[-500:]}")

    def clear(self, rng):
        time.sleep(rng.random() * 0.1)
        if rng.random() < 0.5:
            quarry.call("POST", self.service.base + "/admin/v1/gc",
                        {"orphans": rng.random() < 0.3}, {"X-Auth-Token": self.token})
            return
        image_id = self.expected.pick(rng)
        if image_id is None:
            return
        reply = quarry.Images(self.service, self.token).call("DELETE", f"/{image_id}")
        if reply.status not in (204, 404):
            raise AssertionError(f"delete answered {reply.status}: {reply.body[:200]}")
        with self.expected.lock:
            self.expected.deleted.add(image_id)

    def join(self):
        for thread in self.threads:
            thread.join()
        assert not self.errors, self.errors


def check_bytes(images, image_id, files, name):
    body = images.call("GET", f"/{image_id}/file")
    assert body.status == 200, (body.status, body.body[:200])
    assert hashlib.sha256(body.body).hexdigest() == files.sums[name], \
        f"image {image_id}: wrong bytes of {name}"


def check_world(images, files, expected, rng, share):
    """All that was acknowledged is there; of what was not, nothing that is half done stays."""
    found = {image["id"]: settled(images, image["id"]).json() for image in images.list()}
    for image_id, name in expected.files.items():
        if image_id in expected.deleted:
            assert image_id not in found, f"image {image_id} came back after its deletion"
        elif image_id not in expected.asked:
            assert image_id in found, f"image {image_id} is lost"
            assert found[image_id]["status"] == "active", found[image_id]
    for image_id, image in found.items():
        if image["status"] == "active" and rng.random() < share:
            check_bytes(images, image_id, files, image["name"])
        if image_id not in expected.files or image_id in expected.asked:
            assert images.call("DELETE", f"/{image_id}").status == 204


def check_nothing_left(service, files, expected, rng):
    images = quarry.Images(service)
    check_world(images, files, expected, rng, 1.0)
    done = service.quarry("scrub", "--json")
    assert done.returncode == 0, (done.stdout, done.stderr)
    for image in images.list():
        assert images.call("DELETE", f"/{image['id']}").status == 204
    assert service.stop() == 0
    service.options.append("--image.kept-bytes=0")
    service.start()
    stats = None
    for _ in range(20):
        assert service.quarry("gc", "--orphans").returncode == 0
        stats = json.loads(service.quarry("stats", "--json").stdout)
        left = [os.path.join(folder, name)
                for folder, _, names in os.walk(os.path.join(service.data_dir, "blobs"))
                for name in names]
        if not left and stats["chunks"] == 0 and stats["holders"] == 0:
            return
        time.sleep(0.5)  # the leases of uploads that were killed run out
    raise AssertionError(f"the collector left something: {stats}, files {left[:5]}")


def run(args, seed):
    rng = random.Random(seed)
    expected, kills, started = Expected(), 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="quarry-push-crash-") as directory:
        files = Files(directory, rng)
        service = quarry.Service(directory + "/data", OPTIONS)
        try:
            while True:
                service.start()
                token = service.token()
                check_world(quarry.Images(service, token), files, expected, rng, 0.2)
                if time.monotonic() - started > args.seconds:
                    break
                workload = Workload(service, token, files, expected, rng.randrange(1 << 30))
                time.sleep(rng.random() * MAX_KILL_AFTER_SECONDS)
                workload.killed.set()
                service.kill()
                workload.join()
                kills += 1
            check_nothing_left(service, files, expected, rng)
            assert service.stop() == 0
        except BaseException:
            print(service.log_text()[-3000:], file=sys.stderr)
            print(f"push_crash: failed with --seed {seed}", file=sys.stderr)
            raise
        finally:
            if service.process is not None:
                service.kill()
    assert expected.pushes > 0 and expected.named_bytes > 0, "nothing of what it is about was tried"
    print(f"push_crash: {kills} kills, {expected.pushes} pushes acknowledged, "
          f"{expected.named_bytes >> 20} MiB named, {len(expected.deleted)} deletions; nothing "
          f"lost, nothing partial, nothing left, {time.monotonic() - started:.0f} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=45)
    parser.add_argument("--seed", type=int, default=None)
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else random.randrange(1 << 30)
    print(f"push_crash: seed {seed}", flush=True)
    run(args, seed)


if __name__ == "__main__":
    main()
