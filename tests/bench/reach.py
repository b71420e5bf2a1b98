"""How hark's costs grow: instructions of a message with thousands of others connected, and CPU time of a connection with two processes."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from statistics import median

from measure import LOAD_CPU, SERVER_CPU, Failure, Load, Running, cpu_seconds, free_port, processes, spawn
from servers import SERVERS, Place
from works import CELLS, GROWTH_CROWDS, Cell

ROUNDS = 7
IDLE_A_PROCESS = 5000  # of the load generator


def hark_of(work):
    return next(server for server in SERVERS[work] if server.name == "hark")


def cell_of(work, name):
    return next(cell for cell in CELLS[work] if cell.name == name)


class Served:
    """hark, run in some way, with a target; close() ends both."""

    def __init__(self, work, build, directory, prefix=(), options=(), cpus=(SERVER_CPU,)):
        place = Place(free_port(), free_port(), directory, build)
        self.build, self.port = build, place.port
        self.target = spawn([str(build / "bench/limit"), str(place.target)], LOAD_CPU)
        program, *words = hark_of(work).command(place)
        try:
            self.running = Running([*prefix, program, *options, *words], place.port, cpus)
        except Failure:
            self.target.kill()
            self.target.wait()
            raise

    def load(self, cell):
        return Load(self.build, self.port, cell.test, *cell.options())

    def close(self):
        self.running.stop()
        self.target.kill()
        self.target.wait()


def dump(served, out, number):
    """Callgrind's count since the dump before."""
    subprocess.run(["callgrind_control", "-d", str(served.running.process.pid)], check=True, capture_output=True)
    return int(re.search(r"^totals: (\d+)", Path(f"{out}.{number}").read_text(), re.M)[1])


def instructions(work, build, directory, idle):
    """Of one message of 50 x 64 B, while so many others are idle."""
    cell = cell_of(work, "50 x 64 B")
    out = Path(tempfile.mkdtemp(dir=directory)) / "callgrind.out"
    served = Served(work, build, directory, ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={out}"])
    loads = []
    try:
        while idle > 0:
            some = min(idle, IDLE_A_PROCESS)
            loads.append(served.load(Cell("idle", "idle", 1, some)))
            idle -= some
        players = served.load(cell)
        loads.append(players)
        players.slice()
        dump(served, out, 1)
        count = players.slice()["count"]
        return dump(served, out, 2) / count
    finally:
        for load in loads:
            load.stop()
        served.close()


def growth(work, build, directory):
    """How many times the instructions of a message with none idle it takes with many; None without valgrind."""
    if not shutil.which("callgrind_control"):
        return None
    return instructions(work, build, directory, GROWTH_CROWDS[work]) / instructions(work, build, directory, 0)


def scale(work, build, directory):
    """CPU time of a connection with two processes to that with one, round by round; and the share of the busier process."""
    cell = cell_of(work, "connect/FIN")
    one = Served(work, build, directory, cpus=(LOAD_CPU, SERVER_CPU))
    two = Served(work, build, directory, options=("--processes", "2"), cpus=(LOAD_CPU, SERVER_CPU))
    loads = [(served, served.load(cell)) for served in (one, two)]
    workers = processes(two.running.process.pid)[1:]
    ratios, before = [], [cpu_seconds(pid) for pid in workers]
    for _ in range(ROUNDS):
        costs = []
        for served, load in loads:
            start = served.running.cpu()
            count = load.slice()["count"]
            costs.append((served.running.cpu() - start) / count)
        ratios.append(costs[1] / costs[0])
    used = [cpu_seconds(pid) - start for pid, start in zip(workers, before)]
    for served, load in loads:
        load.stop()
        served.close()
    return median(ratios), max(used) / sum(used)
