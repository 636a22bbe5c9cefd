#!/usr/bin/env python3
"""What `quarry image push` and `pull` move, by the service's own count, and what CPU they take:
images pushed one after the other into an empty service, then pulled through the cache of a host.
Prints lines for a table.

    bench/push/run.py --binary build/release/bin/quarry build/images/{base,upgraded}.raw
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/e2e"))

CHILDREN = resource.RUSAGE_CHILDREN


def cpu_of(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def counted(quarry, service, name):
    text = quarry.call("GET", service.base + "/metrics").body.decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def measure(quarry, service, metric, *words):
    """Runs a command; what it answers, wire bytes, its and the service's CPU, elapsed seconds."""
    wire, cpu = counted(quarry, service, metric), cpu_of(service.process.pid)
    own, begin = resource.getrusage(CHILDREN), time.monotonic()
    done = subprocess.run([quarry.QUARRY, "image", *words, "--json"], capture_output=True,
                          env=service.as_user(), check=False)
    elapsed = time.monotonic() - begin
    assert done.returncode == 0, done.stderr
    now = resource.getrusage(CHILDREN)
    own = now.ru_utime + now.ru_stime - own.ru_utime - own.ru_stime
    return (json.loads(done.stdout), counted(quarry, service, metric) - wire, own,
            cpu_of(service.process.pid) - cpu, elapsed)


def line(what, measured, nonzero):
    _, wire, own, cpu, elapsed = measured
    print(f"| {what} | {wire / 1e6:.1f} | {100 * wire / nonzero:.1f} % | {own:.2f} | {cpu:.2f} | "
          f"{elapsed:.1f} |", flush=True)


def main():
    options = argparse.ArgumentParser(description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--binary", required=True)
    options.add_argument("images", nargs="+")
    options = options.parse_args()
    os.environ["TEST_QUARRY_BINARY"] = options.binary
    # They read where the binary is when they are imported.
    import service as quarry  # pylint: disable=import-outside-toplevel
    from host import Host  # pylint: disable=import-outside-toplevel

    print("| what | MB on the wire | of what is not zero | client CPU s | service CPU s | s |\n"
          "|---|---:|---:|---:|---:|---:|")
    with quarry.Service(options=["--store.gc-interval=0s"]) as service:
        pushed = []
        for path in options.images:
            measured = measure(quarry, service, "quarry_http_received_bytes_total", "push", path)
            image = measured[0]
            pushed.append((image["id"], os.path.basename(path),
                           image["bytes_total"] - image["bytes_zero"]))
            line(f"push {pushed[-1][1]}", measured, pushed[-1][2])
        with Host(service, size="2GiB") as host, tempfile.TemporaryDirectory() as folder:
            for turn in ("", " again"):
                for image, name, nonzero in pushed:
                    target = f"{folder}/{name}"
                    measured = measure(quarry, service, "quarry_http_sent_bytes_total", "pull",
                                       image, target, "--socket-dir", host.sockets)
                    line(f"pull {name} through the cache{turn}", measured, nonzero)
                    os.unlink(target)


if __name__ == "__main__":
    main()
