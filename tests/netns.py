#!/usr/bin/env python3
"""Sets up the network namespace that it runs in (unshare -n), and becomes a command: netns.py [--no-ipv6] [--ports LOW HIGH]
[--occupy ADDRESS LOW HIGH] COMMAND [ARGUMENT]...

--no-ipv6: no interface has IPv6. --ports: the numbers that port 0 stands for. --occupy: these are taken on that address, for as long as
the command runs."""

import fcntl
import os
import socket
import struct
import sys

SIOCSIFFLAGS = 0x8914
IFF_UP = 1


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


def main():
    arguments = sys.argv[1:]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    while arguments[0].startswith("--"):
        option = arguments.pop(0)
        if option == "--no-ipv6":
            for name in ("all", "lo"):
                write("/proc/sys/net/ipv6/conf/%s/disable_ipv6" % name, "1")
        elif option == "--ports":
            write("/proc/sys/net/ipv4/ip_local_port_range", "%s %s" % (arguments.pop(0), arguments.pop(0)))
        elif option == "--occupy":
            address, low, high = arguments.pop(0), int(arguments.pop(0)), int(arguments.pop(0))
            for port in range(low, high + 1):
                s = socket.socket()
                s.bind((address, port))
                s.listen()
                os.set_inheritable(s.detach(), True)
    os.execvp(arguments[0], arguments)


main()
