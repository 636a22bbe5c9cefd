"""What was measured: values by contender and round, their medians, ratios and targets."""

import json
import os
import platform
import statistics
from pathlib import Path

MIB = 1 << 20


class Figures:
    """Collects values; a row is one quantity, a cell the values of one contender."""

    def __init__(self):
        self.rows = {}    # (group, what) -> {"unit": ..., "values": {contender: [..]}}
        self.profiles = {}  # operation -> [(percent, function, where it lives)]
        self.notes = []

    def add(self, group, what, unit, contender, value):
        row = self.rows.setdefault((group, what), {"unit": unit, "values": {}})
        row["values"].setdefault(contender, []).append(value)

    def note(self, text):
        if text not in self.notes:
            self.notes.append(text)

    def median(self, group, what, contender):
        values = self.rows.get((group, what), {"values": {}})["values"].get(contender)
        return statistics.median(values) if values else None

    def ratio(self, group, what, one, other):
        """Median of `one` over median of `other`; None where either is missing."""
        first, second = self.median(group, what, one), self.median(group, what, other)
        return first / second if first is not None and second else None


class Target:
    """One promise: a value from the figures held against a bound."""

    def __init__(self, text, sign, bound, value, unit="x"):
        self.text, self.sign, self.bound, self.value, self.unit = text, sign, bound, value, unit

    @property
    def reached(self):
        if self.value is None:
            return None
        return self.value >= self.bound if self.sign == ">=" else self.value <= self.bound

    def line(self):
        state = {None: "not measured", True: "reached", False: "NOT REACHED"}[self.reached]
        value = "-" if self.value is None else f"{self.value:.3g}{self.unit}"
        return f"{state:12}  {self.text}: {value} (to reach {self.sign} {self.bound}{self.unit})"


def divide(one, other):
    return one / other if one is not None and other else None


def targets(figures):
    """What the project set out to reach, as ratios within one run."""
    median, ratio = figures.median, figures.ratio
    random = "upload random"
    return [
        Target("upload of new random data, rate over Glance's", ">=", 3,
               ratio("transfer", random, "quarry", "glance")),
        Target("upload of new random data, server CPU over Glance's", "<=", 0.7,
               ratio("transfer", f"{random}, server CPU", "quarry", "glance")),
        Target("upload of new random data, rate over SHA-256 of one core", ">=", 0.5,
               divide(median("transfer", random, "quarry"),
                      median("machine", "SHA-256", "one core"))),
        Target("upload of known data, rate over Glance's", ">=", 3.5,
               ratio("transfer", "upload known", "quarry", "glance")),
        Target("download of data stored raw, in memory, rate over nginx sendfile", ">=", 0.8,
               ratio("transfer", "download random again", "quarry", "nginx")),
        Target("download of a disk image, rate over zstd's of one core", ">=", 1,
               divide(median("transfer", "download disk", "quarry"),
                      median("machine", "zstd -d of the disk image", "one core"))),
        Target("show an image, requests/s over Glance's", ">=", 30,
               ratio("rates", "show image", "quarry", "glance")),
        Target("list ten images, requests/s over Glance's", ">=", 30,
               ratio("rates", "list of ten", "quarry", "glance")),
        Target("validate a token, requests/s over Keystone's", ">=", 50,
               ratio("rates", "validate token", "quarry", "glance")),
        Target("peak memory with 8 uploads at once", "<=", 512,
               median("memory", "peak of 8 uploads", "quarry"), " MiB"),
    ]


def number(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(figures):
    """Markdown: one table a group, medians, and Quarry over the first other contender."""
    lines = []
    for group in dict.fromkeys(group for group, _ in figures.rows):
        rows = {what: row for (g, what), row in figures.rows.items() if g == group}
        names = list(dict.fromkeys(n for row in rows.values() for n in row["values"]))
        names.sort(key=lambda n: n != "quarry")
        others = [n for n in names if n != "quarry"]
        ratios = [f"quarry / {n}" for n in others] if "quarry" in names else []
        lines += ["", f"### {group}", "", "| | unit | " + " | ".join(names + ratios) + " |",
                  "|---|---|" + "---:|" * len(names + ratios)]
        for what, row in rows.items():
            cells = [number(figures.median(group, what, n)) for n in names]
            cells += [number(figures.ratio(group, what, "quarry", n)) for n in others if ratios]
            lines.append(f"| {what} | {row['unit']} | " + " | ".join(cells) + " |")
    return "\n".join(lines[1:])


def profiles(figures):
    """Markdown: where the server's CPU time goes, a row for each operation."""
    if not figures.profiles:
        return []
    lines = ["", "### where Quarry's CPU time goes", "", "| | % in each function |", "|---|---|"]
    for what, rows in figures.profiles.items():
        cells = [f"{percent:.0f} `{function}`" + (f" ({where})" if where == "kernel" else "")
                 for percent, function, where in rows]
        lines.append(f"| {what} | {', '.join(cells)} |")
    return lines


def machine():
    model = next((line.split(":")[1].strip() for line in
                  Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), "unknown")
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release(),
            "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MIB,
            "load_before": round(os.getloadavg()[0], 2)}


def render(figures, about, goals):
    """The whole result as Markdown."""
    what = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in about.items())
    lines = [table(figures), "", "### targets", "", "```",
             *(target.line() for target in goals), "```", *profiles(figures), "", what, ""]
    lines += [f"- {note}" for note in figures.notes]
    return "\n".join(lines) + "\n"


def write(figures, about, directory, name, goals):
    """`directory`/`name`.md for people and `name`.json for programs."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.md").write_text("# Side by side\n\n" + render(figures, about, goals))
    groups = {}
    for (group, what), row in figures.rows.items():
        medians = {n: figures.median(group, what, n) for n in row["values"]}
        groups.setdefault(group, {})[what] = {**row, "medians": medians}
    (directory / f"{name}.json").write_text(json.dumps({
        "about": about, "figures": groups, "profiles": figures.profiles, "notes": figures.notes,
        "targets": [{"what": t.text, "sign": t.sign, "bound": t.bound, "value": t.value,
                     "reached": t.reached} for t in goals]}, indent=1) + "\n")
