"""How closely the limits of a volume are held, in real time."""

import time

from load import Fio

# What is promised: the limit's key, its value, and what counts.
LIMITS = [("total_iops_sec", 5000, lambda size: 1), ("total_bytes_sec", 100_000_000, lambda s: s)]
LOADS = [("4 KiB, depth 1", "4k", 4096, 1), ("4 KiB, depth 32", "4k", 4096, 32),
         ("4 KiB, depth 128", "4k", 4096, 128), ("64 KiB, depth 32", "64k", 65536, 32),
         ("1 MiB, depth 8", "1m", 1 << 20, 8)]


def measure(pool, directory, seconds, figures):
    """What is delivered, in percent of what is promised, over `seconds`."""
    for key, promised, counts in LIMITS:
        pool.tell("limit", key, promised)
        for name, block, size, depth in LOADS:
            if key == "total_iops_sec" and size == 1 << 20:
                continue  # more than the machine has to give
            load = Fio(directory, pool.uri("plain"), "randread", block, depth, seconds).figures()
            figures.add(f"limits over {seconds} s", f"{key} {promised:,}, {name}",
                        "% of what is promised", "quarry",
                        100 * load["iops"] * counts(size) / promised)
    live_change(pool, directory, figures)
    pool.tell("limit", "total_iops_sec", 0)


def live_change(pool, directory, figures):
    """A limit that changes under load: what is delivered before and after, in percent."""
    for key, first, then in (("total_iops_sec", 2000, 8000), ("total_iops_sec", 8000, 2000)):
        pool.tell("limit", key, first)
        fio = Fio(directory, pool.uri("plain"), "randread", "4k", 32, 6)
        begin = time.monotonic()
        time.sleep(3)
        changed = time.monotonic() - begin
        pool.tell("limit", key, then)
        delivered = fio.figures()["iops"] * 6
        figures.add("limits over 6 s", f"{key} from {first:,} to {then:,} under load",
                    "% of what is promised", "quarry",
                    100 * delivered / (first * changed + then * (6 - changed)))
