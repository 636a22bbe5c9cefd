"""Programs that a benchmark needs: installed by name, started privately, stopped for sure."""

import contextlib
import importlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SANE_PATH = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1 << 20


class Failed(Exception):
    """Something the benchmark needs did not work; the text says what."""


def say(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def prepare_process():
    """Debian's own Python and tools first, and TERM handled like Ctrl-C: everything is stopped."""
    os.environ["PATH"] = SANE_PATH
    os.environ["LC_ALL"] = "C.UTF-8"
    for name in [n for n in os.environ if n.startswith("OS_")]:
        del os.environ[name]  # another cloud's credentials have no business here
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"

    def interrupted(number, _frame):
        signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, interrupted)


def run(*args, check=True, timeout=None, **options):
    """Runs a command, returns the finished process; its output is shown only when it fails."""
    done = subprocess.run([str(a) for a in args], stdin=options.pop("stdin", subprocess.DEVNULL),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          errors="replace", timeout=timeout, **options)
    if check and done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise Failed(f"{args[0]} failed ({done.returncode}):\n{tail}")
    return done


# ---- packages

@contextlib.contextmanager
def no_service_starts():
    """While packages are being installed, their services stay down (unless a policy is there)."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()


def install(packages):
    """Installs what is missing, from the machine's configured sources."""
    status = run("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *packages,
                 check=False).stdout
    there = {line.split()[0] for line in status.splitlines() if line.endswith(" installed")}
    missing = [p for p in packages if p not in there]
    if not missing:
        return
    say(f"installing {' '.join(missing)}")
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    command = ["apt-get", "-o", "DPkg::Lock::Timeout=900", "install", "-y",
               "--no-install-recommends", *missing]
    with no_service_starts():
        if run(*command, env=env, check=False).returncode != 0:
            run("apt-get", "update")  # the package lists may be missing or old
            run(*command, env=env)
    importlib.invalidate_caches()


def unpack(package, directory):
    """The files of a package under `directory`/`package`, without installing it.

    So a service's own configuration and start scripts are at hand while nothing in /etc changes,
    no user is made and no service is registered.
    """
    target = directory / package
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(dir=directory) as work:
        run("apt-get", "-o", "APT::Sandbox::User=root", "download", package, cwd=work)
        (archive,) = Path(work).glob("*.deb")
        run("dpkg", "-x", archive, Path(work) / "files")
        os.rename(Path(work) / "files", target)
    return target


# ---- processes

class Server:
    """A program in its own session, so that its children are found, counted and stopped with it."""

    def __init__(self, name, args, directory, env=None):
        self.name = name
        self.log = directory / f"{name}.log"
        with open(self.log, "ab") as out:
            # Should this process be killed outright, the kernel passes the end on to the server.
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *map(str, args)], stdin=subprocess.DEVNULL,
                stdout=out, stderr=out, start_new_session=True, cwd=directory,
                env=dict(os.environ, **(env or {})))
        self.pid = self._process.pid

    def alive(self):
        return self._process.poll() is None

    def wait_until(self, ready, seconds=120):
        """Waits until `ready()` is true; a server that ends or stays silent is an error."""
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.alive():
                raise Failed(f"{self.name} ended at its start:\n{self.last_lines()}")
            if time.monotonic() > deadline:
                raise Failed(f"{self.name} was not ready in {seconds} s:\n{self.last_lines()}")
            time.sleep(0.05)

    def last_lines(self, count=15):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def session(self):
        """(pid, stat fields after the name) of every process of this server."""
        found = []
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # gone meanwhile
            if int(fields[3]) == self.pid and fields[0] != "Z":
                found.append((int(entry), fields))
        return found

    def cpu_seconds(self):
        """User and system time of all its processes, and of their children that have ended."""
        return sum(sum(map(int, fields[11:15])) for _, fields in self.session()) / TICKS

    def reset_peak(self):
        for pid, _ in self.session():
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak_memory(self):
        """The largest resident size (VmHWM, bytes) since the start or reset_peak()."""
        total = 0
        for pid, _ in self.session():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith("VmHWM:"):
                        total += int(line.split()[1]) * 1024
        return total

    def stop(self, seconds=30):
        if self.alive():
            self._process.terminate()
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                say(f"{self.name} did not stop in {seconds} s and is killed")
        for pid, _ in self.session():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        return self._process.returncode


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listening(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


# ---- files

@contextlib.contextmanager
def work_directory(parent):
    """A private directory that is gone afterwards, whatever happened."""
    parent.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def disk_bytes(path):
    """What a file or a directory really occupies."""
    total = 0
    for root, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(root, name)).st_blocks * 512
    return total if path.is_dir() else path.stat().st_blocks * 512


def random_file(path, size_bytes):
    """Bytes that neither compress nor repeat, quickly: the key stream of a random key."""
    with open(path, "wb") as out:
        subprocess.run(f"head -c {size_bytes} /dev/zero | openssl enc -aes-128-ctr -nosalt "
                       f"-K {os.urandom(16).hex()} -iv {os.urandom(16).hex()}",
                       shell=True, check=True, stdout=out)
    return path


def warm(path):
    """Reads a file once, so that every contender finds it in the page cache."""
    with open(path, "rb", buffering=0) as file:
        buffer = bytearray(4 * MIB)
        while file.readinto(buffer):
            pass
    return path


def settle():
    """Lets the disk finish what the last measurement left to it."""
    os.sync()
