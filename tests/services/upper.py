#!/usr/bin/env python3
"""upper.py - sends each line back in capitals: hark --port 4001 --warm 4 --handler exec tests/services/upper.py

Python takes a while to start, which --warm takes out of the client's wait. Standard output is no terminal, so Python would keep
the answers until there are many of them: each one is flushed."""

import sys


def main():
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(line.decode("utf-8", "surrogateescape").upper().encode("utf-8", "surrogateescape"))
        sys.stdout.buffer.flush()


try:
    main()
except BrokenPipeError:  # the client is gone
    sys.stderr.close()
