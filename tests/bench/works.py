"""What is measured, and how good it has to be."""

from dataclasses import dataclass

MIB = 1 << 20


@dataclass
class Cell:
    """A column of the tables: what the clients do in one slice."""

    name: str
    test: str
    count: int  # of messages, bytes or connections in a slice
    connections: int
    size: int = 64
    more: tuple = ()

    def options(self, part=1):
        return ("--connections", self.connections, "--size", self.size, "--count", max(1, self.count // part), *self.more)

    @property
    def unit(self):
        return "ms/GB" if self.test == "bulk" else "us"

    @property
    def scale(self):
        """From seconds for one to the unit."""
        return 1e12 if self.test == "bulk" else 1e6


@dataclass
class Goal:
    cell: str
    most: float
    peers: tuple  # the best of these
    subject: str = "hark"


def messages(count, more=()):
    return [
        Cell("1 x 64 B", "pingpong", count // 3, 1, 64, more),
        Cell("50 x 64 B", "pingpong", count, 50, 64, more),
        Cell("50 x 4 KiB", "pingpong", count * 2 // 3, 50, 4096, more),
    ]


def bulk(mib, more=()):
    return [Cell(name, "bulk", mib * MIB, n, 64, more) for name, n in (("1 stream", 1), ("8 streams", 8))]


def ending(name, end, count, connections=8, more=()):
    return Cell(name, "connect", count, connections, 64, ("--end", end, *more))


PLAIN = [*messages(3000), *bulk(32), ending("connect/FIN", "fin", 400), ending("connect/RST", "rst", 400)]
TLS = ("--tls",)

CELLS = {
    "echo": PLAIN,
    "forward": PLAIN,
    "tls": [
        *messages(1500, TLS),
        *bulk(16, TLS),
        ending("full/FIN", "fin", 90, more=TLS),
        ending("full/RST", "rst", 50, more=TLS),
        ending("resumed/FIN", "fin", 90, more=("--tls", "--resume")),
    ],
    "exec": [
        ending("connect x 1", "eof", 250, 1),
        ending("connect x 8", "eof", 250, 8),
        Cell("50 x 64 B", "pingpong", 1500, 50),
        *bulk(32)[:1],
    ],
}

BARE, PROXIES, TLS_PROXIES = ("bare epoll",), ("nginx", "haproxy"), ("nginx", "haproxy", "hitch", "stunnel")

GOALS = {
    "echo": [
        Goal("50 x 64 B", 1.10, BARE),
        Goal("1 stream", 1.00, BARE),
        Goal("8 streams", 1.00, BARE),
        Goal("connect/FIN", 1.10, BARE),
    ],
    "forward": [
        Goal("50 x 64 B", 0.96, PROXIES),
        Goal("50 x 4 KiB", 0.96, PROXIES),
        Goal("1 stream", 0.70, PROXIES),
        Goal("8 streams", 0.70, PROXIES),
        Goal("1 stream", 0.95, ("socket-proxyd",)),
        Goal("8 streams", 0.95, ("socket-proxyd",)),
        Goal("connect/FIN", 1.00, PROXIES),
        Goal("connect/FIN", 0.95, ("haproxy",)),
        Goal("connect/RST", 0.95, ("haproxy",)),
    ],
    "tls": [
        Goal("50 x 64 B", 0.95, TLS_PROXIES),
        Goal("1 stream", 0.90, TLS_PROXIES),
        Goal("8 streams", 0.90, TLS_PROXIES),
        Goal("full/FIN", 0.90, TLS_PROXIES),
        Goal("resumed/FIN", 0.95, TLS_PROXIES),
    ],
    "exec": [
        Goal("connect x 1", 0.95, ("tcpserver",)),
        Goal("connect x 8", 0.95, ("tcpserver",)),
        Goal("connect x 1", 0.92, ("tcpserver",), "hark --stderr null"),
        Goal("connect x 8", 0.92, ("tcpserver",), "hark --stderr null"),
    ],
}

# Idle connections that are there while 50 others play ping-pong, and the KiB that one may cost.
CROWDS = {"echo": (0, 1000, 4000, 9000), "forward": (0, 1000, 4000, 9000), "tls": (0, 1000, 4000), "exec": (0, 1000)}
MEMORY_GOALS = {"echo": 0.5, "forward": 1.0, "tls": 15.5}
# hark's instructions of a message, with so many idle to none; and CPU time of a connection with two processes to that with one.
GROWTH_CROWDS = {"echo": 10000, "forward": 9000}
GROWTH_GOAL, SCALE_GOAL, SHARE_GOAL = 1.05, 1.25, 0.65
