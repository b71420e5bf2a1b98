"""RESULTS.md: a section for each work, made anew when that work has been measured; what people wrote under other headings stays."""

import os
import subprocess
from statistics import median, quantiles

import plot
from works import CELLS, GOALS, GROWTH_CROWDS, GROWTH_GOAL, MEMORY_GOALS, SCALE_GOAL, SHARE_GOAL

HEAD = """# Benchmark

Written by `make bench`; `make bench W=forward` measures one part (echo, forward, tls or exec) and replaces its section.
[bench.py](bench.py) says how it measures, [servers.py](servers.py) how each server is started, [works.py](works.py) what the
clients do and how good hark has to be.

CPU time is that of the server with all its children, for one message and its answer, for one GB sent and echoed, or for one connection.
`a : b` is the median of the ratios of slices that were run beside each other, with its quartiles; below 1, hark needs less. Latency is
what the clients saw. Every byte that came back was compared.
"""


def table(head, rows):
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def short(number):
    return f"{number:.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def median_of(slices, key):
    return median(values[key] for values in slices)


def latency(slices, *parts):
    return " / ".join(short(median_of(slices, part) * 1e6) for part in parts)


def ratios(slices, subject, other):
    """Of one server's cost to another's, round by round."""
    pairs = zip(slices.get(subject, ()), slices.get(other, ()))
    return [mine["cpu"] / its["cpu"] for mine, its in pairs if its["cpu"] > 0]


def with_quartiles(values):
    if len(values) < 3:
        return f"{median(values):.3f}"
    low, _, high = quantiles(values, n=4)
    return f"{median(values):.3f} ({low:.2f}-{high:.2f})"


def best_peer(slices, subject, peers):
    """The one that is hardest to beat, and the ratios to it."""
    found = {peer: ratios(slices, subject, peer) for peer in peers}
    found = {peer: values for peer, values in found.items() if values}
    if not found:
        return None, []
    peer = max(found, key=lambda name: median(found[name]))
    return peer, found[peer]


def growth(run):
    """{server: KiB of one connection more}, from 1000 to 4000 of them where there are so many."""
    counts = [count for count in run.memory if 0 < count <= 4000]
    few, many = (counts[0], counts[-1]) if len(counts) > 1 else (0, counts[-1])
    return {name: (most - run.memory[few][name]) / (many - few) / 1024 for name, most in run.memory[many].items()}


# ---- the tables ----


def goals(run):
    rows = []
    for goal in GOALS[run.work]:
        peer, values = best_peer(run.cells[goal.cell], goal.subject, goal.peers)
        if values:
            met = "yes" if median(values) <= goal.most else "**no**"
            rows.append([f"{goal.cell}, {goal.subject} : {peer}", f"{goal.most:.2f}", with_quartiles(values), met])
    memory, most = growth(run).get("hark"), MEMORY_GOALS.get(run.work)
    if memory is not None and most is not None:
        rows.append(["an idle connection, user space", f"{most} KiB", f"{memory:.2f} KiB", "yes" if memory <= most else "**no**"])
    rows += reach_goals(run)
    return table(["goal", "at most", "measured", "met"], rows) if rows else ""


def reach_goals(run):
    found = []
    if run.growth:
        found.append((f"50 x 64 B, instructions with {GROWTH_CROWDS[run.work]} idle : with none", GROWTH_GOAL, run.growth))
    if run.scale:
        ratio, share = run.scale
        found += [("connect/FIN, 2 processes : 1", SCALE_GOAL, ratio), ("connect/FIN, share of the busier of 2", SHARE_GOAL, share)]
    return [[name, f"{most:.2f}", f"{value:.3f}", "yes" if value <= most else "**no**"] for name, most, value in found]


def by_server(run, head, columns, value):
    """A table with a row a server and a column a cell; rows without any value are left out."""
    rows = []
    for contender in run.contenders:
        row = [value(cell, run.cells[cell.name], contender.name) for cell in CELLS[run.work]]
        if any(row):
            rows.append([contender.name, *(text or "-" for text in row)])
    return table([head, *columns], rows)


def costs(run):
    def cost(_, slices, name):
        return name in slices and short(median_of(slices[name], "cpu"))

    return by_server(run, "CPU time", [f"{cell.name}, {cell.unit}" for cell in CELLS[run.work]], cost)


def comparisons(run):
    def ratio(_, slices, name):
        values = [] if name == "hark" else ratios(slices, "hark", name)
        return values and f"{median(values):.2f}"

    peers = [contender.name for contender in run.contenders if not contender.name.startswith(("hark", "bare"))]
    best = [best_peer(run.cells[cell.name], "hark", peers) for cell in CELLS[run.work]]
    row = ["the best peer", *(f"{median(values):.2f}, {peer}" if values else "-" for peer, values in best)]
    return by_server(run, "hark :", [cell.name for cell in CELLS[run.work]], ratio) + table_row(row)


def table_row(row):
    return "| " + " | ".join(row) + " |\n"


def paces(run):
    def pace(cell, slices, name):
        if name not in slices:
            return None
        if cell.test == "bulk":
            return f"{median(values['count'] / values['seconds'] for values in slices[name]) / 1e9:.2f} GB/s"
        return latency(slices[name], "p50", "p99")

    return by_server(run, "latency, median / p99 in us", [cell.name for cell in CELLS[run.work]], pace)


def crowds(run):
    most, memory = max(run.crowds), growth(run)
    head = ["50 x 64 B beside idle connections", *(f"CPU, us, {count} idle" for count in run.crowds),
            f"p50 / p99 / p99.9, {most} idle", "KiB for one more"]
    rows = []
    for name, slices in run.crowds[most].items():
        cpu = [short(median_of(run.crowds[count][name], "cpu")) for count in run.crowds]
        rows.append([name, *cpu, latency(slices, "p50", "p99", "p99.9"), f"{memory[name]:.2f}"])
    return table(head, rows)


def system_calls(run):
    if not run.calls:
        return "System calls were not counted: no strace.\n"
    head = ["system calls", "a connection" if run.work == "exec" else "a round trip"]
    return table(head, [[name, f"{count:.1f}"] for name, count in run.calls.items()])


def failures(run):
    found = {}
    for name, cell, why in run.failures:
        found.setdefault((name, why), []).append(cell)
    return [f"{name} failed ({'; '.join(cells)}): {why}\n" for (name, why), cells in found.items()]


# ---- the page ----


def circumstances(run):
    packages = " ".join(contender.server.packages for contender in run.contenders).split()
    query = ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *sorted(set(packages))]
    found = subprocess.run(query, text=True, capture_output=True, check=False).stdout.splitlines()
    text = f"Linux {os.uname().release}, {os.cpu_count()} CPUs; {', '.join(found)}. It took {run.seconds:.0f} s.\n"
    if run.missing:
        names = ", ".join(server.name for server in run.missing)
        install = " ".join(sorted({package for server in run.missing for package in server.packages.split()}))
        text += f"\nNot measured, because not there: {names} (`apt-get install {install}`).\n"
    return text


def section(run, plot_name):
    parts = [f"## {run.work}\n", circumstances(run), goals(run), costs(run), comparisons(run), paces(run), crowds(run),
             f"![CPU time against idle connections]({plot_name})\n", system_calls(run), *failures(run)]
    return "\n".join(part for part in parts if part)


def chart(run):
    series = {name: [(count, median_of(slices[name], "cpu")) for count, slices in run.crowds.items() if name in slices]
              for name in run.crowds[max(run.crowds)]}
    return plot.lines(f"{run.work}, 50 x 64 B: CPU time of a message", "idle connections", "us", series)


def write(run, directory):
    plot_name = f"{run.work}.svg"
    (directory / plot_name).write_text(chart(run))
    path = directory / "RESULTS.md"
    sections = path.read_text().split("\n## ")[1:] if path.exists() else []
    kept = {text.split("\n", 1)[0]: "## " + text.rstrip("\n") + "\n" for text in sections}
    kept[run.work] = section(run, plot_name)
    order = [work for work in CELLS if work in kept] + [name for name in kept if name not in CELLS]
    path.write_text("\n".join([HEAD, *(kept[name] for name in order)]))
    print(kept[run.work])
