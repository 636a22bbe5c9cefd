"""What only volumes have: snapshots under load, ages that make no difference, and what it costs to
make a volume or to put away what was written."""

import contextlib
import shutil
import statistics
import time

from load import Fio
from servers import FILE_BYTES
from system import MIB, Failed, run, say, settle

SNAPSHOTS_OF_ONE = 14      # taken of a volume before the next is made: at most 16 may be unsealed
FAR_APART_OF_ONE = 4       # where each takes seconds until it is durable, and GiB of the disk
BETWEEN_SECONDS = 0.3
LONGEST_SECONDS = 240      # for one load: then those that were taken must do
DISK_BYTES = 36 * 1024 * MIB


def prepare_ages(pool):
    """Three volumes of the same size and fill: plain, with 50 snapshots, made of an image."""
    mib = FILE_BYTES // MIB
    pool.tell("create", "plain", 1)
    pool.tell("write", "plain", mib)
    pool.tell("create", "old", 1)
    pool.tell("write", "old", mib)
    for number in range(50):
        pool.tell("snapshot", "old", f"old-{number}")
        pool.tell("write", "old", 4)
        if number % 10 == 9:
            pool.tell("seal", f"old-{number}")
    pool.tell("content", "image", 1, mib)
    pool.tell("create", "fresh", 1, "content", "image")
    return {"quarry": "plain", "50 snapshots": "old", "of an image": "fresh"}


@contextlib.contextmanager
def private_disk(work):
    """A file system of our own where we may have one: what is written at random places leaves files
    in many pieces, and to remove these from a disk that is mounted with `discard` takes minutes
    during which nobody's sync ends."""
    image, mount = work / "disk.img", work / "disk"
    mount.mkdir()
    try:
        # All written once, so that its own file does not change any more.
        run("dd", "if=/dev/zero", f"of={image}", "bs=4M", f"count={DISK_BYTES // (4 * MIB)}",
            "oflag=direct")
        run("mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
            image)
        device = run("losetup", "-f", "--show", "--direct-io=on", image).stdout.strip()
    except Failed as error:
        say(f"no disk of our own ({error}): snapshots are measured in {work}")
        image.unlink(missing_ok=True)
        yield mount, False
        return
    try:
        run("mount", "-o", "noatime", device, mount)
        try:
            yield mount, True
        finally:
            run("umount", mount)
    finally:
        run("losetup", "-d", device)
        image.unlink()


def quantile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def snapshots_of_one(pool, cell, directory):
    """Snapshots of a new volume of 100 GiB under full load; [(durable, taken)] in ms."""
    name, mode, block, depth, size, count = cell
    pool.tell("create", "v", 100)
    fio = Fio(directory, pool.uri("v"), mode, block, depth, 600, size)
    taken = []
    try:
        time.sleep(1.5)  # until it is at full speed
        for number in range(count):
            fio.check_running()
            figures = pool.tell("snapshot", "v", f"v-{number}", may_fail=True)
            if figures is not None:
                taken.append([seconds * 1000 for seconds in figures])
            time.sleep(BETWEEN_SECONDS)
        fio.check_running()
        fio.interrupt()
        load = fio.figures()
    finally:
        fio.stop()
    return taken, load


def snapshots(make_pool, work, count, figures):
    """Snapshots of volumes that are written to as fast as they take it."""
    cells = [("4 KiB random", "randwrite", "4k", 32, "100g", FAR_APART_OF_ONE),
             ("1 MiB sequential", "write", "1m", 8, "4g", SNAPSHOTS_OF_ONE)]
    with private_disk(work) as (directory, own):
        if not own:
            figures.note("snapshots: on the disk of the machine, where to remove what was written "
                         "at random places may slow down what is measured next")
        for cell in cells:
            taken, loads = [], []
            until = time.monotonic() + LONGEST_SECONDS
            while len(taken) < count and (not taken or time.monotonic() < until):
                say(f"snapshots under load, {cell[0]}: {len(taken)} of {count}")
                # A pool for each: what was written far apart takes minutes to put away.
                pool = make_pool(directory / "pool")
                try:
                    more, load = snapshots_of_one(pool, cell, work)
                finally:
                    pool.stop()
                    shutil.rmtree(directory / "pool")
                if not more:
                    raise Failed("every snapshot was refused")
                taken += more
                loads.append(load)
            for column, what in ((1, "taken (moment over, record durable)"),
                                 (0, "all of it durable: available")):
                values = [row[column] for row in taken]
                for label, share in (("p50", 0.5), ("p99", 0.99), ("max", 1)):
                    figures.add(f"snapshots under load, {len(taken)} of them", f"{what}, {label}",
                                "ms", cell[0], quantile(values, share))
            figures.add(f"snapshots under load, {len(taken)} of them", "writes meanwhile", "/s",
                        cell[0], statistics.median(load["iops"] for load in loads))
            figures.add(f"snapshots under load, {len(taken)} of them", "slowest write", "ms",
                        cell[0], max(load["max_us"] for load in loads) / 1000)


def from_images(pool, rounds, figures):
    """The time to make a volume of an image, whatever its size."""
    for gib in (1, 10, 100, 500):
        pool.tell("content", f"image-{gib}", gib, 64)
        for number in range(max(5, rounds)):
            seconds = pool.tell("create", f"of-{gib}-{number}", gib, "content", f"image-{gib}")[0]
            figures.add("a volume of an image", f"{gib} GiB", "ms", "quarry", seconds * 1000)


def putting_away(pool, rounds, figures):
    """What it takes until a snapshot is a content of the chunk store, against what was written: the
    price of an increment, for backups as well."""
    group = "an increment of a volume of 100 GiB"
    for how, mib in (("write", 4), ("write", 16), ("write", 64), ("write", 256), ("scatter", 1)):
        what = f"{mib} MiB written " + ("in a row" if how == "write" else "as blocks far apart")
        for number in range(rounds):
            volume = f"{how}-{mib}-{number}"
            pool.tell("create", volume, 100)
            pool.tell(how, volume, mib)
            pool.tell("snapshot", volume, f"{volume}-first")
            pool.tell("seal", f"{volume}-first")
            pool.tell(how, volume, mib)
            settle()
            before = pool.cpu_seconds()
            seconds = pool.tell("snapshot", volume, f"{volume}-next")[0]
            seconds += pool.tell("seal", f"{volume}-next")[0]
            figures.add(group, what, "ms", "elapsed", seconds * 1000)
            figures.add(group, what, "ms", "server CPU", (pool.cpu_seconds() - before) * 1000)
