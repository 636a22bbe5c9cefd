"""How closely the limits of a volume are held, in real time."""

import time

from load import Fio

# What is promised: the limit's key, its value, and what of an operation counts.
LIMITS = [("total_iops_sec", 5000, lambda size: 1),
          ("total_bytes_sec", 100_000_000, lambda size: size)]
# Name, block, its bytes, depth, connections.
LOADS = [("4 KiB, depth 1", "4k", 4096, 1, 1), ("4 KiB, depth 32", "4k", 4096, 32, 1),
         ("4 KiB, depth 128", "4k", 4096, 128, 1),
         ("4 KiB, 8 connections of depth 16", "4k", 4096, 16, 8),
         ("64 KiB, depth 32", "64k", 65536, 32, 1), ("1 MiB, depth 8", "1m", 1 << 20, 8, 1)]
SETTLED_SECONDS = 0.1  # so soon a change has come through
WINDOW_MS = 50


def measure(pool, directory, seconds, figures):
    """What is delivered, in percent of what is promised: over all, and in the farthest second."""
    group = f"limits, % of what is promised, over {seconds} s and in single seconds"
    for key, promised, counts in LIMITS:
        pool.tell("limit", key, promised)
        for name, block, size, depth, jobs in LOADS:
            if key == "total_iops_sec" and size == 1 << 20:
                continue  # more than the machine has to give
            load = Fio(directory, pool.uri("plain"), "randread", block, depth, seconds, jobs=jobs,
                       window_ms=1000 if jobs == 1 else None).figures()
            percent = 100 * counts(size) / promised
            what = f"{key} {promised:,}, {name}"
            figures.add(group, what, "%", "over all", load["iops"] * percent)
            # Not the first second and the last: they are not whole.
            whole = [rate * percent for _, rate in load["windows"][1:-1]]
            if whole:
                figures.add(group, what, "%", "slowest second", min(whole))
                figures.add(group, what, "%", "fastest second", max(whole))
    change(pool, directory, figures)
    pool.tell("limit", "total_iops_sec", 0)


def change(pool, directory, figures):
    """A limit that changes under load: what is delivered between 100 and 500 ms after the
    call."""
    for first, then in ((2000, 8000), (8000, 2000)):
        pool.tell("limit", "total_iops_sec", first)
        fio = Fio(directory, pool.uri("plain"), "randread", "4k", 32, 4, window_ms=WINDOW_MS)
        time.sleep(2.5)
        begin = time.time() + SETTLED_SECONDS
        pool.tell("limit", "total_iops_sec", then)
        rates = [rate for when, rate in fio.figures()["windows"]
                 if begin + WINDOW_MS / 1000 <= when <= begin + 0.5]
        if rates:
            figures.add("a limit that changes under load, 0.1 to 0.5 s after", f"{first:,} to "
                        f"{then:,} operations a second", "% of the new one", "quarry",
                        100 * sum(rates) / len(rates) / then)
