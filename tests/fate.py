#!/usr/bin/env python3
"""How a command ended, which a shell cannot tell: fate.py [--terminal] FILE COMMAND [ARGUMENT]...

FILE gets "pid N" at once, and "exited N" or "killed N" at the end. With --terminal the command leads a session with a terminal of
its own (its descriptors stay what they are), and the terminal goes away when FILE.hangup exists."""

import fcntl
import os
import pty
import sys
import termios
import time


def main():
    arguments = sys.argv[1:]
    terminal = arguments[0] == "--terminal"
    if terminal:
        arguments.pop(0)
    file, command = arguments[0], arguments[1:]
    master, slave = pty.openpty() if terminal else (-1, -1)
    pid = os.fork()
    if pid == 0:
        if terminal:
            os.close(master)
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            os.close(slave)
        os.execvp(command[0], command)
    if terminal:
        os.close(slave)
    for fd in range(3, 64):  # who waits for the end of a pipe waits for the command, not for us
        if fd != master:
            try:
                os.close(fd)
            except OSError:
                pass
    with open(file, "w") as f:
        print("pid", pid, file=f, flush=True)
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                break
            if terminal and os.path.exists(file + ".hangup"):
                os.close(master)
                terminal = False
            time.sleep(0.02)
        if os.WIFSIGNALED(status):
            print("killed", os.WTERMSIG(status), file=f)
        else:
            print("exited", os.WEXITSTATUS(status), file=f)


main()
