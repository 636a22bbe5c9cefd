#!/usr/bin/env python3
"""Reads of an image through POST .../blocks beside GET .../file with a Range, in one process and
several connections: requests a second and MB/s of plain bytes. Prints lines for a table.

    bench/blocks/run.py --binary build/release/bin/quarry IMAGE
"""

import argparse
import http.client
import os
import random
import struct
import sys
import threading
import time
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/e2e"))

CHUNK = 4 << 20
BLOCKS = "application/vnd.quarry.blocks.v1"
ENTRY = struct.Struct("<16s16sIIHH")


def request_of(items):
    body = b"QBRQ" + struct.pack("<HHII", 1, 0, len(items), 0)
    for chunk, numbers in items:
        body += struct.pack("<IHH", chunk, 1 if numbers else 0, len(numbers))
        body += struct.pack(f"<{len(numbers)}H", *numbers)
    return body


class Reader:
    """One connection."""

    def __init__(self, base, token, image):
        self.connection = http.client.HTTPConnection(urllib.parse.urlsplit(base).netloc)
        self.headers = {"X-Auth-Token": token, "Accept": "*/*"}
        self.image = image

    def answer(self, *request):
        self.connection.request(*request)
        reply = self.connection.getresponse()
        body = reply.read()
        assert reply.status in (200, 206), (reply.status, body[:300])
        return body

    def blocks(self, items):
        return self.answer("POST", f"/image/v2/quarry/images/{self.image}/blocks",
                           request_of(items), {**self.headers, "Content-Type": BLOCKS})

    def part(self, offset, length):
        return self.answer("GET", f"/image/v2/images/{self.image}/file", None,
                           {**self.headers, "Range": f"bytes={offset}-{offset + length - 1}"})


def tables(reader, chunks):
    """Plain lengths of the blocks of each chunk that is no hole."""
    found = {}
    for first in range(0, chunks, 64):
        asked = range(first, min(first + 64, chunks))
        body, at = reader.blocks([(chunk, []) for chunk in asked]), 32
        for chunk in asked:
            count = struct.unpack_from("<IHH", body, at)[2]
            at += 8
            lengths = [ENTRY.unpack_from(body, at + i * ENTRY.size)[2] for i in range(count)]
            at += count * ENTRY.size
            if lengths:
                found[chunk] = lengths
    return found


def measure(name, connections, seconds, make_reader, one):
    """`one` reads something by a reader; the plain bytes of it."""
    counts = [(0, 0, 0)] * connections
    stop = time.monotonic() + seconds

    def run(number):
        reader, dice = make_reader(), random.Random(number)
        requests = plain = wire = 0
        while time.monotonic() < stop:
            more_plain, more_wire = one(reader, dice)
            requests, plain, wire = requests + 1, plain + more_plain, wire + more_wire
        counts[number] = requests, plain, wire

    begin = time.monotonic()
    threads = [threading.Thread(target=run, args=(i,)) for i in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - begin
    requests, plain, wire = (sum(each) for each in zip(*counts))
    print(f"| {name} | {connections} | {requests / took:,.0f} | {plain / took / 1e6:,.0f} | "
          f"{wire / took / 1e6:,.0f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("image")
    options = parser.parse_args()
    os.environ["TEST_QUARRY_BINARY"] = os.path.abspath(options.binary)
    from service import Images, Service  # noqa: PLC0415 (reads the variable)
    with open(options.image, "rb") as file, Service() as service:
        data = file.read()
        token = service.token()
        image = Images(service, token).make(data)

        def reader():
            return Reader(service.base, token, image)

        chunks = tables(reader(), (len(data) + CHUNK - 1) // CHUNK)
        places = [(chunk, number, chunk * CHUNK + sum(lengths[:number]), length)
                  for chunk, lengths in chunks.items() for number, length in enumerate(lengths)]
        print(f"{len(places)} blocks of {sum(each[3] for each in places) / len(places) / 1024:.1f} "
              "KiB on average")
        print("| what | connections | requests/s | plain MB/s | on the wire |")
        print("|---|---:|---:|---:|---:|")

        def a_block(each, dice):
            chunk, number, _, length = dice.choice(places)
            return length, len(each.blocks([(chunk, [number])]))

        def its_range(each, dice):
            _, _, offset, length = dice.choice(places)
            return length, len(each.part(offset, length))

        def a_chunk(each, dice):
            chunk, lengths = dice.choice(whole)
            return sum(lengths), len(each.blocks([(chunk, list(range(len(lengths))))]))

        def its_bytes(each, dice):
            chunk, lengths = dice.choice(whole)
            return sum(lengths), len(each.part(chunk * CHUNK, sum(lengths)))

        def some_tables(each, dice):
            asked = [chunk for chunk, _ in dice.sample(whole, min(16, len(whole)))]
            return 0, len(each.blocks([(chunk, []) for chunk in asked]))

        whole = list(chunks.items())
        for connections in (1, 4):
            for name, one in (("one block", a_block), ("the range of one block", its_range),
                              ("a chunk's blocks", a_chunk), ("a chunk's range", its_bytes),
                              ("16 tables", some_tables)):
                measure(name, connections, options.seconds, reader, one)


if __name__ == "__main__":
    main()
