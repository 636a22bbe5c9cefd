#!/usr/bin/python3
"""Makes what boots a disk image of make.py in QEMU: such an image has no boot loader.

    bench/images/guest.py [DIR]        (DIR defaults to build/images)

    DIR/guest/vmlinuz    the kernel that Debian makes for clouds, as it is in its package
    DIR/guest/initrd     busybox and the drivers of a virtio disk; mounts /dev/vda, starts init

    qemu-system-x86_64 -m 512 -nographic -kernel DIR/guest/vmlinuz -initrd DIR/guest/initrd
        -append "console=ttyS0 init=/bin/sh" -drive file=DIR/base.raw,format=raw,if=virtio

A finished one is never made again. Packages come through the machine's own apt.
"""

import argparse
import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import make

TOOLS = {"busybox": "busybox-static", "cpio": "cpio", "qemu-system-x86_64": "qemu-system-x86"}
KERNEL = "linux-image-cloud-amd64"

# Each after those that it needs. The kernel has ext4 built in.
MODULES = ["virtio/virtio_ring", "virtio/virtio", "virtio/virtio_pci_legacy_dev",
           "virtio/virtio_pci_modern_dev", "virtio/virtio_pci", "block/virtio_blk"]

# A disk is there when the driver has bound to it, which insmod does not wait for.
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
for module in {modules}; do insmod /modules/$module.ko; done
init=/sbin/init
for word in $(cat /proc/cmdline); do
  case $word in init=*) init=${{word#init=}} ;; esac
done
tries=0
until [ -b /dev/vda ] || [ $tries = 100 ]; do tries=$((tries + 1)); sleep 0.1; done
mount -t ext4 /dev/vda /root || {{ echo "no ext4 on /dev/vda"; poweroff -f; }}
for dir in dev proc sys; do mount -o move /$dir /root/$dir; done
exec switch_root /root $init
"""


def kernel_package(work):
    """The package of the kernel, unpacked below `work`."""
    depends = make.run("apt-cache", "depends", "--important", KERNEL)
    package = re.search(r"Depends: (linux-image-\S+)", depends)
    if not package:
        sys.exit(f"error: apt knows no {KERNEL}: run apt-get update first")
    make.run("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package[1], cwd=work)
    make.run("dpkg-deb", "-x", next(work.glob("*.deb")), work / "kernel")
    return work / "kernel"


def pack(tree, archive):
    """`tree` as a compressed initial RAM disk."""
    names = "\n".join(str(p.relative_to(tree)) for p in sorted(tree.rglob("*")))
    packed = subprocess.run(["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"], cwd=tree,
                            input=names.encode(), stdout=subprocess.PIPE, check=True).stdout
    archive.write_bytes(gzip.compress(packed, 6, mtime=0))


def make_guest(cache):
    target = cache / "guest"
    if target.exists():
        return target
    make.install_tools(TOOLS)
    make.say("making guest")
    work = Path(tempfile.mkdtemp(prefix="making-", dir=cache))
    try:
        kernel = kernel_package(work)
        tree, made = work / "tree", work / "made"
        for folder in ("bin", "dev", "proc", "sys", "root", "modules"):
            (tree / folder).mkdir(parents=True)
        made.mkdir()
        shutil.copy(shutil.which("busybox"), tree / "bin/busybox")
        drivers = next(kernel.glob("lib/modules/*")) / "kernel/drivers"
        for module in MODULES:
            shutil.copy(drivers / f"{module}.ko", tree / "modules")
        (tree / "init").write_text(INIT.format(modules=" ".join(m.split("/")[1] for m in MODULES)))
        (tree / "init").chmod(0o755)
        pack(tree, made / "initrd")
        shutil.copy(next(kernel.glob("boot/vmlinuz-*")), made / "vmlinuz")
        os.rename(made, target)  # only a finished guest has its final name
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dir", nargs="?", type=Path, default=Path("build/images"))
    cache = parser.parse_args().dir.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    make.say(f"what boots them is in {make_guest(cache)}")


if __name__ == "__main__":
    main()
