#!/usr/bin/env bats
# Drain: whom the kernel let in is served, whatever the number of processes, and the rest ends in time.
#
# shellcheck disable=SC2016,SC2034,SC2153,SC2154 # variables of lib.bash

load lib

hold_one() { # NAME
    spawn_client "$1" "$PORT" echo:1000 say:held hold:"$T/go" echo:1000 end same
    wait_for_line "$1" held
}

@test "drain: --drain-timeout ends what is left, with status 0" {
    local processes
    for processes in 1 2; do
        serve -v --drain-timeout 500ms --processes $processes
        spawn_client idle "$PORT" echo:10 say:held count
        wait_for_line idle held
        local before=$EPOCHREALTIME
        stop_hark TERM 0
        local ms=$(((${EPOCHREALTIME/[.,]/} - ${before/[.,]/}) / 1000))
        ((ms >= 500 && ms < 9000)) || fail "it took $ms ms"
        finish idle
        grep -q ' reason=shutdown ' "$LOG"
    done
}

# Sets BUSY and OTHER: the process that serves the only client, and the one that does not.
find_busy() {
    kill -USR2 "$HARK_PID"
    wait_for_log '^hark: status ' 2
    BUSY=$(sed -n 's/^hark: status .* pid=\([0-9]*\) connections=1 .*/\1/p' "$LOG")
    OTHER=$(sed -n 's/^hark: status .* pid=\([0-9]*\) connections=0 .*/\1/p' "$LOG")
}

@test "drain: --drain-timeout is for all, also if TERM came to one of them only, and they were ending already" {
    serve --drain-timeout 500ms --processes 2
    spawn_client idle "$PORT" echo:10 say:held count
    wait_for_line idle held
    find_busy
    kill -TERM "$OTHER"
    wait_for_exit
    equal "$STATUS" 0
    finish idle
    serve --drain-timeout 500ms --processes 2 --max-accepts 2
    spawn_client idle "$PORT" echo:10 say:held count
    wait_for_line idle held
    find_busy
    kill -STOP "$BUSY" # the other one has the next
    spawn_client next "$PORT" echo:10 say:held count
    wait_for_line next held
    kill -CONT "$BUSY"
    wait_for_log '^hark: stop ' # since two were accepted: no time limit
    kill -TERM "$OTHER"
    wait_for_exit
    equal "$STATUS" 1
    finish idle
    finish next
}

@test "drain: 0 is no limit, and who ends in time is not cut off" {
    serve -v --drain-timeout 0
    hold_one peer
    kill -TERM "$HARK_PID"
    wait_for_log '^hark: stop '
    sleep 0.5 # what is tested is that nothing happens
    touch "$T/go"
    finish peer
    has_line "$T/peer" '^same 2000 eof$'
    wait_for_exit
    equal "$STATUS" 0
}

@test "drain: --once has no time limit of its own" {
    serve -v --once --drain-timeout 200ms
    hold_one peer
    run client "$PORT" end
    equal "$output" refused
    sleep 0.5 # what is tested is that nothing happens
    touch "$T/go"
    finish peer
    wait_for_exit
    equal "$STATUS" 0
}

# Starts and stops hark under a storm, again and again.
restarts_under_storm() { # OPTION...
    start_hark "$@"
    [ "$PORT" = '' ] || set -- --bind 127.0.0.1 --port "$PORT" "${@:5}"
    spawn storm "$PYTHON" -SE "$TESTS/storm.py" 4 "${PORT:-$T/s}"
    local i
    for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
        sleep 0.1 # under load for a while
        kill -TERM "$HARK_PID"
        wait_for_exit
        equal "$STATUS" 0
        start_hark "$@"
    done
    finish storm
    equal "$(output_of storm)" "served True reset 0"
    stop_hark
}

@test "drain: a restart under load resets nobody whom the kernel let in" {
    restarts_under_storm --bind 127.0.0.1 --port 0
}

@test "drain: the same with several processes" {
    restarts_under_storm --bind 127.0.0.1 --port 0 --processes 3
}

@test "drain: the same on a unix socket" {
    restarts_under_storm --unix "$T/s" --processes 2
}

@test "drain: a handshake that is under way when TERM comes is waited for, and no other begins" {
    permitted unshare -n test -w /dev/net/tun
    local options
    for options in '' '--processes 3' '--processes 2 --reuse-port'; do
        # shellcheck disable=SC2086
        run timeout "$DEADLINE" unshare -n "$PYTHON" -SE "$TESTS/slow_client.py" "$HARK" -q $options
        equal "$output" $'served\nstatus 0' "with \"$options\""
    done
}

has_waiting() { # COUNT: so many wait in the backlog of PORT
    awk -v "listener=$(printf '0100007F:%04X' "$PORT")" -v "queue=$(printf ':%08X' "$1")" \
        '$2 == listener && $4 == "0A" && index($5, queue) { found = 1 } END { exit !found }' /proc/net/tcp
}

@test "drain: who waits is served, also where descriptors are short for all of them at once" {
    without_valgrind "it has descriptors of its own"
    local processes
    WRAPPER=(bash -c 'ulimit -n 80 && exec "$@"' bash)
    for processes in 1 2; do
        serve --processes $processes --max-connections 4
        rm -f "$T/go"
        spawn_crowd held "$PORT" hold 4 100 "$T/go"
        wait_for_line held '^held 4$'
        spawn_crowd waiting "$PORT" parallel 300 1000
        eventually has_waiting 300
        kill -TERM "$HARK_PID"
        finish waiting
        equal "$(output_of waiting)" "done 300"
        touch "$T/go"
        finish held
        wait_for_exit
        equal "$STATUS" 0
    done
}

# A log that takes nothing holds a starting hark up: its sockets are there, its loop is not.
start_held_up() { # OPTION...
    mkfifo "$T/full"
    exec {full}<>"$T/full"
    "$PYTHON" -SE -c 'import fcntl, os, sys
fcntl.fcntl(1, fcntl.F_SETFL, os.O_NONBLOCK | fcntl.fcntl(1, fcntl.F_GETFL))
try:
    while True:
        os.write(1, b"x" * 4096)
except BlockingIOError:
    fcntl.fcntl(1, fcntl.F_SETFL, ~os.O_NONBLOCK & fcntl.fcntl(1, fcntl.F_GETFL))' >"$T/full"
    HARK_TEST_MARK=$MARK "$HARK" --unix "$T/s" "$@" 2>"$T/full" 3>&- 4>&- 5>&- 6>&- &
    HARK_PID=$!
    harks+=("$HARK_PID")
    LOG="$T/held-up.log"
    eventually grep -qE "^[^ ]+ [^ ]+ [^ ]+ 00010000 .* $T/s\$" /proc/net/unix # it listens
}

@test "drain: TERM during start ends nobody whom the kernel has let in" {
    local processes
    for processes in 1 2; do
        start_held_up --processes $processes
        spawn_client early "unix:$T/s" say:connected echo:1000 end same
        wait_for_line early connected
        kill -TERM "$HARK_PID"
        spawn log cat "$T/full"
        exec {full}>&-
        finish early
        has_line "$T/early" '^same 1000 eof$'
        wait_for_exit
        equal "$STATUS" 0
        [ ! -e "$T/s" ]
        rm "$T/full"
    done
}

@test "drain: HUP during start means nothing yet" {
    start_held_up
    kill -HUP "$HARK_PID"
    spawn log cat "$T/full"
    exec {full}>&-
    spawn_client early "unix:$T/s" echo:1000 end same
    finish early
    stop_hark TERM 0
}
