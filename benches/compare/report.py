"""The table and the plot."""

import math
from html import escape
from statistics import median

from rows import ROWS

BEGIN, END = "<!-- comparison -->", "<!-- end of comparison -->"
COLOURS = ["#555555", "#c2410c", "#2563eb", "#15803d", "#9333ea", "#0e7490"]


def _of(data, row, column, field):
    found = [one for one in data["results"] if one["row"] == row.key and one["column"] == column]
    return {one["round"]: one[field] for one in found}


def _rows(data):
    measured = {one["row"] for one in data["results"]}
    return [row for row in ROWS if row.key in measured]


def ratio(data, row, column):
    """The median of the ratios of the rounds."""
    ours, raw = (_of(data, row, name, row.unit) for name in (column, "raw"))
    return median(ours[number] / raw[number] for number in raw)


def _rate(row, value):
    return f"{value:,.0f} MiB/s" if row.unit == "mib_s" else f"{value:,.0f}/s"


def table(data):
    """Ratios to the plain file, of which the rate stands in the first column."""
    others = [name for name in data["columns"] if name != "raw"]
    lines = ["| load | plain file | " + " | ".join(data["columns"][name] for name in others) + " |",
             "|---" * (len(others) + 2) + "|"]
    for row in _rows(data):
        raw = median(_of(data, row, "raw", row.unit).values())
        cells = []
        for name in others:
            text = f"{ratio(data, row, name):.2f}"
            cells.append(f"**{text}**" if name == "cowstore" else text)
        lines.append(f"| {row.title} | {_rate(row, raw)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _second(data, title, field):
    names = list(data["columns"])
    lines = [f"| {title} | " + " | ".join(data["columns"][name] for name in names) + " |",
             "|---" * (len(names) + 1) + "|"]
    for row in _rows(data):
        cells = (f"{median(_of(data, row, name, field).values()):,.1f}" for name in names)
        lines.append(f"| {row.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def document(data, ratios):
    about = data["about"]
    return f"""# Beside others

Written by `benches/compare/compare.py`; the figures of all rounds are in [comparison.json](comparison.json).
{about['rounds']} rounds of {about['runtime_s']} s, volumes of {about['size_mib']} MiB written in full, {about['cpus']} processors, Linux {about['kernel']},
{about['below']} below, {about['fio']}, {about['qemu']}; Cowstore at {about['commit']}.

A figure is the median over the rounds of the ratio to the plain file in the same round; the columns take turns within a round.
Cowstore and qcow2 are reached over NBD by a Unix socket, the others as files by the kernel's io_uring (loads with flushes: by
system calls). btrfs and XFS lie on a loop device with direct I/O over a file that was written in full. The plain file takes no snapshot: after one it is
measured as before. A snapshot of qcow2 is taken while its server is stopped; none is in the time. Sequential writes go once over a new volume, on the plain file
over the old one.

{ratios}

![ratios to the plain file](comparison.svg)

Processor time of the whole machine for an I/O, client included, in microseconds:

{_second(data, "load", "cpu_us")}

The slowest hundredth of the I/Os (p99), in microseconds, without the flush where one follows:

{_second(data, "load", "p99_us")}
"""


def plot(data):
    """A line for each load, a dot for each column, the ratio on a logarithmic axis."""
    names = [name for name in data["columns"] if name != "raw"]
    rows = _rows(data)
    points = {(row.key, name): ratio(data, row, name) for row in rows for name in names}
    low = min(0.1, *points.values()) if points else 0.1
    high = max(2.0, *points.values()) if points else 2.0
    left, top, step, width = 300, 60, 30, 900
    height = top + step * len(rows) + 40

    def x(value):
        share = math.log(max(value, 1e-6) / low) / math.log(high / low)
        return left + 15 + share * (width - left - 40)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
           f'<rect width="{width}" height="{height}" fill="#ffffff"/>']
    for at, name in enumerate(names):
        out.append(f'<circle cx="{20 + at * 175}" cy="20" r="6" fill="{COLOURS[at + 1]}"/>'
                   f'<text x="{32 + at * 175}" y="25">{escape(data["columns"][name])}</text>')
    bottom = top + step * len(rows)
    for mark in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50):
        if low <= mark <= high:
            weight = 'stroke="#333333" stroke-width="1.5"' if mark == 1 else 'stroke="#dddddd"'
            out.append(f'<line x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="{top - 10}" y2="{bottom}" {weight}/>'
                       f'<text x="{x(mark):.1f}" y="{bottom + 16}" text-anchor="middle">{mark:g}</text>')
    for at, row in enumerate(rows):
        y = top + step * at + 10
        # A row that only makes sense below the one before it names that too.
        title = row.title.replace("the same", rows[at - 1].title.split(",")[0] if at else "the same")
        out.append(f'<text x="{left}" y="{y + 4}" text-anchor="end">{escape(title)}</text>')
        for number, name in enumerate(names):
            value = points[row.key, name]
            radius = 7 if name == "cowstore" else 5
            out.append(f'<circle cx="{x(value):.1f}" cy="{y}" r="{radius}" fill="{COLOURS[number + 1]}" fill-opacity="0.85">'
                       f'<title>{escape(data["columns"][name])}: {value:.2f}</title></circle>')
    out.append(f'<text x="{(left + width) / 2}" y="{bottom + 34}" text-anchor="middle">'
               'ratio to the plain file (1: as fast), logarithmic</text></svg>')
    return "\n".join(out) + "\n"


def update_readme(path, ratios):
    """Puts the table and the plot between the marks."""
    with open(path) as file:
        text = file.read()
    if BEGIN not in text or END not in text:
        raise RuntimeError(f"{path} has no place for the table ({BEGIN} and {END})")
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    inner = (f"\n{ratios}\n\nRatios to a plain file on the same disk in the same run ([how](docs/comparison.md)).\n\n"
             "![ratios to the plain file](docs/comparison.svg)\n")
    with open(path, "w") as file:
        file.write(before + BEGIN + inner + END + after)
