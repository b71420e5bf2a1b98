#!/usr/bin/env bats
# Limits that hold for the whole server, however many processes it has: --max-connections, --max-per-ip, --max-rate, --max-accepts.
#
# shellcheck disable=SC2034,SC2153,SC2154 # variables of lib.bash

load lib

count_accepts() {
    grep -c '^hark: accept ' "$LOG" || true
}

# hold_one NAME: an echo connection until $T/go.NAME
hold_one() {
    spawn_client "$1" "$PORT" echo:10 say:served hold:"$T/go.$1" end same
}

# Nobody else is served, and nobody is turned away.
one_more_waits() {
    run client --timeout 0.3 "$PORT" echo:10
    match "$output" '^echo:10: timeout'
}

find_workers() { # COUNT
    eventually has_workers "$1"
    mapfile -t WORKERS < <(pgrep -P "$HARK_PID" | sort -n)
}

has_workers() { # COUNT
    [ "$(pgrep -P "$HARK_PID" | wc -l)" -eq "$1" ]
}

# fill N: connections that are served, and then one that is not.
fill() {
    local i
    for ((i = 1; i <= $1; i++)); do
        hold_one "$i"
        wait_for_line "$i" served
    done
    one_more_waits
}

each_way() { # COMMAND...: shared listeners, and one for each process
    "$@"
    rm -f "$T"/go.* "$T"/[0-9]*
    "$@" --reuse-port
}

@test "totals: --max-connections is one number for all processes, and the next one comes in when one leaves" {
    each_way fill_and_release
}

fill_and_release() {
    serve -v --processes 4 --max-connections 3 "$@"
    fill 3
    equal "$(count_accepts)" 3
    spawn_client waiting "$PORT" say:connected echo:10 say:served hold:"$T/go.w" end same
    wait_for_line waiting connected
    touch "$T/go.2"
    wait_for_line waiting served
    one_more_waits
    touch "$T/go.1" "$T/go.3" "$T/go.w"
    finish waiting
    crowd "$PORT" serial 10
    stop_hark
}

@test "totals: one free place of many is given to who waits, too" {
    local options
    for options in '' '--processes 2' '--processes 2 --reuse-port'; do
        # shellcheck disable=SC2086
        serve --max-connections 200 $options
        spawn_crowd crowd "$PORT" hold 199 10 "$T/go"
        wait_for_line crowd '^held 199$'
        hold_one leaves
        wait_for_line leaves served
        one_more_waits
        hold_one waits
        touch "$T/go.leaves"
        finish leaves
        wait_for_line waits served
        one_more_waits
        touch "$T/go" "$T/go.waits"
        finish crowd
        finish waits
        stop_hark
        rm -f "$T"/go* "$T/waits" "$T/leaves"
    done
}

@test "totals: exec has room for 100 in all" {
    serve -v --processes 3 --handler exec cat
    spawn_crowd crowd "$PORT" hold 100 10 "$T/go"
    wait_for_line crowd '^held 100$'
    one_more_waits
    equal "$(count_accepts)" 100
    touch "$T/go"
    finish crowd
    eventually client --timeout 5 "$PORT" echo:10
}

@test "totals: a storm at the limit: never one too many, and everybody is served" {
    each_way storm
}

storm() {
    serve -v --processes 4 --max-connections 5 "$@"
    run crowd "$PORT" parallel 300 2000
    equal "$output" "done 300"
    # the log tells how many there were at a time
    at_most "$(awk '/^hark: accept / { n++ } /^hark: close / { n-- } n > most { most = n } END { print most + 0 }' "$LOG")" 5 "connections at a time"
    stop_hark
}

@test "totals: a killed process gives back what it held, and who waits for a place is let in" {
    each_way kill_and_refill
}

kill_and_refill() {
    serve -v --processes 2 --max-connections 2 "$@"
    find_workers 2
    local i worker
    for i in 1 2; do
        fill 2
        spawn_client waiting "$PORT" say:connected echo:10 say:served hold:"$T/go.w" end same
        wait_for_line waiting connected
        mapfile -t WORKERS < <(pgrep -P "$HARK_PID")
        kill -KILL "${WORKERS[@]}"
        wait_for_log '^hark: restart ' $((2 * i))
        eventually client --timeout 5 "$PORT" echo:10
        touch "$T/go.w"
        wait "${background[waiting]}" || true # with --reuse-port or without: reset with its process, or served by another
        rm -f "$T/go.w"
        find_workers 2
    done
    crowd "$PORT" serial 10
    kill -TERM "$HARK_PID"
    wait_for_exit
    equal "$STATUS" 0
}

@test "totals: one process of two is killed, the other one is resting" {
    serve -v --processes 2 --reuse-port --max-connections 1
    find_workers 2
    hold_one first
    wait_for_line first served
    # the one that has it is killed: the other one knows of no place but this
    local id holder
    kill -USR2 "$HARK_PID"
    wait_for_log '^hark: status .* connections=1 '
    holder=$(sed -nE 's/^hark: status .* pid=([0-9]+) connections=1 .*/\1/p' "$LOG")
    for id in 1 2 3 4 5 6; do # some are in the queue of the other
        spawn_client "w$id" "$PORT" say:connected echo:10 end same
        wait_for_line "w$id" connected
    done
    kill -KILL "$holder"
    for id in 1 2 3 4 5 6; do
        finish "w$id"
    done
    stop_hark
}

@test "totals: --max-per-ip closes what is too much, at once, and logs it" {
    each_way too_many_from_one
}

too_many_from_one() {
    local i
    serve -v --processes 3 --max-per-ip 3 "$@"
    for i in 1 2 3; do
        hold_one "$i"
        wait_for_line "$i" served
    done
    for i in 1 2 3 4 5 6; do
        run client "$PORT" count
        match "$output" '^0 (eof|reset)$'
    done
    wait_for_log '^hark: reject peer=127\.0\.0\.1:[0-9]+ reason=limit$' 6
    equal "$(count_accepts)" 3
    # another address has its own three
    python -c 'import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), source_address=("127.0.0.9", 0))
s.send(b"x")
sys.exit(s.recv(1) != b"x")' "$PORT"
    touch "$T/go.2"
    eventually client "$PORT" echo:10
    kill -USR2 "$HARK_PID"
    wait_for_log '^hark: status ' 3
    at_most 6 "$(sed -nE 's/^hark: status .* rejects=([0-9]+) .*/\1/p' "$LOG" | awk '{ n += $1 } END { print n }')" "rejects counted"
    touch "$T/go.1" "$T/go.3"
    stop_hark
}

@test "totals: --max-per-ip: what a killed process held counts no more; TCPCONNNUM is over all processes" {
    # shellcheck disable=SC2016 # the program expands it
    serve -v --processes 2 --max-per-ip 3 --handler exec sh -c 'echo $TCPCONNNUM; exec cat'
    find_workers 2
    local i
    for i in 1 2 3; do
        spawn_client "$i" "$PORT" line hold:"$T/go" end same
        wait_for_line "$i" "^$i\$"
    done
    kill -KILL "${WORKERS[@]}"
    wait_for_log '^hark: restart ' 2
    eventually connects_as 1
    touch "$T/go"
}

connects_as() { # NUMBER
    [ "$(client --timeout 2 "$PORT" line)" = "$1" ]
}

@test "totals: --max-rate: so many in any second, nobody is refused" {
    local processes
    for processes in 1 3; do
        serve -v --processes $processes --max-rate 10
        run python - "$PORT" <<'END'
import socket, sys, threading, time
times = []
def one():
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    s.send(b"x")
    assert s.recv(1) == b"x"
    times.append(time.monotonic())
start = time.monotonic()
threads = [threading.Thread(target=one) for _ in range(35)]
[t.start() for t in threads]
[t.join() for t in threads]
print(len(times), 0 < sum(t - start < 0.95 for t in times) <= 10, time.monotonic() - start >= 2.9)
END
        equal "$output" "35 True True"
        stop_hark
    done
}

@test "totals: --max-rate does not spin while it waits" {
    serve --max-rate 1
    spawn_crowd burst "$PORT" burst 5 20 "$T/go"
    wait_for_line burst '^connected 5$'
    local before
    before=$(cpu_ticks "$HARK_PID")
    sleep 1 # what is measured is the time in which little is to happen
    at_most $(($(cpu_ticks "$HARK_PID") - before)) 5 "ticks of CPU in a second of waiting"
    touch "$T/go"
}

@test "totals: --max-accepts: serves so many, then the port is refused, and the exit status is 0" {
    local processes
    for processes in 1 3; do
        serve -v --processes $processes --max-accepts 4
        spawn_client last "$PORT" echo:10 say:served hold:"$T/go" echo:10 end same
        wait_for_line last served
        crowd "$PORT" serial 3
        eventually refused
        is_there
        touch "$T/go"
        finish last
        has_line "$T/last" '^same 20 eof$'
        wait_for_exit
        equal "$STATUS" 0
        equal "$(count_accepts)" 4
        refute grep -q ' restart ' "$LOG"
        rm "$T/go"
    done
}

refused() {
    [ "$(client --timeout 1 "$PORT" end)" = refused ]
}

is_there() {
    kill -0 "$HARK_PID"
}

@test "totals: --max-accepts: not one more of a storm" {
    local i
    for i in 1 2 3; do
        serve -v --processes 4 --max-accepts 20
        run crowd "$PORT" ask 60 # which wants another answer, from all
        wait_for_log '^hark: accept ' 20
        kill -TERM "$HARK_PID" 2>/dev/null || true
        wait_for_exit
        equal "$(count_accepts)" 20
    done
}

@test "totals: --max-accepts: what ended badly, or never came, is exit status 1" {
    serve --max-accepts 2 --processes 2
    client "$PORT" exchange:10
    client "$PORT" echo:10 reset
    wait_for_exit
    equal "$STATUS" 1
    serve --max-accepts 2 --processes 2
    client "$PORT" exchange:10
    stop_hark TERM 1
    serve --max-accepts 2 --handler exec sh -c 'exit 3'
    client "$PORT" count
    client "$PORT" count
    wait_for_exit
    equal "$STATUS" 1
    serve --max-accepts 2 --handler exec true
    client "$PORT" count
    client "$PORT" count
    wait_for_exit
    equal "$STATUS" 0
}

@test "totals: --max-accepts: who is turned away does not count" {
    serve -v --max-accepts 3 --max-per-ip 1
    hold_one first
    wait_for_line first served
    local i
    for i in 1 2 3 4 5; do
        run client "$PORT" count
    done
    wait_for_log '^hark: reject ' 5
    touch "$T/go.first"
    finish first
    eventually client "$PORT" exchange:10
    eventually client "$PORT" exchange:10
    wait_for_exit
    equal "$STATUS" 0
}

@test "totals: more connections than there are descriptors for: said at start" {
    without_valgrind "it has descriptors of its own below the limit"
    WRAPPER=(bash -c 'ulimit -n 100 && exec "$@"' bash)
    serve --max-connections 1000
    has_line "$LOG" '^hark: warning: there are descriptors for 36 connections only, not for --max-connections 1000 '
    run crowd "$PORT" parallel 100 1000
    equal "$output" "done 100"
    refute grep -q 'Too many' "$LOG"
}

@test "totals: USR2 logs a line a process" {
    serve --processes 2
    spawn_client peer "$PORT" echo:1000 say:held hold:"$T/go" end same
    wait_for_line peer held
    client "$PORT" exchange:500
    find_workers 2
    kill -KILL "${WORKERS[0]}"
    wait_for_log '^hark: restart '
    find_workers 2
    eventually has_lines_after_usr2 2
    local pattern='^hark: status process=[01] pid=[0-9]+ connections=[01] in=[0-9]+ out=[0-9]+ accepts=[012] rejects=0 restarts=[01]$'
    equal "$(grep -cvE "$pattern" <(grep '^hark: status ' "$LOG"))" 0 "lines of another form"
    touch "$T/go"
    serve -q
    kill -USR2 "$HARK_PID"
    client "$PORT" echo:10
    stop_hark
    equal "$(<"$LOG")" ""
}

has_lines_after_usr2() { # COUNT
    : >"$LOG"
    kill -USR2 "$HARK_PID"
    sleep 1.1 # what counts once within a second
    has_lines "$LOG" '^hark: status ' "$1"
}
