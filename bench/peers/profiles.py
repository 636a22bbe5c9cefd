"""Where the CPU time of Quarry goes in each measured operation: samples of its process by perf."""

import collections
import contextlib
import re
import signal
import subprocess

import rates
import transfer
from system import Failed, install, run, settle, warm

SAMPLES_PER_SECOND = 997
SHOWN = 8  # functions of each operation
SECONDS = 3  # of the operations that are counted by the second


@contextlib.contextmanager
def sampling(quarry, file):
    """Samples the process as long as the block runs."""
    perf = subprocess.Popen(
        ["perf", "record", "-q", "-F", str(SAMPLES_PER_SECOND), "-o", file, "-p",
         str(quarry.pid())], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True)
    try:
        yield
    finally:
        perf.send_signal(signal.SIGINT)
        said = perf.communicate(timeout=60)[1]
    if not file.exists():
        raise Failed(f"perf took no samples: {said}")


def short(symbol):
    """A function's name as people say it: no arguments, no template parameters."""
    symbol = symbol.replace("(anonymous namespace)::", "")
    while True:
        shorter = re.sub(r"<[^<>]*>", "", symbol)
        if shorter == symbol:
            break
        symbol = shorter
    return symbol.split("(")[0].split("[")[0].strip()


def shares(file):
    """What took the most: [(percent, function or library, where it lives)].

    Debian's libraries have no symbols: each counts as one."""
    said = run("perf", "report", "-i", file, "--stdio", "--no-children", "-g", "none", "-F",
               "overhead,dso,sym", "-w", "6,40,400").stdout
    totals = collections.Counter()
    for line in said.splitlines():
        found = re.match(r"\s+([\d.]+)%\s+(\S+)\s+\[(.)\]\s+(.+)", line)
        if not found:
            continue
        percent, library, space, symbol = found.groups()
        own = library.startswith("quarry") or space == "k"
        name = short(symbol) if own else library.split(".so")[0]
        totals[(name, "kernel" if space == "k" else library)] += float(percent)
    if not totals:
        raise Failed(f"perf's report is not understood:\n{said[:2000]}")
    return [(percent, name, where) for (name, where), percent in totals.most_common(SHOWN)
            if percent >= 1]


def profile(figures, quarry, what, work):
    file = quarry.directory / "samples"
    file.unlink(missing_ok=True)
    with sampling(quarry, file):
        result = work()
    figures.profiles[what] = shares(file)
    return result


def profile_transfers(context, figures, quarry):
    for kind, path in transfer.inputs(context).items():
        warm(path)
        image = quarry.cloud.create_image(kind)
        url = quarry.cloud.file_url(image)
        profile(figures, quarry, f"upload {kind}", lambda: transfer.upload(quarry, image, path))
        profile(figures, quarry, f"download {kind}", lambda: transfer.download(
            quarry, url, transfer.SIZE, transfer.token_header(quarry)))
        if kind == "random":
            again = quarry.cloud.create_image("known")
            profile(figures, quarry, "upload known",
                    lambda: transfer.upload(quarry, again, path))
        settle()


def measure(context, figures):
    if not context.quarry_binary:
        return
    install(["linux-perf", "wrk"])
    figures.note(f"profiles: perf at {SAMPLES_PER_SECOND} Hz, what takes at least 1 % of the "
                 "process's CPU time, uploads with the background work that follows; a library "
                 "without symbols counts as one")
    with context.fresh_quarry() as quarry:
        profile_transfers(context, figures, quarry)
        for what, (url, headers, script) in rates.prepare(quarry).items():
            rates.wrk(url, headers, 1, script)
            profile(figures, quarry, what, lambda: rates.wrk(url, headers, SECONDS, script))
