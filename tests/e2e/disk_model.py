"""What a disk may hold, sector by sector: after writes, after a crash, in a snapshot of a moment.

A sector holds one number all over (its stamp; 0: zeros), so that what is read tells by which write.
"""

import itertools
import threading

SECTOR = 512
TICKS = itertools.count(1)  # an order of all that happens, over all disks


def sectors_of(stamp, count):
    return stamp.to_bytes(8, "little") * (SECTOR // 8 * count)


def stamps_of(data, first):
    """The stamps of sectors from `first` on, by number; a sector that is a mixture is a failure."""
    stamps = {}
    for at in range(0, len(data), SECTOR):
        sector = data[at:at + SECTOR]
        if sector != sector[:8] * (SECTOR // 8):
            raise AssertionError(f"sector {first + at // SECTOR} is a mixture: {sector.hex()}")
        stamps[first + at // SECTOR] = int.from_bytes(sector[:8], "little")
    return stamps


class Write:
    """A write, trim or zeroing: when it was sent, and when it was acknowledged (or None)."""

    __slots__ = ("stamp", "sent", "acked")

    def __init__(self, stamp, sent=0, acked=0):
        self.stamp, self.sent, self.acked = stamp, sent, acked

    def __repr__(self):
        return f"{self.stamp}@{self.sent}-{self.acked}"


class Disk:
    """Thread-safe. Writes of one sector come one after the other."""

    def __init__(self, content=None):
        self.lock = threading.Lock()
        self.start(content or {})

    def start(self, content):
        """This is what it holds, durably."""
        self.base = content
        self.writes = {}   # sector: its writes since, the oldest first
        self.durable = {}  # sector: how many of them were flushed, so that nothing older can show
        self.crashed = False  # since: what was not flushed may be lost

    def of(self, sector):
        """What a sector was and is: the first is what it held at the start."""
        return [Write(self.base.get(sector, 0))] + self.writes.get(sector, [])

    def send(self, sectors, stamp):
        with self.lock:
            write = Write(stamp, next(TICKS), None)
            for sector in sectors:
                self.writes.setdefault(sector, []).append(write)
            return write

    def acknowledge(self, write, sectors, durable=False):
        with self.lock:
            write.acked = next(TICKS)
            if durable:
                for sector in sectors:
                    self.durable[sector] = len(self.writes[sector])

    def acknowledged(self):
        """How many writes of each sector were acknowledged: what a flush now has to keep."""
        with self.lock:
            return {sector: len(writes) if writes[-1].acked else len(writes) - 1
                    for sector, writes in self.writes.items()}

    def flushed(self, counts):
        with self.lock:
            for sector, count in counts.items():
                self.durable[sector] = max(self.durable.get(sector, 0), count)

    def now(self, sector):
        """The stamp of a sector that nobody writes to."""
        with self.lock:
            return self.of(sector)[-1].stamp

    def check(self, found):
        """Each sector is one that may be; it is how the disk starts now, once it was flushed."""
        with self.lock:
            for sector, stamp in found.items():
                writes = self.of(sector)
                oldest = self.durable.get(sector, 0)
                if not self.crashed:
                    oldest = max(n for n, write in enumerate(writes) if write.acked is not None)
                if stamp not in {write.stamp for write in writes[oldest:]}:
                    raise AssertionError(
                        f"sector {sector} is {stamp}; durable from number {oldest} of {writes}")
        self.start(found)


class Moment:
    """The content of a disk at some moment between this object's begin and its end()."""

    def __init__(self, disk):
        self.disk = disk
        with disk.lock:
            self.after_crash = dict(disk.durable)
        # What must be in it.
        self.first = self.after_crash if disk.crashed else disk.acknowledged()
        self.exact = None  # what was read of it; from then on it is that
        self.ended = False
        self.candidates = None

    def end(self):
        """It was acknowledged: all is in it that was before it began, and nothing sent from now."""
        if self.candidates is None:
            self.close(self.first)
            self.ended = not self.disk.crashed

    def kill(self, lost):
        """It never was: it may be of before the crash, or of what was left after it. `lost`: the
        crash may have taken what was acknowledged and not flushed."""
        if self.candidates is None:
            self.close(self.after_crash if lost else self.first)

    def close(self, first):
        with self.disk.lock:
            self.base = self.disk.base
            self.candidates = {sector: self.disk.of(sector)[first.get(sector, 0):]
                               for sector in self.disk.writes}

    def check(self, found):
        if self.exact is None:
            self.check_stamps(found)
            self.exact = found
        for sector, stamp in found.items():
            if stamp != self.exact.get(sector, 0):
                raise AssertionError(f"sector {sector} of a snapshot was {self.exact.get(sector)} "
                                     f"and is {stamp}")

    def check_stamps(self, found):
        sent_in, acked_out = (0, -1), (None, -1)
        for sector, stamp in found.items():
            writes = self.candidates.get(sector, [Write(self.base.get(sector, 0))])
            fits = [n for n, write in enumerate(writes) if write.stamp == stamp]
            if not fits:
                raise AssertionError(f"sector {sector} of a snapshot is {stamp}, not of {writes}")
            # Several may have the same stamp (0): then the one that is no contradiction.
            sent_in = max(sent_in, (writes[fits[0]].sent, sector))
            out = writes[fits[-1] + 1:]
            if out and out[0].acked and (acked_out[0] is None or out[0].acked < acked_out[0]):
                acked_out = (out[0].acked, sector)
        if self.ended and acked_out[0] is not None and sent_in[0] > acked_out[0]:
            raise AssertionError(
                f"a snapshot of no one moment: it has the write of sector {sent_in[1]} sent at "
                f"{sent_in[0]}, and not that of sector {acked_out[1]} answered at {acked_out[0]}")
