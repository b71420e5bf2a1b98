#!/usr/bin/env bats
# A rolling restart of three harks behind HAProxy, as README has it: nobody fails, and every byte is right.
#
# HARK_FULL=1: 100,000 connections of echo and 20,000 of exec for each way to serve; else some thousands.
# shellcheck disable=SC2016,SC2034,SC2153,SC2154 # dollar signs of programs; variables of lib.bash

load ../lib

VISITS=6000 PROGRAMS=1500
[ "${HARK_FULL:-}" = 1 ] && VISITS=100000 PROGRAMS=20000

setup() {
    need haproxy haproxy
    [ "$(ulimit -Hn)" -ge 4000 ] || skip "too few descriptors: $(ulimit -Hn)"
}

# README's options for a machine, with the balancer's address on this one; the port comes later.
machine() {
    readme_block 'file: machine' | sed 's/^hark --port 9000 //; s/192\.0\.2\.10/127.0.0.1/'
}

# start_backend N PORT OPTION...: sets backend_pid[N], backend_port[N] and backend_log[N].
start_backend() {
    local n=$1 port=$2
    shift 2
    start_hark --bind 127.0.0.1 --port "$port" "$@"
    backend_pid[n]=$HARK_PID backend_port[n]=$PORT backend_log[n]=$LOG
}

# README's haproxy.cfg, with the addresses of this test, and a socket that tells what HAProxy thinks; sets FRONT. EDIT: of sed.
start_haproxy() { # EDIT
    serve # HAProxy takes no port 0: this one is free a moment later
    FRONT=$PORT
    stop_hark
    readme_block 'file: haproxy.cfg' | sed -e "s/bind :8888/bind 127.0.0.1:$FRONT/" -e "s/192\.0\.2\.11:9000/127.0.0.1:${backend_port[0]}/" \
        -e "s/192\.0\.2\.12:9000/127.0.0.1:${backend_port[1]}/" -e "s/192\.0\.2\.13:9000/127.0.0.1:${backend_port[2]}/" \
        -e "$1" >"$T/haproxy.cfg"
    refute grep -q '192\.0\.2\|:8888' "$T/haproxy.cfg"
    equal "$(grep -c '^    server ' "$T/haproxy.cfg")" 3 "the number of servers"
    printf 'global\n    stats socket %s\n' "$T/stats" >"$T/stats.cfg"
    LASTS=500 spawn haproxy haproxy -db -q -f "$T/haproxy.cfg" -f "$T/stats.cfg"
    eventually all_up
}

# As HAProxy sees it.
all_up() {
    [ "$(ask_haproxy 'show servers state' | awk '$2 == "service" && $6 == 2' | wc -l)" -eq 3 ]
}

ask_haproxy() {
    python -c 'import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(sys.argv[2].encode() + b"\n")
while piece := s.recv(65536):
    print(piece.decode(), end="")' "$T/stats" "$1"
}

# restart_all OPTION...: one after the other, each when the one before is up again
restart_all() {
    local n
    for n in 0 1 2; do
        kill -TERM "${backend_pid[n]}"
        wait_for_exit "${backend_pid[n]}"
        equal "$STATUS" 0 "the exit status of backend $n"
        start_backend "$n" "${backend_port[n]}" "$@"
        restarts=$((restarts + 1))
        eventually all_up
    done
}

# rolling COUNT NAMED EDIT OPTION...: visitors until COUNT have been served and every backend was restarted
rolling() {
    local count=$1 named=$2 edit=$3 restarts=0 n
    shift 3
    declare -ga backend_pid=() backend_port=() backend_log=()
    rm -f "$T/stop" "$T/visitors"
    for n in 0 1 2; do
        start_backend "$n" 0 "$@"
    done
    start_haproxy "$edit"
    LASTS=500 spawn visitors "$PYTHON" -SE "$TESTS/visitors.py" "$FRONT" 60 "$count" "$T/stop" $named
    restart_all "$@"
    until has_line "$T/visitors" '^(reached|served)'; do
        restart_all "$@"
    done
    touch "$T/stop"
    finish visitors
    match "$(tail -n 1 "$T/visitors")" '^served [0-9]+ failed 0$'
    echo "# note: $* $(tail -n 1 "$T/visitors"), $restarts restarts" >&3
    kill "${background[haproxy]}"
    for n in 0 1 2; do
        kill -TERM "${backend_pid[n]}"
        wait_for_exit "${backend_pid[n]}"
        equal "$STATUS" 0 "the exit status of backend $n"
    done
    refute grep -hE '^hark: (error|warning):|reason=proxy' "$T"/hark.*.log
}

# Visitors come from 127.1.0.0/16, and nobody else is let in: one whose address was lost would fail.
echo_to() { # OPTION...
    # shellcheck disable=SC2046
    rolling "$VISITS" '' '' $(machine) --allow 127.1.0.0/16 "$@"
}

@test "rolling restart: echo" {
    echo_to
}

@test "rolling restart: echo, two processes each" {
    echo_to --processes 2
}

@test "rolling restart: echo, two processes each with sockets of their own" {
    echo_to --processes 2 --reuse-port
}

@test "rolling restart: exec, whose program says who is there" {
    local options
    for options in '--exec-io socket' '--processes 2 --exec-io pipe' '--processes 2 --reuse-port'; do
        # shellcheck disable=SC2046,SC2086
        rolling "$PROGRAMS" named '' $(machine) $options --handler shell 'echo "$TCPREMOTEIP"; exec cat'
    done
}

@test "rolling restart: without PROXY headers" {
    local options
    for options in '' '--processes 2' '--processes 2 --reuse-port'; do
        # shellcheck disable=SC2086
        rolling "$VISITS" '' 's/ send-proxy-v2//' $options
    done
}
