#!/usr/bin/env python3
"""The house's rules as a test: who may include whom, where third parties live, how a file looks.

On paper such rules erode; here a breach names its line and fails the build. Each rule is a function
that takes a Source and yields (line number, sentence). tidy_test.py shows that each can fail.
"""

import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parents[2]

CODE_SUFFIXES = (".cc", ".h")
TEXT_SUFFIXES = {
    *CODE_SUFFIXES, ".py", ".cmake", ".txt", ".md", ".json", ".sh", ".yaml", ".yml", ""}
MAX_COLUMNS = 100
MAX_LINES = 600

# Files that may be longer, and why.
LONG_FILES: dict[str, str] = {}

# Folders of bytes kept for tests, and of figures: not ours to style.
UNSTYLED = re.compile(r"(^|/)([a-z_]*corpus|golden|results)/")

# What each room may include, of ours. The longest prefix of a file's path counts.
ROOMS = {
    "base/": {"base"},
    "chunkstore/": {"base", "chunkstore"},
    "imaged/": {"base", "chunkstore", "imaged"},
    "blockd/": {"base", "chunkstore", "blockd"},
    "controlplane/identity/": {"base", "chunkstore/meta_store.h", "controlplane/identity"},
    "controlplane/": {"base", "chunkstore", "imaged", "blockd", "controlplane"},
    "tests/support/": {"base", "chunkstore", "tests/support"},
    "tests/base/": {"base", "tests/support", "tests/base"},
    "tests/": {"base", "chunkstore", "imaged", "blockd", "controlplane", "tests"},
    "bench/": {"base", "chunkstore", "imaged", "blockd", "controlplane", "bench",
               "tests/support"},
}

# The homes of third parties: a pattern of the header's name, and of the files that may include it.
# A home that ends in .cc keeps the header out of every interface.
HOMES = [
    (r"boost/asio", r"base/(async|http)/.*|tests/base/.*"),
    (r"boost/beast", r"base/http/[^/]+\.cc|tests/base/http/.*"),
    (r"boost/url", r"base/http/[^/]+\.cc"),
    (r"boost/program_options", r"base/config\.cc"),
    (r"boost/json", r"base/json\.(h|cc)"),
    (r"spdlog/", r"base/log\.cc"),
    (r"prometheus/", r"base/metrics\.cc"),
    (r"openssl/",
     r"base/hash\.cc|base/http/[^/]+\.cc|blockd/nbd/tls\.cc|tests/base/http/.*"),
    (r"xxhash", r"base/hash\.cc"),
    (r"sodium", r"controlplane/[a-z/_]+\.cc"),
    (r"zstd|zdict", r"chunkstore/[a-z_]+\.cc"),
    (r"rocksdb/", r"chunkstore/local/[a-z_]+\.cc"),
    (r"rados", r"(chunkstore/ceph|blockd/rbd)/[a-z_]+\.cc"),
    (r"rbd/", r"blockd/rbd/[a-z_]+\.cc"),
    (r"libnbd", r"blockd/remote/connection\.cc"),
    (r"yaml-cpp/", r"controlplane/[a-z/_]+\.cc"),
    (r"(gtest|gmock)/", r"tests/.*"),
    (r"benchmark/", r"bench/.*"),
]

# Tests that mirror no folder of ours.
FREE_NAMESPACE = (["tests", "fuzz"], ["tests", "model"])

# Nobody can break a line of these.
RAW_STRING = re.compile(r'R"([^\s(]*)\(.*?\)\1"', re.DOTALL)

INCLUDE = re.compile(r'\s*#\s*include\s+([<"])([^>"]+)[>"]')
NAMESPACE = re.compile(r"^namespace ([a-z_:0-9]+) \{", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
# Spelled in pieces, so that this file keeps the rules itself.
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
WORKPLACE = re.compile(r"(?<![\w.-])/wo" r"rk/|\.\./sha" r"red\b|/tmp/bri" r"ef")

Finding = tuple[int, str]


@dataclass
class Source:
    """A file of the project: its path from the root, with slashes, and its text."""
    path: str
    text: str

    @property
    def is_code(self) -> bool:
        return self.path.endswith(CODE_SUFFIXES)

    def lines(self) -> Iterator[tuple[int, str]]:
        return enumerate(self.text.split("\n"), start=1)

    def includes(self) -> Iterator[tuple[int, str, str]]:
        for number, line in self.lines():
            found = INCLUDE.match(line)
            if found:
                yield number, found.group(1), found.group(2)


def check_dependencies(source: Source) -> Iterable[Finding]:
    room = max((room for room in ROOMS if source.path.startswith(room)), key=len, default=None)
    if room is None:
        yield 1, f"code outside the rooms {', '.join(sorted(ROOMS))}"
        return
    allowed = ROOMS[room]
    for number, bracket, header in source.includes():
        if bracket == "<":
            continue
        if "/" not in header:
            yield number, f'"{header}": write includes from the root, as in "base/result.h"'
        elif not any(header == name or header.startswith(name + "/") for name in allowed):
            yield number, f'"{header}": {room} may only include {", ".join(sorted(allowed))}'


def check_homes(source: Source) -> Iterable[Finding]:
    for number, bracket, header in source.includes():
        if bracket == '"':
            continue
        for pattern, home in HOMES:
            if re.match(pattern, header) and not re.fullmatch(home, source.path):
                yield number, f"<{header}> may only be included in {home}"


def check_pragma_once(source: Source) -> Iterable[Finding]:
    if source.path.endswith(".h") and not source.text.startswith("#pragma once\n"):
        yield 1, "a header begins with #pragma once"


def check_namespace(source: Source) -> Iterable[Finding]:
    """Namespace == folder; tests mirror the tree without saying "tests".

    What instantiates a conformance suite stands in the suite's namespace: GoogleTest wants it so.
    """
    folders = source.path.split("/")[:-1]
    if "main" in folders or folders[:2] in FREE_NAMESPACE or folders[0] == "bench":
        return
    if folders[0] == "tests":
        folders = folders[1:]
    expected = "::".join(folders)
    named = [name for name in NAMESPACE.findall(source.text) if name != "std"]
    if source.path.startswith("tests/") and named == ["conformance"]:
        return
    if not named:
        if source.path.endswith(".h") and re.search(r"^(class|struct|enum) ", source.text,
                                                    re.MULTILINE):
            yield 1, f"what this declares belongs into namespace {expected}"
        return
    if not any(expected == name or expected.startswith(name + "::") or
               name.startswith(expected + "::") for name in named):
        yield 1, f"namespace {named[0]}, but the folder says {expected}"


def check_lines(source: Source) -> Iterable[Finding]:
    breakable = RAW_STRING.sub(lambda raw: "\n" * raw.group(0).count("\n"), source.text)
    widths = [len(line) for line in breakable.split("\n")]
    for number, line in source.lines():
        width = widths[number - 1]
        if "\t" in line:
            yield number, "a tab"
        if line != line.rstrip():
            yield number, "blanks at the end of the line"
        if width > MAX_COLUMNS and (source.is_code or source.path.endswith(".py")):
            yield number, f"{width} columns; {MAX_COLUMNS} are the limit"
    if source.text and not source.text.endswith("\n"):
        yield source.text.count("\n") + 1, "no newline at the end"


def check_length(source: Source) -> Iterable[Finding]:
    count = source.text.count("\n")
    if (source.is_code or source.path.endswith(".py")) and count > MAX_LINES:
        if source.path not in LONG_FILES:
            yield count, f"{count} lines; split it, or give a reason in LONG_FILES of tidy.py"


def check_unfinished(source: Source) -> Iterable[Finding]:
    for number, line in source.lines():
        found = UNFINISHED.search(line)
        if found:
            yield number, f"{found.group(1)}: finish it, or write an issue"


def check_workplace(source: Source) -> Iterable[Finding]:
    for number, line in source.lines():
        if WORKPLACE.search(line):
            yield number, "a path that exists only where this was written"


def check_links(source: Source) -> Iterable[Finding]:
    if not source.path.endswith(".md"):
        return
    prose = CODE_BLOCK.sub(lambda block: "\n" * block.group(0).count("\n"), source.text)
    for number, line in enumerate(prose.split("\n"), start=1):
        for target in LINK.findall(line):
            if re.match(r"[a-z]+:|#", target):
                continue
            if not (ROOT / source.path).parent.joinpath(target.split("#")[0]).exists():
                yield number, f"the link {target} leads nowhere"


CODE_RULES: list[Callable[[Source], Iterable[Finding]]] = [
    check_dependencies, check_homes, check_pragma_once, check_namespace]
TEXT_RULES: list[Callable[[Source], Iterable[Finding]]] = [
    check_lines, check_length, check_unfinished, check_workplace, check_links]


def check(source: Source) -> list[str]:
    rules = (CODE_RULES if source.is_code else []) + TEXT_RULES
    return [f"{source.path}:{number}: {sentence}"
            for rule in rules for number, sentence in rule(source)]


def project_files() -> list[str]:
    """What git knows or would add; all files where this is no checkout."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=False,
                            capture_output=True, text=True)
    if listed.returncode == 0:
        return sorted(path for path in set(listed.stdout.splitlines()) if (ROOT / path).is_file())
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in ("build", ".git", "__pycache__")]
        found += [os.path.relpath(os.path.join(folder, name), ROOT) for name in names]
    return sorted(found)


def check_format(paths: list[str]) -> list[str]:
    done = subprocess.run(["clang-format-19", "--dry-run", "-Werror", *paths], cwd=ROOT,
                          check=False, capture_output=True, text=True)
    found = sorted(set(re.findall(r"^(\S+?):\d+:\d+: error", done.stderr, re.MULTILINE)))
    if done.returncode != 0 and not found:
        return [f"clang-format-19: {done.stderr.strip()}"]
    return [f"{path}: not formatted; run ./dev format" for path in found]


def main() -> int:
    findings = []
    code = []
    for path in project_files():
        if UNSTYLED.search(path) or pathlib.PurePath(path).suffix not in TEXT_SUFFIXES:
            continue
        try:
            source = Source(path, (ROOT / path).read_text())
        except UnicodeDecodeError:
            findings.append(f"{path}:1: not UTF-8; bytes for tests belong into corpus/ or golden/")
            continue
        findings += check(source)
        if source.is_code:
            code.append(path)
    findings += [f"{path}: not needed in LONG_FILES any more" for path in LONG_FILES
                 if (ROOT / path).read_text().count("\n") <= MAX_LINES]
    findings += check_format(code)
    for finding in findings:
        print(finding)
    print(f"tidy: {len(findings)} findings in {len(code)} files of code")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
