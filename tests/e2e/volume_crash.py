#!/usr/bin/env python3
"""Kills the service with kill -9 while volumes are written over NBD and managed over the API.

What must hold after every kill:
  - who was attached connects again under the same name;
  - a sector is as it was when the last write of it was answered, flushed or not, or as a write
    that was under way had it; none is a mixture. In one data directory of four the service runs
    with block.live-dir=none: then one that was flushed (by whichever connection) or written with
    FUA is as it was then or later, another as it was or as a write since had it;
  - a snapshot or copy is what the volume was at one moment while it was made, across all
    connections, and stays that; where the volume differs from it is told by quarry:changed-since;
  - what was acknowledged by the API happens, what was not happened wholly or not at all, and no
    status stays that announces a job;
and when all is deleted: no chunk, no holder, no layer is left.

    tests/e2e/volume_crash.py --kills 300 [--seed N]

A seed gives the same operations again, though not the same moments. A failure leaves the data.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import nbd  # noqa: E402
import service as quarry  # noqa: E402
from disk_model import TICKS, Disk, Moment  # noqa: E402
from volume_load import (WRITERS, Volume, Writer, check_changes, image_bytes,  # noqa: E402
                         read_windows)
from volumes import Volumes  # noqa: E402

MAX_VOLUMES = 4
MAX_ATTACHED = 2
MAX_SNAPSHOTS = 5
MAX_GB = 3
MAX_KILL_AFTER_SECONDS = 0.25
SETTLE_SECONDS = 20
KILLS_A_DIRECTORY = 50
DIRECTORIES_A_LOSSY_ONE = 4
SPARE_LAYERS = 4
OPTIONS = ["--store.lease=1s", "--store.gc-interval=100ms", "--log.level=warn"]
# What the service says when it finds something that no crash may leave.
NEVER_SAID = ("has no record", "with nothing behind it", "are missing in", "rror", "is not used")


class World:
    """What there must be, and the calls that change it. `doubt` is the call that was not answered
    yet: after a kill, resolve() finds out what became of it."""

    def __init__(self, rng, lossy):
        self.rng = rng
        self.lossy = lossy   # a kill takes what was not flushed
        self.volumes = {}    # id: Volume
        self.snapshots = {}  # id: (volume id, size, Moment)
        self.doubt = None
        self.image = None    # id, and what a volume made of it holds
        self.names = 0
        self.log = []
        self.killed = threading.Event()
        self.api = None
        self.operations = 0

    def name(self):
        self.names += 1
        return f"n{self.names}"

    # ---- writers

    def start_writers(self):
        for volume in self.volumes.values():
            if volume.attachment:
                self.write_to(volume)

    def write_to(self, volume):
        volume.writers = [Writer(volume, n, self.rng.randrange(1 << 60), self.killed)
                          for n in range(WRITERS)]

    def stop_writers(self, volume):
        for writer in volume.writers:
            writer.stop.set()
        for writer in volume.writers:
            writer.join()
            self.operations += writer.operations
            assert writer.error is None, writer.error
        volume.writers = []

    # ---- calls, each first noted as doubtful

    def begin(self, kind, **fields):
        self.doubt = {"kind": kind, "at": next(TICKS), "acked": False, **fields}
        self.log.append(self.doubt)
        return self.doubt

    def acked(self):
        self.doubt["acked"] = next(TICKS)

    def done(self):
        self.doubt["done"] = next(TICKS)
        self.doubt = None

    def create(self, size_gb=1, content=None, moment=None, **source):
        """Of nothing, or of what `content` or `moment` says."""
        name = self.name()
        self.begin("create", name=name, size_gb=size_gb, content=content, moment=moment)
        made = self.api.ok("POST", "/volumes", {"volume": {
            "size": size_gb, "name": name, **source}})["volume"]
        self.acked()
        self.api.wait("volume", made["id"], "available")
        return self.adopt(made["id"], acknowledged=True)

    def adopt(self, volume_id, acknowledged):
        doubt = self.doubt
        self.done()
        volume = Volume(volume_id, doubt["size_gb"], Disk(doubt["content"]))
        self.volumes[volume_id] = volume
        if doubt["moment"]:
            if acknowledged:
                doubt["moment"].end()
            volume.disk = None  # what it is, is to be read
            volume.moment = doubt["moment"]
        return volume

    def snapshot(self, volume):
        name, moment = self.name(), Moment(volume.disk)
        self.begin("snapshot", name=name, moment=moment, volume=volume)
        made = self.api.ok("POST", "/snapshots", {"snapshot": {
            "volume_id": volume.id, "name": name, "force": True}})["snapshot"]
        self.acked()
        self.api.wait("snapshot", made["id"], "available")
        moment.end()
        self.snapshots[made["id"]] = (volume.id, volume.size_gb, moment)
        self.done()

    def delete(self, volume):
        self.begin("delete", volume=volume)
        self.api.ok("DELETE", f"/volumes/{volume.id}?cascade=true")
        self.acked()
        self.api.wait("volume", volume.id, None)
        self.forget(volume)
        self.done()

    def forget(self, volume):
        del self.volumes[volume.id]
        self.snapshots = {i: s for i, s in self.snapshots.items() if s[0] != volume.id}

    def unsnap(self, snapshot_id):
        self.begin("unsnap", id=snapshot_id)
        self.api.ok("DELETE", f"/snapshots/{snapshot_id}")
        self.acked()
        self.api.wait("snapshot", snapshot_id, None)
        del self.snapshots[snapshot_id]
        self.done()

    def extend(self, volume):
        self.begin("extend", volume=volume, size_gb=volume.size_gb + 1)
        self.api.ok("POST", f"/volumes/{volume.id}/action",
                    {"os-extend": {"new_size": volume.size_gb + 1}})
        self.acked()
        self.api.wait("volume", volume.id, "in-use" if volume.attachment else "available")
        volume.size_gb += 1
        self.done()

    def revert(self, volume, snapshot_id):
        moment = self.snapshots[snapshot_id][2]
        self.begin("revert", volume=volume, content=moment.exact)
        self.api.ok("POST", f"/volumes/{volume.id}/action",
                    {"revert": {"snapshot_id": snapshot_id}})
        self.acked()
        self.api.wait("volume", volume.id, "available")
        volume.disk.start(moment.exact)
        self.done()

    def attach(self, volume):
        self.begin("attach", volume=volume)
        volume.attachment, volume.info = self.api.attach(volume.id)
        self.done()

    def detach(self, volume):
        self.begin("detach", volume=volume)
        self.api.ok("DELETE", f"/attachments/{volume.attachment}")
        self.acked()
        self.api.wait("volume", volume.id, "available")
        volume.attachment = volume.info = None
        self.done()

    def compare(self, volume):
        """An attached volume to which nobody writes is what it may be; from now on it is that."""
        found = read_windows(volume)
        if volume.disk is None:
            volume.moment.check(found)
            volume.disk = Disk(found)
        else:
            volume.disk.check(found)
        for snapshot_id, (volume_id, _, moment) in self.snapshots.items():
            if volume_id == volume.id and moment.exact is not None:
                check_changes(volume, found, snapshot_id, moment.exact)

    def create_new(self):
        """Of nothing, or of the image."""
        image_id, content = self.image
        if self.rng.random() < 0.5:
            return self.create(content=content, imageRef=image_id)
        return self.create()

    # ---- one step of an operator

    def step(self):
        volumes = list(self.volumes.values())
        attached = [v for v in volumes if v.attachment]
        detached = [v for v in volumes if not v.attachment]
        what = self.rng.random()
        if len(volumes) < 2 or (what < 0.1 and len(volumes) < MAX_VOLUMES):
            self.create_new()
        elif what < 0.2 and len(volumes) < MAX_VOLUMES:
            self.create_of_another()
        elif what < 0.5 and len(self.snapshots) < MAX_SNAPSHOTS:
            self.snapshot(self.rng.choice([v for v in volumes if v.disk] or [self.create_new()]))
        elif what < 0.6 and self.snapshots:
            self.unsnap(self.rng.choice(list(self.snapshots)))
        elif what < 0.66:
            volume = self.rng.choice(volumes)
            if volume.size_gb < MAX_GB:
                self.extend(volume)
                if volume.attachment:  # to write to what is new
                    self.stop_writers(volume)
                    self.write_to(volume)
        elif what < 0.76 and attached:
            self.cut_off(self.rng.choice(attached))
        elif what < 0.9 and detached and len(attached) < MAX_ATTACHED:
            volume = self.rng.choice(detached)
            self.attach(volume)
            self.compare(volume)
            self.write_to(volume)
        elif what < 0.95 and detached:
            self.revert_one(self.rng.choice(detached))
        elif detached and len(volumes) > 2:
            self.delete(self.rng.choice(detached))

    def create_of_another(self):
        if self.snapshots and self.rng.random() < 0.5:
            snapshot_id, (_, size_gb, moment) = self.rng.choice(list(self.snapshots.items()))
            self.create(size_gb, moment=moment, snapshot_id=snapshot_id)
            return
        sources = [v for v in self.volumes.values() if v.disk]
        if sources:
            source = self.rng.choice(sources)
            self.create(source.size_gb, moment=Moment(source.disk), source_volid=source.id)

    def cut_off(self, volume):
        """A detach; half of the time, with writers at work."""
        if self.rng.random() < 0.5:
            self.stop_writers(volume)
        for writer in volume.writers:
            writer.cut = True
        self.detach(volume)
        self.stop_writers(volume)

    def revert_one(self, volume):
        of_it = [i for i, s in self.snapshots.items() if s[0] == volume.id]
        if not of_it or volume.disk is None:
            return
        newest = of_it[-1]
        _, size_gb, moment = self.snapshots[newest]
        if size_gb == volume.size_gb and moment.exact is not None:
            self.revert(volume, newest)

    # ---- after a kill

    def settle(self):
        """Waits until no status announces a job; volumes and snapshots by id."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            volumes = {v["id"]: v for v in self.api.list("volumes/detail")}
            snapshots = {s["id"]: s for s in self.api.list("snapshots/detail")}
            statuses = {v["status"] for v in volumes.values()} | {
                s["status"] for s in snapshots.values()}
            waiting = statuses - {"available", "in-use", "reserved", "attaching"}
            if not waiting:
                return volumes, snapshots
            assert time.monotonic() < deadline and not any("error" in s for s in waiting), (
                f"statuses {statuses} {SETTLE_SECONDS} s after the restart", volumes, snapshots)
            time.sleep(0.01)

    def resolve(self):
        """Finds out what became of the call that the kill cut short."""
        volumes, snapshots = self.settle()
        doubt, self.doubt = self.doubt, None
        for volume in self.volumes.values():
            if volume.disk is None and volume.moment.candidates is None:
                volume.moment.kill(self.lossy)
        if doubt:
            getattr(self, "resolve_" + doubt["kind"])(doubt, volumes, snapshots)
        volumes, snapshots = self.settle()
        assert set(volumes) == set(self.volumes), (set(volumes) ^ set(self.volumes), doubt)
        assert set(snapshots) == set(self.snapshots), (set(snapshots) ^ set(self.snapshots), doubt)
        for volume_id, volume in self.volumes.items():
            seen = volumes[volume_id]
            assert seen["size"] == volume.size_gb, (seen, doubt)
            assert seen["status"] == ("in-use" if volume.attachment else "available"), (seen, doubt)
        attachments = {a["id"] for a in self.api.list("attachments")}
        assert attachments == {v.attachment for v in self.volumes.values() if v.attachment}

    def resolve_create(self, doubt, volumes, _):
        if doubt["moment"]:
            doubt["moment"].kill(self.lossy)
        found = [i for i, v in volumes.items() if v["name"] == doubt["name"]]
        assert found or not doubt["acked"], f"the volume of {doubt} is lost"
        if found:
            self.doubt = doubt
            self.adopt(found[0], acknowledged=False)

    def resolve_snapshot(self, doubt, _, snapshots):
        doubt["moment"].kill(self.lossy)
        found = [i for i, s in snapshots.items() if s["name"] == doubt["name"]]
        assert found or not doubt["acked"], f"the snapshot of {doubt} is lost"
        if found:
            volume = doubt["volume"]
            self.snapshots[found[0]] = (volume.id, volume.size_gb, doubt["moment"])

    def resolve_delete(self, doubt, volumes, _):
        gone = doubt["volume"].id not in volumes
        assert gone or not doubt["acked"], f"{doubt} did not happen"
        if gone:
            self.forget(doubt["volume"])

    def resolve_unsnap(self, doubt, _, snapshots):
        gone = doubt["id"] not in snapshots
        assert gone or not doubt["acked"], f"{doubt} did not happen"
        if gone:
            del self.snapshots[doubt["id"]]

    def resolve_extend(self, doubt, volumes, _):
        volume = doubt["volume"]
        size_gb = volumes[volume.id]["size"]
        assert size_gb == doubt["size_gb"] or not doubt["acked"], f"{doubt} did not happen"
        volume.size_gb = size_gb

    def resolve_revert(self, doubt, *_):
        """If it is not all of the snapshot, it has to be what it was: check() compares that."""
        volume = doubt["volume"]
        self.attach(volume)
        found = read_windows(volume)
        reverted = all(found[s] == doubt["content"].get(s, 0) for s in found)
        assert reverted or not doubt["acked"], f"{doubt} did not happen"
        if reverted:
            volume.disk.start(found)
        self.detach(volume)

    def resolve_attach(self, doubt, *_):
        """Who did not hear of it can't connect: takes back what there may be."""
        volume = doubt["volume"]
        volume.attachment = volume.info = None
        for attachment in self.api.list("attachments", f"&volume_id={volume.id}"):
            self.api.detach(attachment["id"])
        self.api.wait("volume", volume.id, "available")

    def resolve_detach(self, doubt, *_):
        self.resolve_attach(doubt)

    def check(self, share):
        """Everything that is attached, and some of the rest."""
        for volume in list(self.volumes.values()):
            if volume.attachment:
                name = volume.info["export"]
                volume.info = self.api.ok("GET", f"/attachments/{volume.attachment}")[
                    "attachment"]["connection_info"]
                assert volume.info["export"] == name, "the export has another name now"
                self.compare(volume)
            elif self.rng.random() < share or volume.disk is None:
                self.attach(volume)
                self.compare(volume)
                self.detach(volume)
        for snapshot_id, (_, size_gb, moment) in list(self.snapshots.items()):
            if self.rng.random() < share or moment.exact is None:
                copy = self.create(size_gb, moment=moment, snapshot_id=snapshot_id)
                self.attach(copy)
                self.compare(copy)
                self.detach(copy)
                self.delete(copy)


class Operator(threading.Thread):
    """Calls the API until the service is gone."""

    def __init__(self, world):
        super().__init__()
        self.world, self.error = world, None
        self.start()

    def run(self):
        try:
            while True:
                self.world.step()
                self.world.operations += 1
        except (OSError, nbd.Error) as error:
            if not self.world.killed.is_set():
                self.error = f"broken off before the kill: {error!r}"
        except Exception as error:  # noqa: BLE001 - told to the main thread
            self.error = repr(error)


class Run:
    """Kills of one data directory."""

    def __init__(self, folder, rng, lossy):
        self.rng = rng
        self.folder = folder
        self.live = folder + "/live"
        os.mkdir(self.live)
        self.service = quarry.Service(
            folder + "/data", [*OPTIONS, f"--block.nbd-socket={folder}/nbd.sock",
                               f"--block.live-dir={'none' if lossy else self.live}"])
        self.world = World(rng, lossy)
        self.token = None

    def start(self):
        self.service.start()
        if self.token is None:
            self.token = self.service.token()
        self.world.api = Volumes(self.service, self.token)
        if self.world.image is None:
            data, content = image_bytes(self.rng)
            made = quarry.Images(self.service, self.token).make(data)
            self.world.image = (made, content)

    def kill_once(self, share):
        if self.rng.random() < 0.1:  # while it puts right what the last kill left
            self.service.launch()
            time.sleep(self.rng.random() * 0.15)
            self.service.kill()
        self.start()
        self.world.killed.clear()
        self.world.resolve()
        self.world.check(share)
        self.world.log.clear()
        self.world.start_writers()
        operator = Operator(self.world)
        time.sleep(self.rng.random() * MAX_KILL_AFTER_SECONDS)
        self.world.killed.set()
        self.service.kill()
        operator.join()
        for volume in list(self.world.volumes.values()):
            self.world.stop_writers(volume)
            if volume.disk:
                volume.disk.crashed = self.world.lossy
        assert operator.error is None, operator.error
        said = [line for line in self.service.log_text().splitlines()
                if any(words in line for words in NEVER_SAID)]
        assert not said, said

    def end(self):
        """Everything is compared and deleted, and nothing is left."""
        self.start()
        self.world.killed.clear()
        self.world.resolve()
        self.world.check(1.0)
        for volume in list(self.world.volumes.values()):
            if volume.attachment:
                self.world.detach(volume)
            self.world.delete(volume)
        image_id, _ = self.world.image
        deleted = quarry.Images(self.service, self.token).call("DELETE", f"/{image_id}")
        assert deleted.status == 204, deleted.body
        self.check_nothing_left()
        code = self.service.stop()
        assert code == 0, f"a graceful stop exited {code}"
        left = os.listdir(self.live)
        assert not left, f"a graceful stop left {left}"

    def check_nothing_left(self):
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            self.service.quarry("gc", "--orphans", "--json")
            stats = quarry.call("GET", self.service.base + "/admin/v1/stats", None,
                                {"X-Auth-Token": self.token}).json()
            layers = [name for name in os.listdir(self.service.data_dir + "/layers")
                      if name != "live"]
            blobs = [name for _, _, names in os.walk(self.service.data_dir + "/blobs")
                     for name in names]
            left = (stats["chunks"], stats["holders"], len(blobs), len(layers) > 2 * SPARE_LAYERS)
            if left == (0, 0, 0, False):
                return
            assert time.monotonic() < deadline, f"something is left: {stats}, {layers}, {blobs[:5]}"
            time.sleep(0.1)


def default_folder():
    """In memory where there is room: a kill takes nothing from that either, and more kills fit."""
    memory = "/dev/shm"
    if os.path.isdir(memory) and shutil.disk_usage(memory).free > 2 << 30:
        return memory
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quarry", help="the binary (else $TEST_QUARRY_BINARY)")
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--folder", default=default_folder(), help="where the data goes")
    args = parser.parse_args()
    if args.quarry:
        quarry.QUARRY = args.quarry
    seed = args.seed if args.seed is not None else random.randrange(1 << 30)
    print(f"volume crash: {args.kills} kills, seed {seed}", flush=True)
    started, kills, operations = time.monotonic(), 0, 0
    while kills < args.kills:
        folder = tempfile.mkdtemp(prefix="quarry-volume-crash-", dir=args.folder)
        directory = (seed + kills) // KILLS_A_DIRECTORY
        lossy = directory % DIRECTORIES_A_LOSSY_ONE == 0
        run = Run(folder, random.Random(seed + kills), lossy)
        try:
            for _ in range(min(KILLS_A_DIRECTORY, args.kills - kills)):
                run.kill_once(share=0.2)
                kills += 1
            run.end()
        except BaseException:
            for entry in run.world.log[-20:]:
                print({**entry, "content": entry.get("content") and "..."}, file=sys.stderr)
            print(f"volume crash: failed after {kills} kills; --seed "
                  f"{seed + kills // KILLS_A_DIRECTORY * KILLS_A_DIRECTORY} does what came since "
                  f"the last new directory again; the data is in {folder}", file=sys.stderr)
            raise
        finally:
            run.world.killed.set()
            if run.service.process is not None:
                run.service.kill()
        operations += run.world.operations
        shutil.rmtree(folder)
        print(f"  {kills} kills{' (live-dir=none)' if lossy else ''}, {operations} operations, "
              f"{time.monotonic() - started:.0f} s", flush=True)
    print(f"volume crash: {kills} kills, {operations} operations, nothing lost, nothing torn, "
          f"nothing stuck, nothing left behind, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
