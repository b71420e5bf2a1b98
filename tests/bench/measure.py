"""Servers and load generators as processes: starting them on their CPUs, and what they cost."""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

LOAD_CPU, SERVER_CPU = 0, 1
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"
ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C"}  # of the servers: a program that loads a locale costs more than what starts it
TICK = 1 / os.sysconf("SC_CLK_TCK")


class Failure(Exception):
    """A server that does not start, or does not answer as it should."""


def spawn(command, *cpus, **more):
    return subprocess.Popen(command, preexec_fn=lambda: os.sched_setaffinity(0, cpus), **more)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def processes(pid):
    """A process and all those below it."""
    found = [pid]
    for parent in found:
        try:
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:  # it has just ended
            pass
    return found


def cpu_seconds(pid):
    """What a process and all below it have used: those that live to the nanosecond, those that ended (and were waited for) by ticks."""
    total = 0
    for process in processes(pid):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            total += time.clock_gettime((~process << 3) | 2)  # its CPU clock: clock_getcpuclockid(3)
            total += (int(fields[13]) + int(fields[14])) * TICK
        except OSError:
            pass
    return total


class Running:
    """A server that serves."""

    def __init__(self, command, port, cpus=(SERVER_CPU,)):
        self.port = port
        self.log = tempfile.TemporaryFile()
        self.process = spawn(command, *cpus, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=ENVIRONMENT)
        deadline = time.monotonic() + 10
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise Failure(f"{command[0]} does not serve: {self.said()}")
            time.sleep(0.02)
        for process in processes(self.process.pid):  # hitch chooses a CPU by itself
            for task in os.listdir(f"/proc/{process}/task"):
                os.sched_setaffinity(int(task), cpus)

    def answers(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def said(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace").strip()[-400:]

    def cpu(self):
        """Once it has come to rest."""
        before = cpu_seconds(self.process.pid)
        for _ in range(100):
            time.sleep(0.006)
            now = cpu_seconds(self.process.pid)
            if now - before < 20e-6:
                break
            before = now
        return now

    def memory(self):
        """Bytes of its own that it has in user space."""
        total = 0
        for process in processes(self.process.pid):
            try:
                text = Path(f"/proc/{process}/smaps_rollup").read_text()
            except OSError:
                continue
            total += sum(int(kib) * 1024 for kib in re.findall(r"^Private_(?:Clean|Dirty): +(\d+)", text, re.M))
        return total

    def system_calls(self, work):
        """How many it makes for one operation of work(); None without strace."""
        if not shutil.which("strace"):
            return None
        with tempfile.NamedTemporaryFile("r") as table:
            attach = [word for process in processes(self.process.pid) for word in ("-p", str(process))]
            strace = spawn(["strace", "-f", "-c", "-U", "calls,name", "-o", table.name, *attach], LOAD_CPU, stderr=subprocess.PIPE)
            for _ in attach[::2]:
                strace.stderr.readline()  # "attached"
            time.sleep(0.1)
            try:
                count = work()["count"]
            finally:
                strace.send_signal(signal.SIGINT)
                strace.communicate()
            total = re.search(r"^ *(\d+) total$", table.read(), re.M)
        return int(total[1]) / count if total else None

    def stop(self):
        if self.process.poll() is None:
            below = processes(self.process.pid)[1:]
            self.process.terminate()
            try:
                self.process.wait(2)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            for process in below:  # of a server that leaves its children behind
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    pass


class Load:
    """Clients that are connected; slice() lets them work."""

    def __init__(self, build, port, test, *options):
        self.process = spawn([str(build / "bench/load"), *map(str, options), str(port), test], LOAD_CPU, text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise Failure(self.process.communicate()[1].strip().removeprefix("load: "))
        return line

    def slice(self):
        try:
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        return {key: float(value) for key, value in (word.split("=") for word in self.answer().split())}

    def stop(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait()
