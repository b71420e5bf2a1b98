#!/usr/bin/env bats
# --processes: workers and their supervisor, in every way of dying; hark as pid 1.
#
# shellcheck disable=SC2016,SC2030,SC2031,SC2034,SC2153,SC2154 # dollar signs of others; variables of lib.bash

load lib

# Sets WORKERS, in the order of their pids.
find_workers() { # [COUNT]
    eventually has_workers "${1:-2}"
    mapfile -t WORKERS < <(pgrep -P "$HARK_PID" | sort -n)
}

has_workers() { # COUNT
    [ "$(pgrep -P "$HARK_PID" | wc -l)" -eq "$1" ]
}

# All but PID.
has_successor() { # OLD PID
    local workers
    mapfile -t workers < <(pgrep -P "$HARK_PID")
    [ ${#workers[@]} -eq 2 ] && [[ " ${workers[*]} " != *" $1 "* ]]
}

hold_one() { # NAME
    spawn_client "$1" "$PORT" echo:1000 say:held hold:"$T/go" echo:1000 end same
    wait_for_line "$1" held
}

@test "processes: both serve" {
    serve -v --processes 2
    grep -q "processes=2$" "$LOG"
    find_workers
    kill -STOP "${WORKERS[0]}"
    crowd "$PORT" serial 5
    kill -CONT "${WORKERS[0]}"
    kill -STOP "${WORKERS[1]}"
    crowd "$PORT" serial 5
    kill -CONT "${WORKERS[1]}"
    stop_hark
    eventually none_marked hark
}

@test "processes: ids are unique over all of them" {
    serve -v --processes 2 --reuse-port --handler exec sh -c 'echo "$PPID" >&2; cat'
    crowd "$PORT" serial 24
    wait_for_log '^hark: close ' 24
    equal "$(sed -n 's/^hark: stderr .* text=//p' "$LOG" | sort -u | wc -l)" 2 "the number of processes that served"
    equal "$(sed -n 's/^hark: accept id=\([0-9]*\) .*/\1/p' "$LOG" | sort -n | xargs)" "$(seq 24 | xargs)" "the ids"
    stop_hark
}

@test "processes: 0 is one a CPU that hark may use" {
    need taskset util-linux
    serve --processes 0
    grep -q " processes=$(nproc)\$" "$LOG"
    WRAPPER=(taskset -c "$(taskset -pc $$ | sed 's/.*: \([0-9]*\).*/\1/')")
    serve --processes 0
    grep -q " processes=1$" "$LOG"
}

@test "processes: one that is killed is started again, and the others' connections live" {
    serve -v --processes 2 --reuse-port
    hold_one peer
    find_workers
    # who holds it?
    local victim=${WORKERS[0]} pid
    for pid in "${WORKERS[@]}"; do
        [ "$(descriptors "$pid")" -gt "$(descriptors "${WORKERS[0]}")" ] || victim=$pid
    done
    for pid in "${WORKERS[@]}"; do
        [ "$(descriptors "$pid")" -lt "$(descriptors "$victim")" ] && victim=$pid
    done
    kill -KILL "$victim"
    wait_for_log '^hark: restart process=[01] signal=9 delay=0\.100$'
    eventually has_successor "$victim"
    crowd "$PORT" serial 10
    touch "$T/go"
    finish peer
    has_line "$T/peer" '^same 2000 eof$'
    stop_hark
}

@test "processes: one that is killed under load costs only its own connections" {
    serve -v --processes 2 --reuse-port
    spawn_crowd crowd "$PORT" burst 1 20 "$T/go"
    spawn load bash -c 'n=0; while [ ! -e "$1/go" ]; do "$2" -SE "$3/crowd.py" "$4" parallel 20 20000 >/dev/null 2>&1 && n=$((n + 1)) && echo "$n"; done' \
        load "$T" "$PYTHON" "$TESTS" "$PORT"
    wait_for_line load '^2$'
    find_workers
    kill -KILL "${WORKERS[1]}"
    wait_for_log '^hark: restart '
    eventually has_successor "${WORKERS[1]}"
    local done_before
    done_before=$(tail -n 1 "$T/load")
    wait_for_line load "^$((done_before + 3))\$"
    touch "$T/go"
    finish load
    run crowd "$PORT" parallel 50 50000
    equal "$output" "done 50"
    stop_hark
}

@test "processes: with --reuse-port, a worker's successor gets its queue" {
    serve -v --processes 2 --reuse-port
    find_workers
    kill -STOP "${WORKERS[0]}"
    local i
    for i in $(seq 12); do
        spawn_client "peer$i" "$PORT" say:connected echo:1000 end same
    done
    for i in $(seq 12); do
        wait_for_line "peer$i" connected
    done
    kill -KILL "${WORKERS[0]}"
    for i in $(seq 12); do
        finish "peer$i"
        has_line "$T/peer$i" '^same 1000 eof$'
    done
    stop_hark
}

@test "processes: with --reuse-port, port 0 is one port, and all sockets are bound before anyone serves" {
    serve --processes 3 --reuse-port
    equal "${#READY[@]}" 1
    equal "$(grep -c '^hark: listen ' "$LOG")" 1
    find_workers 3
    crowd "$PORT" serial 20
    stop_hark
    refute client "$PORT" end
}

@test "processes: kill -9 of the parent leaves no orphan" {
    serve --processes 2
    hold_one peer
    find_workers
    kill -KILL "$HARK_PID"
    eventually is_gone "${WORKERS[0]}"
    eventually is_gone "${WORKERS[1]}"
    run client "$PORT" end
    equal "$output" refused
    touch "$T/go"
}

@test "processes: kill -9 of the parent ends the children of its workers too" {
    serve --processes 2 --handler exec sleep 1000
    spawn_client peer "$PORT" say:connected count
    wait_for_line peer connected
    eventually has_marked sleep 1
    kill -KILL "$HARK_PID"
    eventually none_marked hark
    eventually none_marked sleep
}

has_marked() { # NAME COUNT
    [ "$(count_marked "$1")" -eq "$2" ]
}

@test "processes: kill -9 of a single process leaves no children" {
    serve --handler exec sleep 1000
    spawn_client peer "$PORT" say:connected count
    eventually has_marked sleep 1
    kill -KILL "$HARK_PID"
    eventually none_marked sleep
}

@test "processes: kill -9 of a worker ends its children" {
    serve --processes 2 --handler exec sh -c 'echo "$PPID"; exec sleep 1000'
    spawn_client peer "$PORT" line count
    wait_for_line peer '^[0-9]+$'
    kill -KILL "$(head -n 1 "$T/peer")"
    eventually none_marked sleep
    stop_hark
}

@test "processes: TERM leaves nobody, and waits for the connections of all" {
    serve --processes 2 --handler exec cat
    hold_one peer
    kill -TERM "$HARK_PID"
    wait_for_log '^hark: stop '
    run client "$PORT" count
    equal "$output" refused
    touch "$T/go"
    finish peer
    has_line "$T/peer" '^same 2000 eof$'
    wait_for_exit
    equal "$STATUS" 0
    eventually none_marked hark
    eventually none_marked cat
}

# They share their listeners, or have a queue that nobody else would serve.
ends_with_one_of_them() { # WHERE OPTION...
    local where=$1
    shift
    start_hark --processes 2 "$@"
    [ "$where" ] || where=$PORT
    spawn_client "peer.$#" "$where" echo:1000 say:held hold:"$T/go.$#" echo:1000 end same
    wait_for_line "peer.$#" held
    kill -TERM "$(pgrep -P "$HARK_PID" | head -n 1)"
    wait_for_log '^hark: stop processes=2'
    eventually is_refused "$where"
    touch "$T/go.$#"
    finish "peer.$#"
    wait_for_exit
    equal "$STATUS" 0
}

is_refused() { # or its path is gone
    local answer
    answer=$(client --timeout 3 "$1" count) || true
    [[ "$answer" == refused || "$answer" == *'No such file'* ]]
}

@test "processes: TERM to one of them ends all in order, and no client is left hanging" {
    ends_with_one_of_them '' --bind 127.0.0.1 --port 0
    ends_with_one_of_them '' --bind 127.0.0.1 --port 0 --reuse-port
    ends_with_one_of_them "unix:$T/socket" --unix "$T/socket"
}

@test "processes: after --max-restarts hark gives up, with 1, and leaves nobody" {
    serve --processes 2 --max-restarts 2
    local i victim
    for i in 1 2; do
        victim=$(pgrep -P "$HARK_PID" | head -n 1)
        kill -KILL "$victim"
        wait_for_log '^hark: restart ' "$i"
        eventually has_successor "$victim"
        crowd "$PORT" serial 3
    done
    kill -KILL "$(pgrep -P "$HARK_PID" | head -n 1)"
    wait_for_exit
    equal "$STATUS" 1
    equal "$(grep -c '^hark: error: .*giving up' "$LOG")" 1
    eventually none_marked hark
    refute client "$PORT" end
}

@test "processes: the delay before a restart grows" {
    serve --processes 2
    local i victim
    for i in 1 2 3; do
        victim=$(pgrep -n -P "$HARK_PID")
        kill -KILL "$victim"
        wait_for_log '^hark: restart ' "$i"
        eventually has_successor "$victim"
    done
    equal "$(sed -n 's/^hark: restart .* delay=//p' "$LOG" | xargs)" "0.100 0.200 0.400" "the delays"
    stop_hark
}

@test "processes: a worker that fails while ending makes the exit status 1" {
    serve --processes 2
    hold_one peer
    find_workers
    kill -TERM "$HARK_PID"
    wait_for_log '^hark: stop '
    kill -KILL "${WORKERS[@]}"
    wait_for_exit
    equal "$STATUS" 1
    touch "$T/go"
}

@test "processes: unix sockets too, and the path goes at the end only" {
    start_hark --unix "$T/s" --processes 2 --reuse-port --bind 127.0.0.1 --port 0
    local victim
    victim=$(pgrep -P "$HARK_PID" | head -n 1)
    kill -KILL "$victim"
    wait_for_log '^hark: restart '
    [ -S "$T/s" ]
    eventually has_successor "$victim"
    crowd "unix:$T/s" serial 10
    stop_hark
    [ ! -e "$T/s" ]
}

# ---- as pid 1 ----

# serve_as_init OPTION...: HARK_PID is then unshare's, and INIT_PID hark's.
serve_as_init() {
    READY_LINES=1 # unshare keeps the descriptor
    need unshare util-linux
    permitted unshare -pf --mount-proc true
    WRAPPER=(unshare -pf --kill-child=KILL --mount-proc)
    serve "$@"
    INIT_PID=$(pgrep -P "$HARK_PID")
    equal "$(awk '/^NSpid/ { print $3 }' "/proc/$INIT_PID/status")" 1 "hark's pid"
}

# init_ends SIGNAL STATUS
init_ends() {
    kill -"$1" "$INIT_PID"
    wait_for_exit
    equal "$STATUS" "$2" "the exit status"
}

# The orphans of a child are pid 1's.
leaves_no_zombies() {
    local i
    for i in 1 2 3; do
        run client "$PORT" all
        equal "$output" started
    done
    eventually none_marked sleep
    eventually has_zombies 0
}

has_zombies() {
    [ "$(zombies "$INIT_PID")" -eq "$1" ]
}

@test "pid 1: serves, reaps what is not its own, ends with TERM" {
    serve_as_init --handler exec sh -c '(sleep 0.2 & sleep 0.1 &) ; echo started'
    leaves_no_zombies
    init_ends TERM 0
}

@test "pid 1: the same with two processes" {
    serve_as_init --processes 2 --handler exec sh -c '(sleep 0.2 & sleep 0.1 &) ; echo started'
    leaves_no_zombies
    kill -KILL "$(pgrep -P "$INIT_PID" | head -n 1)"
    wait_for_log '^hark: restart '
    leaves_no_zombies
    init_ends TERM 0
}

@test "pid 1: INT is exit status 130, QUIT 0" {
    serve_as_init
    client "$PORT" echo:10
    init_ends INT 130
    serve_as_init --processes 2
    client "$PORT" echo:10
    init_ends INT 130
    serve_as_init
    init_ends QUIT 0
}

@test "pid 1: one that runs no programs reaps what it inherits as well" {
    # the shell that becomes hark leaves its background processes to it
    need unshare util-linux
    permitted unshare -pf --mount-proc true
    READY_LINES=1
    # and a process that has ended already
    local leave_one='import os, sys
child = os.fork() or os._exit(0)
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
os.execv(sys.argv[1], sys.argv[1:])'
    WRAPPER=(unshare -pf --kill-child=KILL --mount-proc sh -c 'sleep 0.3 & (sleep 0.2 &) ; exec "$@"' sh "$PYTHON" -SE -c "$leave_one")
    serve
    INIT_PID=$(pgrep -P "$HARK_PID")
    client "$PORT" echo:10
    eventually none_marked sleep
    eventually has_zombies 0
    init_ends TERM 0
}
