"""What the comparison needs of the machine: commands, servers, cleaning up, fio, processor time."""

import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

# Debian keeps these off the path of ordinary users.
os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"

_undo = []


def on_exit(action):
    """Has `action` done at the end, however that comes; the last one first. Gives what does it at once."""
    _undo.append(action)

    def now():
        if action in _undo:
            _undo.remove(action)
            action()

    return now


def _clean():
    while _undo:
        action = _undo.pop()
        try:
            action()
        except Exception as error:  # the rest is to be cleaned up all the same
            print(f"compare: cleaning up: {error}", file=sys.stderr)


def install():
    """Ends in order on a signal too."""
    atexit.register(_clean)

    def ended(number, _frame):
        # Another one would stop the cleaning.
        for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(other, signal.SIG_IGN)
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ended)


def run(*words):
    """Runs a command; its output. A failure says what the command said."""
    words = [str(word) for word in words]
    # In a session of its own: an interrupt from the terminal is ours to pass on.
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()[-600:] or done.returncode}")
    return done.stdout


def missing(tools):
    return [tool for tool in tools if not shutil.which(tool)]


class Server:
    """A process that listens on a socket, until `stop`."""

    def __init__(self, sock, *words, env=None):
        if os.path.exists(sock):
            os.unlink(sock)
        self.log = open(sock + ".log", "w+")
        self.process = subprocess.Popen(
            [str(word) for word in words], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            start_new_session=True, env={**os.environ, **(env or {})})
        self.stop = on_exit(self._stop)
        self._wait(sock)

    def _wait(self, sock):
        end = time.monotonic() + 30
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(sock)
                return
            except OSError:
                time.sleep(0.02)
        self.log.seek(0)
        raise RuntimeError(f"{self.process.args[0]} does not listen: {self.log.read()[-600:]}")

    def _stop(self):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def busy_seconds():
    """Processor time of the whole machine, but what others on its host took."""
    words = open("/proc/stat").readline().split()[1:9]
    user, nice, system, _idle, _iowait, irq, softirq, _steal = (int(word) for word in words)
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def fio(target, size, options, runtime_s=None):
    """One load on what `target` names: {"path"} or {"uri"}. Rate, latency, and processor time of an I/O."""
    options = dict(options)
    syncs = options.pop("syncs", False)
    words = ["fio", "--name=compare", "--output-format=json", "--eta=never", "--direct=1", "--group_reporting",
             "--thread", f"--size={size}", "--randrepeat=0", "--norandommap", "--allow_file_create=0"]
    if "uri" in target:
        # fio's engine has one kind of flush.
        words += ["--ioengine=nbd", f"--uri={target['uri']}"] + (["--fsync=1"] if syncs else [])
    else:
        words += ["--ioengine=" + ("psync" if syncs else "io_uring"), f"--filename={target['path']}"]
        words += ["--fdatasync=1"] if syncs else []
    if runtime_s:
        words += ["--time_based", f"--runtime={runtime_s}s"]
    words += [f"--{key}={value}" for key, value in options.items()]
    before, start = busy_seconds(), time.monotonic()
    text = run(*words)
    busy, wall = busy_seconds() - before, time.monotonic() - start
    job = json.loads(text[text.index("{"):])["jobs"][0]
    if job["error"]:
        raise RuntimeError(f"fio: error {job['error']}")
    kinds = [job[kind] for kind in ("read", "write") if job[kind]["total_ios"]]
    ios = sum(kind["total_ios"] for kind in kinds)
    if not ios:
        raise RuntimeError("fio did nothing")
    return {
        "iops": sum(kind["iops"] for kind in kinds),
        "mib_s": sum(kind["bw_bytes"] for kind in kinds) / 2**20,
        "p99_us": max(kind["clat_ns"].get("percentile", {}).get("99.000000", 0) for kind in kinds) / 1000,
        "cpu_us": busy / ios * 1e6,
        "wall_s": wall,
    }
