#!/usr/bin/env python3
"""Cowstore side by side with a plain file, qcow2, btrfs and XFS on this machine, with fio.

  benches/compare/compare.py                 all of it: about an hour; writes docs/comparison.{md,svg,json}
  benches/compare/compare.py --rows randwrite,sync-qd1 --rounds 1 --runtime 2 --out DIR

In each round a row is measured on one column after the other, in another order each time, and its ratios are those to the
plain file of the same round. Needs root (loop devices, mounts), fio with its nbd engine, and the programs of the columns.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys

# Nothing is left in the tree.
sys.dont_write_bytecode = True

import machine
import report
import targets
from rows import BY_KEY, ORDER, ROWS

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GIB = 1 << 30
MOST_BYTES = 30 * GIB


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ",".join(row.key for row in ROWS)
    parser.add_argument("--rows", default="all", help=f"some of {names}")
    parser.add_argument("--columns", default=targets.DEFAULT, help=f"some of {','.join(targets.ALL)}; raw always is one")
    parser.add_argument("--dir", default=".", help="where the volumes are made, on the file system that is measured")
    parser.add_argument("--out", default=os.path.join(ROOT, "docs"), help="where the table, the plot and the JSON go")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runtime", type=int, default=10, metavar="S", help="seconds of each measurement")
    parser.add_argument("--size-mib", type=int, default=2048, help="size of the volumes")
    parser.add_argument("--cowctl", default=os.path.join(ROOT, "target/release/cowctl"),
                        help="cargo build --release -p cowctl")
    args = parser.parse_args()
    args.rows = list(ORDER) if args.rows == "all" else args.rows.split(",")
    args.columns = ["raw"] + [name for name in args.columns.split(",") if name != "raw"]
    for given, known, what in ((args.rows, BY_KEY, "row"), (args.columns, targets.ALL, "column")):
        for name in given:
            if name not in known:
                parser.error(f"no such {what}: {name}")
    if args.rounds < 1 or args.runtime < 1 or args.size_mib < 256:
        parser.error("at least one round, one second and 256 MiB")
    args.rows.sort(key=ORDER.index)
    return args


def refuse(args):
    """Says all that is missing, before anything is made."""
    kinds = [targets.ALL[name] for name in args.columns]
    problems = []
    tools = sorted(set(machine.missing(["fio", "sync"] + [tool for kind in kinds for tool in kind.tools])))
    if tools:
        problems.append(f"not installed: {', '.join(tools)}")
    elif "nbd" not in machine.run("fio", "--enghelp").split():
        problems.append("this fio has no engine nbd")
    if any(kind.root for kind in kinds) and os.geteuid() != 0:
        problems.append("btrfs and xfs need root; --columns leaves them out")
    if "cowstore" in args.columns and not os.access(args.cowctl, os.X_OK):
        problems.append(f"no {args.cowctl}: cargo build --release -p cowctl")
    need = sum(kind.needed(args.size_mib << 20) for kind in kinds)
    if need > MOST_BYTES:
        problems.append(f"{need / GIB:.1f} GiB of disk would be used, at most {MOST_BYTES >> 30} are: --size-mib")
    try:
        free = shutil.disk_usage(args.dir).free
        if free < need + GIB:
            problems.append(f"{args.dir} has {free / GIB:.1f} GiB free, {need / GIB + 1:.1f} are needed")
    except OSError as error:
        problems.append(f"--dir: {error}")
    if not os.path.isdir(args.out):
        problems.append(f"--out: no directory {args.out}")
    if problems:
        sys.exit("compare: " + "\ncompare: ".join(problems))


def prepare(args):
    """Every column's volume, written in full."""
    base = targets.scratch(args.dir)
    # What the server is told by is not to be that of some other pool.
    targets.Cowstore.cowctl = os.path.abspath(args.cowctl)
    columns = {}
    for name in args.columns:
        print(f"compare: making {name}", file=sys.stderr)
        column = targets.ALL[name](base, args.size_mib << 20)
        column.start()
        machine.fio(column.target(), column.size, {"rw": "write", "bs": "1m", "iodepth": 16, "end_fsync": 1})
        columns[name] = column
    return columns


def measure(row, column, runtime_s):
    """One load on one column. What is taken and made for it is gone afterwards."""
    runtime_s = None if row.fresh else runtime_s
    try:
        target = column.fresh() if row.fresh else column.target()
        if row.snapshot:
            column.snapshot()
        os.sync()
        return machine.fio(target, column.size, row.options, runtime_s)
    finally:
        if row.fresh:
            column.drop_fresh()
        if row.snapshot:
            column.forget()


def compare(args, columns):
    results = []
    for key in args.rows:
        row = BY_KEY[key]
        for number in range(args.rounds):
            names = list(columns)
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                found = measure(row, columns[name], args.runtime)
                results.append({"row": key, "column": name, "round": number, **found})
                print(f"compare: {key} {number + 1}/{args.rounds} {name}: {found[row.unit]:.0f}, "
                      f"{found['cpu_us']:.1f} us of CPU", file=sys.stderr)
    return results


def about(args):
    """The machine, and the versions of all that takes part."""
    def first(*words):
        try:
            return machine.run(*words).splitlines()[0]
        except (OSError, RuntimeError, IndexError):
            return "?"

    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return {
        "cpus": os.cpu_count(), "kernel": platform.release(), "fio": first("fio", "--version"),
        "qemu": first("qemu-nbd", "--version"), "below": first("findmnt", "-no", "FSTYPE", "--target", args.dir),
        "commit": commit.stdout.strip() or "?", "rounds": args.rounds, "runtime_s": args.runtime,
        "size_mib": args.size_mib,
    }


def main():
    args = arguments()
    refuse(args)
    machine.install()
    columns = prepare(args)
    titles = {name: column.title for name, column in columns.items()}
    data = {"about": about(args), "columns": titles, "results": compare(args, columns)}
    path = os.path.join(args.out, "comparison")
    table = report.table(data)
    for name, text in ((".json", json.dumps(data, indent=1) + "\n"), (".md", report.document(data, table)),
                       (".svg", report.plot(data))):
        with open(path + name, "w") as file:
            file.write(text)
    if os.path.abspath(args.out) == os.path.join(ROOT, "docs"):
        report.update_readme(os.path.join(ROOT, "README.md"), table)
    print(table)


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, OSError) as error:
        sys.exit(f"compare: {error}")
