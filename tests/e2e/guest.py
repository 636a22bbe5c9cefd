"""A guest in QEMU for a test: Debian's kernel, a shell on its serial console, a volume as disk."""

import json
import os
import re
import select
import socket
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
IMAGES = os.path.join(ROOT, "build", "images")
BOOT_SECONDS = 120
COMMAND_SECONDS = 120


def make_images(*names):
    """Real disk images (bench/images) and what boots them; made once, kept in build/images."""
    for script, words in (("make.py", [IMAGES, *names]), ("guest.py", [IMAGES])):
        subprocess.run(["/usr/bin/python3", os.path.join(ROOT, "bench/images", script), *words],
                       check=True, stdout=sys.stderr)


class Guest:
    """Boots `disk`, the options of a QEMU block node. One thread.

    The shell is the guest's first process, so nothing in it writes but what it is told. Emulated:
    a virtual machine of a build often has /dev/kvm and can't run an unmodified kernel with it.
    """

    def __init__(self, folder, disk, name="guest"):
        self.qmp_path = os.path.join(folder, name + ".qmp")
        self.log_path = os.path.join(folder, name + ".log")
        self.heard = ""
        self.serial = 0
        self.qmp_file = None
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", "256",
                 "-display", "none", "-no-reboot", "-monitor", "none", "-serial", "stdio",
                 "-qmp", f"unix:{self.qmp_path},server=on,wait=off",
                 "-kernel", f"{IMAGES}/guest/vmlinuz", "-initrd", f"{IMAGES}/guest/initrd",
                 "-append", "console=ttyS0 quiet panic=-1 init=/bin/sh",
                 "-blockdev", json.dumps({"node-name": "disk", **disk}),
                 "-device", "virtio-blk-pci,drive=disk,id=vda"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)

    def __enter__(self):
        try:
            self.expect(r"# $", BOOT_SECONDS)  # the shell's prompt
            self.run("stty -echo -onlcr; PS1=")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.qmp_file is not None:
            self.qmp_file.close()
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def expect(self, pattern, seconds=COMMAND_SECONDS):
        """Waits until the console said `pattern`; what it said until then, and the match."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.heard)):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise AssertionError(f"no {pattern!r} on the console: {self.heard[-2000:]!r}")
            said = os.read(self.process.stdout.fileno(), 65536)
            if not said:
                with open(self.log_path, encoding="utf-8", errors="replace") as log:
                    raise AssertionError(f"QEMU ended: {self.heard[-2000:]!r} {log.read()}")
            self.heard += said.decode("utf-8", "replace")
        before, self.heard = self.heard[:found.start()], self.heard[found.end():]
        return before, found

    def say(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def run(self, command, check=True):
        """A command in the guest's shell: what it printed."""
        self.serial += 1
        # In two parts, so that an echo of the line is not taken for its end.
        self.say(f"{command}\necho 'done '{self.serial} $?")
        printed, found = self.expect(rf"done {self.serial} (\d+)\r?\n")
        if check:
            assert found[1] == "0", (command, printed)
        return printed.strip()

    def qmp(self, command, **arguments):
        """A command of QEMU's machine protocol: what it returns."""
        if self.qmp_file is None:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(COMMAND_SECONDS)
                connection.connect(self.qmp_path)
                self.qmp_file = connection.makefile("rw", encoding="utf-8")
            assert "QMP" in json.loads(self.qmp_file.readline())
            self.qmp("qmp_capabilities")
        self.qmp_file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.qmp_file.flush()
        while True:
            answer = json.loads(self.qmp_file.readline())
            if "event" not in answer:
                assert "return" in answer, (command, arguments, answer)
                return answer["return"]

    def power_off(self):
        """Ends the guest as a power cut would, after what the shell did."""
        self.qmp("quit")
        self.process.wait(COMMAND_SECONDS)
