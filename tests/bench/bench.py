#!/usr/bin/env python3
"""bench.py --build DIR [WORK]: measures hark beside its peers, and writes the sections of RESULTS.md.

Every server has CPU 1 to itself while its clients on CPU 0 let it work, for a slice of a fixed number of operations. The servers take
turns, slice by slice, in an order that changes every round, so what the machine does beside is shared by all; a ratio is the median
of the rounds' ratios. Without WORK all is measured: echo, forward, tls, exec.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import reach
import report
from measure import LOAD_CPU, Failure, Load, Running, free_port, spawn
from servers import SERVERS, Place
from works import CELLS, CROWDS, GROWTH_CROWDS, Cell

ROUNDS, CROWD_ROUNDS = 17, 11
RARE_ROUNDS, RARE_PART = 3, 2  # of slow servers, and how much shorter their slices are
HERE = Path(__file__).parent


class Contender:
    """A server in the run, with a target of its own where it forwards."""

    def __init__(self, server, place):
        self.name = server.name
        self.server = server
        self.port = place.port
        self.target = spawn([str(place.build / "bench/limit"), str(place.target)], LOAD_CPU)
        self.running = None
        try:
            self.running = Running(server.command(place), place.port)
        except Failure:
            self.stop()
            raise

    def stop(self):
        if self.running:
            self.running.stop()
        self.target.kill()
        self.target.wait()


class Run:
    """The measurements of one work."""

    def __init__(self, work, build, directory):
        self.work = work
        self.build = build
        self.directory = directory
        self.cells = {}  # name: {server: [slice]}
        self.calls = {}  # server: system calls of one operation
        self.crowds = {}  # idle connections: {server: [slice]}
        self.memory = {}  # idle connections: {server: bytes}
        self.growth = self.scale = None  # of hark, where it is measured
        self.failures = []
        self.missing = [server for server in SERVERS[work] if not server.is_here()]
        self.contenders = []
        for server in SERVERS[work]:
            if server.is_here():
                place = Place(free_port(), free_port(), directory, build)
                self.attempt(server.name, "start", lambda: self.contenders.append(Contender(server, place)))

    def attempt(self, name, what, action):
        try:
            return action()
        except Failure as failure:
            self.failures.append((name, what, str(failure)))
            print(f"  {name}: {what}: {failure}", file=sys.stderr)
            return None

    def stop(self):
        for contender in self.contenders:
            contender.stop()

    def clients(self, contender, cell):
        options = cell.options(RARE_PART if contender.server.rare else 1)
        return self.attempt(contender.name, cell.name, lambda: Load(self.build, contender.port, cell.test, *options))

    def measure_slice(self, contender, load, cell):
        before = contender.running.cpu()
        outcome = self.attempt(contender.name, cell.name, load.slice)
        if outcome:
            outcome["cpu"] = (contender.running.cpu() - before) / outcome["count"] * cell.scale
        return outcome

    def take_turns(self, loads, cell, rounds):
        """{server: [slice]}, of each server as many as of any other that is not rare."""
        slices = {contender.name: [] for contender, _ in loads}
        pairs = [(contender, load) for contender, load in loads if load]
        for turn in range(rounds):
            for contender, load in pairs[turn % len(pairs):] + pairs[:turn % len(pairs)]:
                if contender.server.rare and turn >= RARE_ROUNDS:
                    continue
                outcome = self.measure_slice(contender, load, cell)
                if outcome:
                    slices[contender.name].append(outcome)
                else:
                    pairs.remove((contender, load))
        return {name: values for name, values in slices.items() if values}

    def measure_cell(self, cell):
        taking_part = [contender for contender in self.contenders if cell.test in (contender.server.only or (cell.test,))]
        loads = [(contender, self.clients(contender, cell)) for contender in taking_part]
        self.cells[cell.name] = self.take_turns(loads, cell, ROUNDS)
        for _, load in loads:
            if load:
                load.stop()

    def count_calls(self):
        cell = CELLS[self.work][0]
        few = Cell("system calls", cell.test, 100, cell.connections, cell.size, cell.more)
        for contender in self.contenders:
            if contender.server.only:
                continue
            load = self.clients(contender, few)
            if load:
                found = self.attempt(contender.name, few.name, lambda: contender.running.system_calls(load.slice))
                load.stop()
                if found:
                    self.calls[contender.name] = found

    def measure_crowds(self):
        """The cost of a message, and the memory, while more and more others are connected."""
        cell = next(cell for cell in CELLS[self.work] if cell.name == "50 x 64 B")
        loads = [(contender, self.clients(contender, cell)) for contender in self.contenders if contender.server.crowds]
        idle, before = [], 0
        for count in CROWDS[self.work]:
            if count > before:
                more = Cell(f"{count} idle", "idle", 1, count - before, more=cell.more)
                idle += [self.clients(contender, more) for contender, load in loads if load]
            before = count
            self.crowds[count] = self.take_turns(loads, cell, CROWD_ROUNDS)
            self.memory[count] = {contender.name: contender.running.memory() for contender, load in loads if load}
        for load in [load for _, load in loads] + idle:
            if load:
                load.stop()

    def measure(self):
        for cell in CELLS[self.work]:
            print(f"{self.work}: {cell.name}", file=sys.stderr)
            self.measure_cell(cell)
        print(f"{self.work}: system calls", file=sys.stderr)
        self.count_calls()
        print(f"{self.work}: with idle connections", file=sys.stderr)
        self.measure_crowds()
        if self.work in GROWTH_CROWDS:
            print(f"{self.work}: growth and scale", file=sys.stderr)
            self.growth = self.attempt("hark", "growth", lambda: reach.growth(self.work, self.build, self.directory))
            self.scale = self.attempt("hark", "scale", lambda: reach.scale(self.work, self.build, self.directory))


def make_certificate(directory):
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-keyout", key, "-out", certificate], check=True, capture_output=True)
    (directory / "both.pem").write_text(key.read_text() + certificate.read_text())
    directory.chmod(0o755)


def main():
    parser = argparse.ArgumentParser(description="Measures hark beside its peers.")
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("work", nargs="?", choices=list(CELLS))
    arguments = parser.parse_args()
    hark_failed = False
    for work in [arguments.work] if arguments.work else CELLS:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as directory:
            make_certificate(Path(directory))
            run = Run(work, arguments.build.resolve(), Path(directory))
            try:
                run.measure()
            finally:
                run.stop()
        run.seconds = time.monotonic() - began
        report.write(run, HERE)
        hark_failed |= any(name.startswith("hark") for name, _, _ in run.failures)
    return 1 if hark_failed else 0


if __name__ == "__main__":
    sys.exit(main())
