"""A sparse upload: 100 GiB of zeros go in by curl, and what they take on disk."""

import transfer
from system import MIB

SIZE = 100 << 30


def measure(context, figures):
    if not context.quarry_binary:
        return
    figures.note("sparse: one upload, whatever the number of rounds; every byte crosses the "
                 "socket and goes through the whole-image SHA-256")
    path = context.work / "sparse"
    with open(path, "wb") as file:
        file.truncate(SIZE)
    with context.fresh_quarry() as quarry:
        before = quarry.stored_bytes()
        image = quarry.cloud.create_image("sparse")
        seconds, cpu = transfer.upload(quarry, image, path)
        figures.add("sparse", "upload of 100 GiB of zeros", "MiB/s", "quarry",
                    SIZE / MIB / seconds)
        figures.add("sparse", "elapsed", "s", "quarry", seconds)
        figures.add("sparse", "server CPU", "s", "quarry", cpu)
        figures.add("sparse", "stored", "KiB", "quarry",
                    (quarry.stored_bytes() - before) / 1024)
    path.unlink()
