#!/usr/bin/env python3
"""How long a guest takes to its first prompt, and until it has read its programs, with its disk in
a local file and behind `quarry host`, on a slow link: a proxy between agent and service lets
through so many bits a second and delays what it lets through. Prints lines for a table, and how
much of the link one reader takes who reads on.

    bench/host/boot.py --binary build/release/bin/quarry --rounds 3
"""

import argparse
import asyncio
import contextlib
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/e2e"))

PIECE = 16 << 10
NEAR, FAR = "10.213.77.1", "10.213.77.2"
WORK = "cat /usr/bin/* /usr/sbin/* > /dev/null 2>&1; ls -lR /etc /usr/lib > /dev/null"


class Wire:
    """Two network interfaces as one would be in two machines, the far one in a network namespace:
    the kernel (tc's tbf) lets through `bits` a second each way. Needs root."""

    def __init__(self, bits):
        self.name = f"quarry{os.getpid()}"
        near, far = f"q{os.getpid()}n", f"q{os.getpid()}f"
        inside = ["ip", "netns", "exec", self.name]
        rate = ["root", "tbf", "rate", f"{bits:.0f}bit", "burst", "64kb", "latency", "100ms"]
        for command in (["ip", "netns", "add", self.name],
                        ["ip", "link", "add", near, "type", "veth", "peer", "name", far],
                        ["ip", "link", "set", far, "netns", self.name],
                        ["ip", "addr", "add", NEAR + "/30", "dev", near],
                        ["ip", "link", "set", near, "up"],
                        [*inside, "ip", "addr", "add", FAR + "/30", "dev", far],
                        [*inside, "ip", "link", "set", far, "up"],
                        ["tc", "qdisc", "add", "dev", near, *rate],
                        [*inside, "tc", "qdisc", "add", "dev", far, *rate]):
            subprocess.run(command, check=True)

    def enter(self):
        """From here on, sockets of this thread are at the far end."""
        with open(f"/run/netns/{self.name}", "rb") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run(["ip", "netns", "del", self.name], check=False)  # takes the wire along


class SlowLink:
    """Forwards TCP to `target`; each way has its own `bits` a second, shared by all connections,
    and half of `delay_ms`. With a `wire` it is at its far end, and that has the bits."""

    def __init__(self, bits, delay_ms, wire=None):
        self.bytes_per_second = bits / 8 if wire is None else float("inf")
        self.delay = delay_ms / 2000
        self.free_at = {"up": 0.0, "down": 0.0}
        self.passed = {"up": 0, "down": 0}
        self.target = None
        self.loop = asyncio.new_event_loop()
        ready = threading.Event()

        def run():
            if wire:
                wire.enter()
            asyncio.set_event_loop(self.loop)
            self.server = self.loop.run_until_complete(
                asyncio.start_server(self.accept, FAR if wire else "127.0.0.1", 0))
            ready.set()
            self.loop.run_forever()
        threading.Thread(target=run, daemon=True).start()
        ready.wait()
        self.address = "%s:%d" % self.server.sockets[0].getsockname()[:2]

    async def accept(self, reader, writer):
        try:
            up_reader, up_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self.pass_on("up", reader, up_writer),
                             self.pass_on("down", up_reader, writer))

    async def pass_on(self, way, reader, writer):
        queue = asyncio.Queue(maxsize=256)
        sender = self.loop.create_task(self.send(queue, writer))
        try:
            while piece := await reader.read(PIECE):
                self.passed[way] += len(piece)
                now = self.loop.time()
                self.free_at[way] = (max(self.free_at[way], now)
                                     + len(piece) / self.bytes_per_second)
                await queue.put((self.free_at[way] + self.delay, piece))
        except OSError:
            pass
        await queue.put((0, b""))
        await sender

    async def send(self, queue, writer):
        try:
            while True:
                due, piece = await queue.get()
                if not piece:
                    break
                await asyncio.sleep(max(0, due - self.loop.time()))
                writer.write(piece)
                await writer.drain()
        except OSError:
            pass
        writer.close()


def boot(qemu, folder, disk, name):
    """Seconds to the first prompt, and to the end of the work after it."""
    begun = time.monotonic()
    with qemu.Guest(folder, disk, name) as machine:
        prompt = time.monotonic() - begun
        machine.run(WORK)
        return prompt, time.monotonic() - begun


def read_on(uri, link):
    """A disk read from its beginning to its end, 128 KiB at a time, one after the other."""
    before, begun = link.passed["down"], time.monotonic()
    subprocess.run(["qemu-img", "bench", "-f", "raw", "-c", "8192", "-d", "1", "-s", "131072", "-S",
                    "131072", uri], check=True, stdout=subprocess.DEVNULL)
    seconds, came = time.monotonic() - begun, link.passed["down"] - before
    print(f"read on: {seconds:.1f} s, {came * 8 / seconds / 1e6:.0f} Mbit/s of the link, "
          f"{(1 << 30) / seconds / 1e6:.0f} MB/s of the disk")


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--binary", default="build/release/bin/quarry")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--mbits", type=int, default=100)
    options.add_argument("--delay-ms", type=int, default=20)
    options.add_argument("--tc", action="store_true",
                         help="let the kernel limit the rate, on a wire of its own (root)")
    told = options.parse_args()
    with contextlib.ExitStack() as stack:
        measure(told, stack.enter_context(Wire(told.mbits * 1e6)) if told.tc else None)


def measure(told, wire):
    os.environ["TEST_QUARRY_BINARY"] = told.binary
    import guest as qemu
    import service as quarry
    from host import Host, node

    qemu.make_images("base")
    base = f"{qemu.IMAGES}/base.raw"
    link = SlowLink(told.mbits * 1e6, told.delay_ms, wire)
    found = {}

    def note(case, prompt, work, fetched):
        found.setdefault(case, []).append((prompt, work, fetched))
        print(f"{case}: prompt {prompt:.1f} s, work {work:.1f} s, {fetched >> 20} MiB of the link",
              file=sys.stderr)

    with tempfile.TemporaryDirectory(prefix="quarry-bench-") as folder, \
            quarry.Service(options=[f"--public-url=http://{link.address}"],
                           listen=f"{NEAR if wire else '127.0.0.1'}:0") as service:
        link.target = tuple(urllib.parse.urlsplit(service.base).netloc.split(":"))
        pushed = service.quarry("image", "push", base, "--name", "debian", "--json")
        assert pushed.returncode == 0, pushed.stderr
        image = json.loads(pushed.stdout)["id"]

        def disk(uri):
            return {"driver": "raw", "read-only": True, "file": node(uri, **{"read-only": True})}

        def over(host, case, name):
            before = link.passed["down"]
            begun = time.monotonic()
            uri = host.attach(image)
            attached = time.monotonic() - begun
            prompt, work = boot(qemu, folder, disk(uri), name)
            note(case, attached + prompt, attached + work, link.passed["down"] - before)

        with Host(service, options=["--trace-window=30s"]) as host:
            boot(qemu, folder, disk(host.attach(image)), "recorded")
            host.wait_until(lambda: host.metric("quarry_host_traces_sent_total") == 1)
        for turn in range(told.rounds):
            subprocess.run(["cp", base, f"{folder}/local.raw"], check=True)
            local = {"driver": "raw", "read-only": True,
                     "file": {"driver": "file", "filename": f"{folder}/local.raw"}}
            note("a local file", *boot(qemu, folder, local, f"local{turn}"), 0)
            with Host(service, options=["--trace=off"]) as host:
                over(host, "cold, no trace", f"cold{turn}")
            with Host(service) as host:
                over(host, "cold, with a trace", f"traced{turn}")
                over(host, "the second guest", f"warm{turn}")
            before, begun = link.passed["down"], time.monotonic()
            os.unlink(f"{folder}/local.raw")
            pulled = service.quarry("image", "pull", image, f"{folder}/local.raw")
            assert pulled.returncode == 0, pulled.stderr
            took = time.monotonic() - begun
            prompt, work = boot(qemu, folder, local, f"pulled{turn}")
            note("downloaded first", took + prompt, took + work, link.passed["down"] - before)

        with Host(service, options=["--trace=off"]) as host:
            read_on(host.attach(image), link)

    local = [statistics.median(column) for column in zip(*found["a local file"])]
    for case, rounds in found.items():
        prompt, work, fetched = (statistics.median(column) for column in zip(*rounds))
        print(f"| {case} | {prompt:.1f} | {prompt / local[0]:.2f} | {work:.1f} | "
              f"{work / local[1]:.2f} | {fetched / 1e6:.0f} |")


if __name__ == "__main__":
    main()
