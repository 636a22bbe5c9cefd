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
    """One job that runs beside us. `target` is an NBD URI, "rbd:POOL/IMAGE", or a file with
    `direct` or not. Without `seconds` it goes once over all of `size`. `jobs` are as many
    connections; with `window_ms` the rates of such stretches of time are told, too."""

    def __init__(self, directory, target, mode, block, depth, seconds, size="1g", direct=None,
                 jobs=1, window_ms=None):
        if str(target).startswith("rbd:"):  # an image of $CEPH_CONF's cluster, POOL/IMAGE
            pool, image = target[len("rbd:"):].split("/")
            where = ["--ioengine=rbd", "--clientname=admin", f"--pool={pool}", f"--rbdname={image}"]
        elif direct is None:
            where = ["--ioengine=nbd", f"--uri={target}"]
        else:
            engine = "libaio" if direct else "psync"
            where = [f"--ioengine={engine}", f"--filename={target}", f"--direct={int(direct)}"]
        self._process = subprocess.Popen(
            ["fio", "--name=job", *where, f"--rw={mode}", f"--bs={block}", f"--iodepth={depth}",
             f"--size={size}", "--randrepeat=0", "--norandommap", "--output-format=json",
             f"--numjobs={jobs}", "--group_reporting", *self._log_options(directory, window_ms),
             *(["--time_based", f"--runtime={seconds}"] if seconds else [])],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=directory)
        self._seconds = seconds or 0
        self._interrupted = False

    def _log_options(self, directory, window_ms):
        self._log = directory / "fio_iops.log" if window_ms else None
        if not window_ms:
            return []
        return [f"--write_iops_log={directory / 'fio'}", f"--log_avg_msec={window_ms}",
                "--log_unix_epoch=1", "--per_job_logs=0"]

    def _windows(self):
        """[(when it ended, in seconds since 1970, operations a second)]"""
        if self._log is None:
            return []
        rates = {}
        for line in self._log.read_text().splitlines():
            milliseconds, rate, *_ = line.split(",")
            rates.setdefault(int(milliseconds) / 1000, []).append(int(rate))
        self._log.unlink()
        return sorted((when, sum(rate)) for when, rate in rates.items())

    def check_running(self):
        """What is measured under a load that has ended is no figure."""
        if self._process.poll() is not None:
            said, failed = self._process.communicate()
            raise Failed(f"fio ended early:\n{said[-500:]}{failed[-500:]}")

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
                "max_us": side["clat_ns"]["max"] / 1000, "windows": self._windows()}

    def stop(self):
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
