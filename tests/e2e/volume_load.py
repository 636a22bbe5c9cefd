"""Connections that write to volumes over NBD, each to sectors of its own."""

import random
import threading

import nbd

from disk_model import SECTOR, sectors_of, stamps_of

MIB = (1 << 20) // SECTOR
GIB = 1024 * MIB
WINDOW = 96        # sectors: what is written and compared lies in windows of so many
PIECE = 12         # of a window, for one writer: a block and a half, so that writers share blocks
REGION = 16 * MIB  # for one writer alone, who also zeroes it as a whole
WRITERS = 2        # connections of a volume


def shared_windows(size_gb):
    """Where blocks, chunks, pages of maps and the volume end."""
    windows = [0, 4 * MIB - WINDOW // 2, 64 * MIB - WINDOW // 2]
    for size in range(1, size_gb + 1):
        windows += [size * GIB - WINDOW] + ([size * GIB] if size < size_gb else [])
    return windows


def region(writer):
    return 8 * MIB + writer * REGION


def own_windows(writer):
    return [region(writer), region(writer) + 4 * MIB - WINDOW // 2]


def all_windows(size_gb):
    return shared_windows(size_gb) + [w for n in range(WRITERS) for w in own_windows(n)]


def pieces(writer, size_gb):
    """What one writer may write to: first sector and number."""
    shared = [(window + at, PIECE) for window in shared_windows(size_gb)
              for at in range(writer * PIECE, WINDOW, WRITERS * PIECE)]
    return shared + [(window, WINDOW) for window in own_windows(writer)] * 4


def image_bytes(rng):
    """A disk image that ends inside a chunk, and what its sectors hold."""
    content = {}
    data = bytearray((4 * MIB + 600) * SECTOR)
    for window in (0, 4 * MIB - WINDOW // 2):
        for sector in range(window, window + WINDOW):
            content[sector] = rng.randrange(1, 1 << 62)
            data[sector * SECTOR:(sector + 1) * SECTOR] = sectors_of(content[sector], 1)
    return bytes(data), content


class Volume:
    def __init__(self, volume_id, size_gb, disk):
        self.id, self.size_gb, self.disk = volume_id, size_gb, disk
        self.attachment = self.info = None
        self.writers = []

    def __repr__(self):
        return f"{self.id} of {self.size_gb} GiB"


class Writer(threading.Thread):
    """One connection, that writes to what is its own until it is told to stop, or cut off."""

    def __init__(self, volume, number, seed, killed):
        super().__init__()
        self.volume, self.number, self.killed = volume, number, killed
        self.rng = random.Random(seed)
        self.stop = threading.Event()
        self.cut = False  # somebody detaches it
        self.operations = 0
        self.error = None
        self.disk = volume.disk
        self.pieces = pieces(number, volume.size_gb)
        self.connection = connect(volume, unix=number % 2 == 1)
        self.start()

    def run(self):
        try:
            while not self.stop.is_set():
                self.step()
                self.operations += 1
            self.connection.shutdown()
        except nbd.Error as error:
            if not self.killed.is_set() and not self.cut:
                self.error = f"volume {self.volume.id}: {error}"
        except AssertionError as error:
            self.error = f"volume {self.volume.id}: {error}"

    def step(self):
        what = self.rng.random()
        first, count = self.rng.choice(self.pieces)
        if self.rng.random() < 0.7:
            at = self.rng.randrange(count)
            first, count = first + at, self.rng.randrange(1, count - at + 1)
        offset, length = first * SECTOR, count * SECTOR
        fua = nbd.CMD_FLAG_FUA if self.rng.random() < 0.1 else 0
        if what < 0.55:
            stamp = self.rng.randrange(1, 1 << 62)
            self.change(range(first, first + count), stamp, fua, lambda: self.connection.pwrite(
                sectors_of(stamp, count), offset, fua))
        elif what < 0.65:
            hole = nbd.CMD_FLAG_NO_HOLE if self.rng.random() < 0.5 else 0
            self.change(range(first, first + count), 0, fua,
                        lambda: self.connection.zero(length, offset, fua | hole))
        elif what < 0.72:
            self.change(range(first, first + count), 0, fua,
                        lambda: self.connection.trim(length, offset, fua))
        elif what < 0.74:
            sectors = [s for w in own_windows(self.number) for s in range(w, w + WINDOW)]
            self.change(sectors, 0, 0, lambda: self.connection.zero(
                REGION * SECTOR, region(self.number) * SECTOR, 0))
        elif what < 0.82:
            counts = self.disk.acknowledged()
            self.connection.flush()
            self.disk.flushed(counts)
        else:
            found = stamps_of(self.connection.pread(length, offset), first)
            for sector, stamp in found.items():
                expected = self.disk.now(sector)
                assert stamp == expected, f"sector {sector} reads {stamp}, not {expected}"

    def change(self, sectors, stamp, durable, call):
        write = self.disk.send(sectors, stamp)
        call()
        self.disk.acknowledge(write, sectors, bool(durable))


def connect(volume, unix=False, context=None):
    connection = nbd.NBD()
    if context:
        connection.add_meta_context(context)
    connection.set_export_name(volume.info["export"])
    if unix:
        connection.connect_unix(volume.info["socket"])
    else:
        connection.connect_tcp(volume.info["host"], str(volume.info["port"]))
    return connection


def read_windows(volume):
    connection = connect(volume)
    size = connection.get_size()
    assert size == volume.size_gb * GIB * SECTOR, f"volume {volume.id} has {size} bytes"
    connection.flush()
    found = {}
    for window in all_windows(volume.size_gb):
        found.update(stamps_of(connection.pread(WINDOW * SECTOR, window * SECTOR), window))
    # And somewhere between them: nothing.
    assert not any(connection.pread(MIB * SECTOR, 40 * MIB * SECTOR)), "data from nowhere"
    connection.shutdown()
    return found


def check_changes(volume, found, snapshot_id, then):
    """What differs from a snapshot is told to have changed since."""
    context = f"quarry:changed-since/{snapshot_id}"
    connection = connect(volume, context=context)
    assert connection.can_meta_context(context), f"no changes since snapshot {snapshot_id}"
    for window in all_windows(volume.size_gb):
        entries = []
        connection.block_status(WINDOW * SECTOR, window * SECTOR,
                                lambda _name, _offset, more, _error, e=entries: e.extend(more))
        sector = window
        for length, changed in zip(entries[::2], entries[1::2]):
            for at in range(sector, sector + length // SECTOR):
                assert changed or found[at] == then.get(at, 0), (
                    f"volume {volume.id} differs from snapshot {snapshot_id} in sector {at}, and "
                    "that was not told")
            sector += length // SECTOR
        assert sector == window + WINDOW, entries
    connection.shutdown()
