"""Load by fio, over NBD or straight on a file."""

import json
import signal
import subprocess

from system import Failed

# What is compared: name, fio's mode, block size, depth.
CELLS = [("4 KiB random read, depth 1", "randread", "4k", 1),
         ("4 KiB random write, depth 1", "randwrite", "4k", 1),
         ("4 KiB random read, depth 32", "randread", "4k", 32),
         ("4 KiB random write, depth 32", "randwrite", "4k", 32),
         ("1 MiB sequential read, depth 8", "read", "1m", 8),
         ("1 MiB sequential write, depth 8", "write", "1m", 8)]


class Fio:
    """One job that runs beside us. `target` is an NBD URI, or a file with `direct` or not. Without
    `seconds` it goes once over all of `size`."""

    def __init__(self, directory, target, mode, block, depth, seconds, size="1g", direct=None):
        if direct is None:
            where = ["--ioengine=nbd", f"--uri={target}"]
        else:
            engine = "libaio" if direct else "psync"
            where = [f"--ioengine={engine}", f"--filename={target}", f"--direct={int(direct)}"]
        self._process = subprocess.Popen(
            ["fio", "--name=job", *where, f"--rw={mode}", f"--bs={block}", f"--iodepth={depth}",
             f"--size={size}", "--randrepeat=0", "--norandommap", "--output-format=json",
             *(["--time_based", f"--runtime={seconds}"] if seconds else [])],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=directory)
        self._seconds = seconds or 0
        self._interrupted = False

    def interrupt(self):
        """Ends it; it tells its figures all the same."""
        self._interrupted = True
        self._process.send_signal(signal.SIGINT)

    def figures(self):
        """Waits for its end. Operations a second; latencies in microseconds."""
        try:
            said, failed = self._process.communicate(timeout=self._seconds + 120)
        except subprocess.TimeoutExpired as error:
            self._process.kill()
            raise Failed("fio hangs") from error
        if self._process.returncode != 0 and not self._interrupted:
            raise Failed(f"fio failed:\n{said[-500:]}{failed[-500:]}")
        job = json.loads(said[said.index("{"):])["jobs"][0]
        side = job["read" if job["read"]["iops"] else "write"]
        return {"iops": side["iops"], "p50_us": side["clat_ns"]["percentile"]["50.000000"] / 1000,
                "max_us": side["clat_ns"]["max"] / 1000}

    def stop(self):
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
