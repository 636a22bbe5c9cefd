#!/usr/bin/python3
"""Makes the real Debian disk images that the tests and the benchmarks store.

    bench/images/make.py [DIR] [NAME...]        (DIR defaults to build/images; all names by default)

Every image is a raw ext4 file system with a Debian system inside, sparse on disk:

    base              1 GiB   a small server system at the state of the suite's last point release
    added             1 GiB   a copy of base, packages installed in place
    upgraded          1 GiB   a copy of base, every pending update installed in place
    booted            1 GiB   a copy of base after one boot in QEMU, with small writes in the guest
    rebuilt           1 GiB   the packages of base, bootstrapped and formatted again from nothing
    rebuilt-added     1 GiB   the packages of added, bootstrapped and formatted from nothing
    rebuilt-tools     1 GiB   those of base and a few tools, bootstrapped and formatted from nothing
    rebuilt-upgraded  1 GiB   those of base with every update, bootstrapped and formatted
    next              1 GiB   those of base in the Debian release after this machine's
    full              2 GiB   a well-filled system (compilers, a kernel, a database, a Java runtime)
    base.qcow2                base, converted by qemu-img

A finished image is never made again: a second run does nothing. Packages come from the sources that
this machine's apt is configured with, through apt itself. Needs root (chroot, loop mount or FUSE).
"""

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["PATH"] = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
os.environ["DEBIAN_FRONTEND"] = "noninteractive"
os.environ["LC_ALL"] = "C.UTF-8"

TOOLS = {  # a program we call -> the package that has it
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "fuse2fs": "fuse2fs",
    "qemu-img": "qemu-utils",
}
BASE_PACKAGES = ["systemd", "systemd-sysv", "openssh-server", "ca-certificates", "iproute2",
                 "dbus", "procps"]
ADDED_PACKAGES = ["python3", "git", "vim", "rsync", "curl", "tcpdump", "tmux"]
TOOL_PACKAGES = ["rsync", "curl", "tcpdump", "tmux", "strace", "lsof", "jq", "less", "file"]
FULL_PACKAGES = ADDED_PACKAGES + ["linux-image-cloud-amd64", "build-essential", "postgresql",
                                  "default-jre-headless", "clang", "perl", "python3-numpy"]
MIB = 1 << 20

BOOT_LIMIT_S = 900
# What a guest does in the time after its first boot: settings, a log, a user's files, a deletion.
FIRST_BOOT = """[Unit]
Description=Small writes, then off
After=multi-user.target

[Service]
Type=oneshot
StandardOutput=journal+console
ExecStart=/bin/sh -ec 'echo guest-1 >/etc/hostname; useradd -m alice; \\
  ssh-keygen -q -t ed25519 -N "" -f /home/alice/key; \\
  for i in $$(seq 1 500); do echo "$$i: something happened" >>/var/log/app.log; done; \\
  for i in $$(seq 1 40); do head -c 20000 /dev/urandom >/home/alice/file-$$i; done; \\
  rm -f /home/alice/file-1* /etc/systemd/system/first-boot.service \\
    /etc/systemd/system/multi-user.target.wants/first-boot.service; sync; echo first boot done'
ExecStopPost=/bin/systemctl poweroff --no-block
"""


def say(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def run(*args, **options):
    """Runs a command quietly; when it fails, shows the end of what it printed and stops."""
    done = subprocess.run([str(a) for a in args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          stdin=subprocess.DEVNULL, text=True, errors="replace", **options)
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        sys.exit(f"error: {args[0]} failed ({done.returncode}):\n{tail}")
    return done.stdout


def install_tools(tools=None):
    missing = [package for tool, package in (tools or TOOLS).items() if not shutil.which(tool)]
    if missing:
        say(f"installing {' '.join(missing)}")
        run("apt-get", "-o", "DPkg::Lock::Timeout=900", "install", "-y",
            "--no-install-recommends", *missing)


def sources():
    """The machine's apt sources as (release, one-line source), base suite first."""
    listing = run("apt-get", "indextargets", "--format",
                  "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SIGNED_BY)", "Created-By: Packages")
    codename = re.search(r"^VERSION_CODENAME=(\S+)", Path("/etc/os-release").read_text(), re.M)
    if not codename:
        sys.exit("error: /etc/os-release names no VERSION_CODENAME: this needs Debian")
    wanted = {codename[1]: 0, f"{codename[1]}-updates": 1, f"{codename[1]}-security": 2}
    found = {}
    for line in listing.splitlines():
        uri, release, component, key = (line.split("|") + [""] * 4)[:4]
        if release in wanted:
            known = found.setdefault((wanted[release], release, uri, key), [])
            known.append(component)
    if not found or min(found)[0] != 0:
        sys.exit(f"error: apt has no source for {codename[1]}: run apt-get update first")
    lines = []
    for (_, release, uri, key), components in sorted(found.items()):
        signed = f"[signed-by={key}] " if key.startswith("/") else ""
        lines.append((release, f"deb {signed}{uri} {release} {' '.join(sorted(set(components)))}"))
    return lines


def apt_options():
    """This machine's own rules for fetching (proxies, certificates, dates), as apt options."""
    keep = re.compile(r"^(Acquire::(?:https?|ftp|Check-\S+|Retries)\S*) (\".+\");$", re.I)
    found = [keep.match(line) for line in run("apt-config", "dump").splitlines()]
    return [f"{m[1]} {m[2]};" for m in found if m] + ['Acquire::Languages "none";']


def bootstrap(directory, lines, packages):
    """A fresh Debian system in `directory`."""
    source_file = directory.with_suffix(".sources.list")
    source_file.write_text("\n".join(line for _, line in lines) + "\n")
    options = [f"--aptopt={option}" for option in apt_options()]
    run("mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(packages)}",
        *options, lines[0][0], directory, source_file)


def format_image(directory, image, size_mib):
    """An ext4 file system of `size_mib` with the content of `directory`, sparse."""
    with open(image, "wb") as out:
        out.truncate(size_mib * MIB)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-d", directory, image)


@contextlib.contextmanager
def mounted(image, work):
    """`image` mounted read-write: by loop device where the kernel lets us, else by FUSE."""
    point = work / "mnt"
    point.mkdir()
    loop = subprocess.run(["mount", "-o", "loop", image, point], capture_output=True)
    if loop.returncode != 0:
        run("fuse2fs", "-o", "rw,fakeroot", image, point)
    try:
        yield point
    finally:
        run("umount", point)
        point.rmdir()


@contextlib.contextmanager
def system_mounts(root):
    """/dev, /proc and /sys for the maintainer scripts; services are told not to start."""
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    done = []
    try:
        for name in ("proc", "sys", "dev"):
            run("mount", "--rbind", f"/{name}", root / name)
            run("mount", "--make-rslave", root / name)
            done.append(root / name)
        yield
    finally:
        for point in reversed(done):
            run("umount", "--recursive", "--lazy", point)
        policy.unlink()


def change_in_place(image, lines, work, command):
    """Runs apt-get `command` on the system inside `image`; the host's apt fetches the packages."""
    with mounted(image, work) as root, system_mounts(root):
        (root / "etc/apt/sources.list").write_text("\n".join(line for _, line in lines) + "\n")
        config, lists = work / "apt.conf", work / "lists"
        lists.mkdir()  # outside: the image changes by its packages, not by package lists
        config.write_text("\n".join([f'Dir "{root}";', f'DPkg::Chroot-Directory "{root}";',
                                     f'Dir::State::lists "{lists}";',
                                     'APT::Install-Recommends "false";',
                                     'APT::Sandbox::User "root";', *apt_options()]) + "\n")
        env = dict(os.environ, APT_CONFIG=str(config))
        run("apt-get", "update", env=env)
        said = run("apt-get", "-y", *command, env=env)
        run("apt-get", "clean", env=env)
    summary = re.search(r"^\d+ upgraded, .*$", said, re.M)
    say(f"  {summary[0] if summary else 'nothing to do'}")


def made_again(packages, lines, size_mib):
    """A maker: bootstrap and format from nothing."""
    def make(image, _cache, work):
        root = work / "root"
        bootstrap(root, lines, packages)
        format_image(root, image, size_mib)
    return make


def made_in_place(lines, command):
    """A maker: copy base, then let apt-get change the copy."""
    def make(image, cache, work):
        run("cp", "--sparse=always", cache / "base.raw", image)
        change_in_place(image, lines, work, command)
    return make


def make_qcow2(image, cache, _work):
    run("qemu-img", "convert", "-O", "qcow2", cache / "base.raw", image)


def next_release(suite):
    """The suite's source, as one of the Debian release after it."""
    following = {"bullseye": "bookworm", "bookworm": "trixie", "trixie": "forky"}
    release, line = suite[0]
    if release not in following:
        sys.exit(f"error: no release is known that follows {release}: add it to make.py")
    return [(following[release], line.replace(f" {release} ", f" {following[release]} "))]


def made_by_a_boot(image, cache, work):
    """A maker: copy base, boot the copy once, make small writes in the guest, power off."""
    import guest  # which imports this file
    install_tools(guest.TOOLS)
    parts = guest.make_guest(cache)
    run("cp", "--sparse=always", cache / "base.raw", image)
    with mounted(image, work) as root:
        # The unit is there for one boot and gone with it.
        unit = root / "etc/systemd/system/first-boot.service"
        unit.write_text(FIRST_BOOT)
        wants = root / "etc/systemd/system/multi-user.target.wants/first-boot.service"
        wants.parent.mkdir(exist_ok=True)
        wants.symlink_to("../first-boot.service")
    said = run("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2",
               "-m", "512", "-display", "none", "-no-reboot", "-monitor", "none",
               "-serial", "stdio", "-kernel", parts / "vmlinuz", "-initrd", parts / "initrd",
               "-append", "console=ttyS0 panic=-1 systemd.mask=serial-getty@ttyS0.service",
               "-drive", f"file={image},format=raw,if=virtio,cache=unsafe", timeout=BOOT_LIMIT_S)
    if "first boot done" not in said:
        sys.exit("error: the guest did not come to its first boot's end:\n" + said[-1500:])


def recipes():
    """Name -> (file name, other images it needs, maker)."""
    lines = sources()
    suite = lines[:1]
    return {
        "base": ("base.raw", [], made_again(BASE_PACKAGES, suite, 1024)),
        "added": ("added.raw", ["base"], made_in_place(suite, ["install", *ADDED_PACKAGES])),
        "upgraded": ("upgraded.raw", ["base"], made_in_place(lines, ["dist-upgrade"])),
        "rebuilt": ("rebuilt.raw", [], made_again(BASE_PACKAGES, suite, 1024)),
        "rebuilt-added": ("rebuilt-added.raw", [],
                          made_again(BASE_PACKAGES + ADDED_PACKAGES, suite, 1024)),
        "rebuilt-tools": ("rebuilt-tools.raw", [],
                          made_again(BASE_PACKAGES + TOOL_PACKAGES, suite, 1024)),
        "rebuilt-upgraded": ("rebuilt-upgraded.raw", [], made_again(BASE_PACKAGES, lines, 1024)),
        "next": ("next.raw", [], made_again(BASE_PACKAGES, next_release(suite), 1024)),
        "booted": ("booted.raw", ["base"], made_by_a_boot),
        "full": ("full.raw", [], made_again(BASE_PACKAGES + FULL_PACKAGES, suite, 2048)),
        "base.qcow2": ("base.qcow2", ["base"], make_qcow2),
    }


def make(name, table, cache):
    file_name, needs, maker = table[name]
    image = cache / file_name
    if image.exists():
        return
    for other in needs:
        make(other, table, cache)
    say(f"making {name}")
    started = time.monotonic()
    work = Path(tempfile.mkdtemp(prefix="making-", dir=cache))
    try:
        unfinished = work / file_name
        maker(unfinished, cache, work)
        run("fallocate", "--dig-holes", unfinished)  # zero blocks that apt's use left behind
        os.rename(unfinished, image)  # only a finished image has its final name
    finally:
        shutil.rmtree(work, ignore_errors=True)
    status = image.stat()
    say(f"  {image}: {status.st_size // MIB} MiB, {status.st_blocks * 512 // MIB} MiB on disk, "
        f"{time.monotonic() - started:.0f} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dir", nargs="?", type=Path, default=Path("build/images"))
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("error: making disk images needs root (chroot and mounts); run it with sudo")
    cache = arguments.dir.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    install_tools()
    table = recipes()
    unknown = set(arguments.names) - set(table)
    if unknown:
        sys.exit(f"error: unknown image {sorted(unknown)[0]}; known: {', '.join(table)}")
    for name in arguments.names or table:
        make(name, table, cache)
    say(f"images are in {cache}")


if __name__ == "__main__":
    main()
