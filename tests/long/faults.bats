#!/usr/bin/env bats
# Each system call that hark makes fails once, in one life after the other: see faults.py.
#
# shellcheck disable=SC2034,SC2153,SC2154 # variables of lib.bash

load ../lib

setup() {
    need strace strace
    permitted strace -o /dev/null true
    without_sanitizers
}

# each_fails OPTION...
each_fails() {
    run python "$TESTS/long/faults.py" "$HARK" "$T" --bind 127.0.0.1 --port 0 "$@"
    echo "# note: ${output##*$'\n'}" >&3
    [ "$status" -eq 0 ] || fail "$output"
}

# Longer than others take.
python() {
    timeout 380 "$PYTHON" -SE "$@"
}

@test "faults: whatever call fails, echo says so or goes on" {
    each_fails -v --idle-timeout 1m --max-connections 10
}

@test "faults: whatever call fails, exec says so or goes on" {
    each_fails --handler exec cat
}

@test "faults: whatever call fails, exec through pipes says so or goes on" {
    each_fails --exec-io pipe --handler exec cat
}

@test "faults: whatever call fails, forward says so or goes on" {
    serve_target
    each_fails --handler forward "127.0.0.1:$PORT"
}

@test "faults: whatever call fails, TLS says so or goes on" {
    each_fails --ssl-self-signed --drain-timeout 1s
}
