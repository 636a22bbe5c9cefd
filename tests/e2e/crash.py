#!/usr/bin/env python3
"""Kills the service with kill -9 at random moments of uploads, deletes and collections.

What must hold after every kill:
  - an upload that was acknowledged is active and comes back byte for byte, until its deletion
    was asked for;
  - an upload that was not is queued (or, if only the answer was lost, active and whole): never
    in between;
  - a deletion that was acknowledged is final;
and at the very end, with everything deleted and collected: no chunk, no byte, no file is left.

    tests/e2e/crash.py --kills 200 [--seed N]
"""

import argparse
import hashlib
import os
import random
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import service as quarry  # noqa: E402

CHUNK = 4 << 20
POOL_CHUNKS = 6  # uploads share these, or blocks of them: deletes and uploads meet on the same
MAX_IMAGES = 12
WORKERS = 3
MAX_KILL_AFTER_SECONDS = 0.5
RECOVER_SECONDS = 20
OPTIONS = ["--store.lease=1s", "--store.gc-interval=100ms", "--log.level=warn"]


class Expected:
    """What the world may look like, given what was asked for and what was acknowledged."""

    def __init__(self):
        self.lock = threading.Lock()
        # id -> {"sha", "upload": None|"asked"|"done", "delete": None|"asked"|"done"}
        self.images = {}

    def add(self, image_id):
        with self.lock:
            self.images[image_id] = {"sha": None, "upload": None, "delete": None}

    def set(self, image_id, **fields):
        with self.lock:
            self.images[image_id].update(fields)

    def pick(self, rng, upload):
        with self.lock:
            fit = [i for i, e in self.images.items()
                   if e["upload"] == upload and e["delete"] is None]
        return rng.choice(fit) if fit else None

    def count(self):
        with self.lock:
            return sum(e["delete"] is None for e in self.images.values())

    def snapshot(self):
        with self.lock:
            return {i: dict(e) for i, e in self.images.items()}

    def forget(self, image_id):
        with self.lock:
            del self.images[image_id]


class Workload:
    """Threads that upload, delete, read and collect until the service is gone."""

    def __init__(self, service, token, expected, pool, seed):
        self.service, self.token, self.expected, self.pool = service, token, expected, pool
        self.stop = threading.Event()
        self.killed = threading.Event()
        self.errors = []
        self.operations = 0
        self.threads = [threading.Thread(target=self.run, args=(random.Random(seed + i),))
                        for i in range(WORKERS)]
        for thread in self.threads:
            thread.start()

    def join(self):
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def run(self, rng):
        images = quarry.Images(self.service, self.token)
        while not self.stop.is_set():
            try:
                self.step(rng, images)
                self.operations += 1
            except OSError as error:
                if not self.killed.is_set():
                    self.errors.append(f"broken off before the kill: {error!r}")
                return
            except Exception as error:  # noqa: BLE001 - told to the main thread
                self.errors.append(repr(error))
                return

    def part(self, rng):
        chunk = rng.choice(self.pool)
        if rng.random() < 0.5:
            return chunk
        # One that shares blocks with it, and nothing else but those.
        at, size = rng.randrange(CHUNK - (1 << 20)), rng.randrange(1, 1 << 20)
        return chunk[:at] + rng.randbytes(size) + chunk[at + size:]

    def content(self, rng):
        parts = [self.part(rng) for _ in range(rng.randrange(0, 5))]
        parts.append(rng.randbytes(rng.randrange(1, 300_000)))
        return b"".join(parts)

    def step(self, rng, images):
        what = rng.random()
        if what < 0.55 and self.expected.count() < MAX_IMAGES:
            image_id = images.create()["id"]
            self.expected.add(image_id)
            data = self.content(rng)
            self.expected.set(image_id, sha=hashlib.sha256(data).hexdigest(), upload="asked")
            reply = images.upload(image_id, data)
            if reply.status == 204:
                self.expected.set(image_id, upload="done")
            elif reply.status in (404, 409, 410) and self.deleting(image_id):
                pass
            elif reply.status != 503:
                raise AssertionError(f"upload answered {reply.status}: {reply.body[:200]}")
        elif what < 0.85:
            image_id = self.expected.pick(rng, rng.choice(["done", "done", "asked", None]))
            if image_id is None:
                return
            self.expected.set(image_id, delete="asked")
            reply = images.call("DELETE", f"/{image_id}")
            if reply.status == 204:
                self.expected.set(image_id, delete="done")
            elif reply.status == 409:  # in use by another thread's upload
                self.expected.set(image_id, delete=None)
            elif reply.status != 404:
                raise AssertionError(f"delete answered {reply.status}: {reply.body[:200]}")
        elif what < 0.95:
            image_id = self.expected.pick(rng, "done")
            if image_id is not None:
                reply = images.call("GET", f"/{image_id}/file")
                if reply.status == 200:
                    self.check_bytes(image_id, reply.body)
        else:
            quarry.call("POST", self.service.base + "/admin/v1/gc", {"orphans": rng.random() < 0.5},
                        {"X-Auth-Token": self.token})

    def deleting(self, image_id):
        entry = self.expected.snapshot().get(image_id)
        return entry is None or entry["delete"] is not None

    def check_bytes(self, image_id, body):
        entry = self.expected.snapshot().get(image_id)
        if entry and hashlib.sha256(body).hexdigest() != entry["sha"]:
            raise AssertionError(f"image {image_id}: wrong bytes were served")


def settled(images, image_id):
    """The image once it is in a state to stay in: recovery may still be rolling an upload back."""
    deadline = time.monotonic() + RECOVER_SECONDS
    while True:
        reply = images.show(image_id)
        if reply.status != 200 or reply.json()["status"] in ("active", "queued"):
            return reply
        if time.monotonic() > deadline:
            raise AssertionError(f"image {image_id} is still {reply.json()['status']} "
                                 f"{RECOVER_SECONDS} s after the restart")
        time.sleep(0.05)


def check_image(images, image_id, entry, read_bytes):
    """Compares one image with what may be; returns whether it still exists."""
    reply = settled(images, image_id)
    if reply.status == 404:
        if entry["delete"] is None:
            raise AssertionError(f"image {image_id} is lost (expected {entry})")
        return False
    assert reply.status == 200, (reply.status, reply.body)
    if entry["delete"] == "done":
        raise AssertionError(f"image {image_id} came back after its deletion was acknowledged")
    status = reply.json()["status"]
    if entry["upload"] == "done" and status != "active":
        raise AssertionError(f"image {image_id}: acknowledged, but its status is {status}")
    if status == "active" and read_bytes:
        body = images.call("GET", f"/{image_id}/file")
        assert body.status == 200, (body.status, body.body[:200])
        if hashlib.sha256(body.body).hexdigest() != entry["sha"]:
            raise AssertionError(f"image {image_id}: wrong bytes after a kill")
    return True


def check_world(images, expected, rng, share):
    for image_id, entry in expected.snapshot().items():
        if not check_image(images, image_id, entry, rng.random() < share):
            expected.forget(image_id)
            continue
        status = images.show(image_id).json()["status"]
        expected.set(image_id, delete=None,
                     upload="done" if status == "active" else None)


def check_nothing_left(service, token, images, expected):
    for image_id in expected.snapshot():
        reply = images.call("DELETE", f"/{image_id}")
        assert reply.status == 204, (reply.status, reply.body)
    time.sleep(1.5)  # the leases of uploads that were killed run out
    stats = None
    for _ in range(20):
        done = service.quarry("gc", "--orphans", "--json")
        assert done.returncode in (0, 1), done
        stats = quarry.call("GET", service.base + "/admin/v1/stats", None,
                            {"X-Auth-Token": token}).json()
        files = [os.path.join(folder, name)
                 for folder, _, names in os.walk(os.path.join(service.data_dir, "blobs"))
                 for name in names]
        if not files and stats["chunks"] == 0 and stats["holders"] == 0:
            return
        time.sleep(0.5)
    raise AssertionError(f"the collector left something: {stats}, files {files[:5]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quarry", help="the binary (else $TEST_QUARRY_BINARY)")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None)
    args = parser.parse_args()
    if args.quarry:
        quarry.QUARRY = args.quarry
    seed = args.seed if args.seed is not None else random.randrange(1 << 30)
    rng = random.Random(seed)
    print(f"crash: {args.kills} kills, seed {seed}", flush=True)
    pool = [rng.randbytes(CHUNK) for _ in range(POOL_CHUNKS)]
    expected, operations, started = Expected(), 0, time.monotonic()

    with tempfile.TemporaryDirectory(prefix="quarry-crash-") as directory:
        service = quarry.Service(directory + "/data", OPTIONS)
        try:
            token = None
            for kill in range(args.kills + 1):
                service.start()
                if token is None or kill % 500 == 0:
                    token = service.token()
                images = quarry.Images(service, token)
                check_world(images, expected, rng, 0.3 if kill < args.kills else 1.0)
                if kill == args.kills:
                    break
                workload = Workload(service, token, expected, pool, rng.randrange(1 << 30))
                time.sleep(rng.random() * MAX_KILL_AFTER_SECONDS)
                workload.killed.set()
                service.kill()
                workload.join()
                operations += workload.operations
                assert not workload.errors, workload.errors
                if (kill + 1) % 50 == 0:
                    print(f"  {kill + 1} kills, {operations} operations, "
                          f"{time.monotonic() - started:.0f} s", flush=True)
            check_nothing_left(service, token, images, expected)
            code = service.stop()
            assert code == 0, f"a graceful stop exited {code}"
        except BaseException:
            print(service.log_text()[-3000:], file=sys.stderr)
            print(f"crash: failed with --seed {seed}", file=sys.stderr)
            raise
        finally:
            if service.process is not None:
                service.kill()
    print(f"crash: {args.kills} kills, {operations} operations, nothing lost, nothing partial, "
          f"nothing left behind, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
