#!/usr/bin/env bats
# Limits: connections, and descriptors that run out.
#
# shellcheck disable=SC2034,SC2153 # variables of lib.bash

load lib

count_accepts() {
    grep -c '^hark: accept ' "$LOG" || true
}

@test "limits: beyond --max-connections clients wait in the backlog, and are served when one leaves" {
    serve -v --max-connections 2
    spawn_client a "$PORT" echo:10 say:served hold:"$T/go.a"
    spawn_client b "$PORT" echo:10 say:served hold:"$T/go.b"
    wait_for_line a served
    wait_for_line b served
    spawn_client c "$PORT" say:connected echo:10 say:served
    wait_for_line c connected
    equal "$(count_accepts)" 2
    # still connected, still waiting, while others are served
    run client --timeout 0.3 "$PORT" echo:10
    match "$output" '^echo:10: timeout'
    equal "$(count_accepts)" 2
    touch "$T/go.a"
    finish c
    has_line "$T/c" served
    touch "$T/go.b"
}

@test "limits: exec has room for 100 by default" {
    serve -v --handler exec cat
    spawn_crowd crowd "$PORT" hold 100 10 "$T/go"
    wait_for_line crowd '^held 100$'
    spawn_client more "$PORT" say:connected echo:10 say:served
    wait_for_line more connected
    run client --timeout 0.3 "$PORT" echo:10
    match "$output" '^echo:10: timeout'
    equal "$(count_accepts)" 100
    touch "$T/go"
    finish crowd
    finish more
}

@test "limits: 0 is none" {
    serve -v --max-connections 0 --handler exec cat
    spawn_crowd crowd "$PORT" hold 110 10 "$T/go"
    wait_for_line crowd '^held 110$'
    touch "$T/go"
    finish crowd
}

# limited N OPTION...: serves with that many descriptors
limited() {
    local n=$1
    shift
    WRAPPER=(bash -c "ulimit -n $n && exec \"\$@\"" bash)
    serve "$@"
}

# out_of_descriptors ADDRESS: more connections than there are descriptors, while one is being used.
out_of_descriptors() {
    spawn_client early "$PORT" echo:1000 say:served hold:"$T/exhausted" echo:1000 say:unharmed hold:"$T/go" echo:1000 end same
    wait_for_line early served
    spawn_crowd crowd "$PORT" burst 60 20 "$T/go"
    wait_for_line crowd '^connected 60$'
    wait_for_log '^hark: error: .*Too many open files$'
    touch "$T/exhausted"
    wait_for_line early unharmed
    local before after
    before=$(cpu_ticks "$HARK_PID")
    sleep 1.5 # what is measured is the time in which nothing is to happen
    after=$(cpu_ticks "$HARK_PID")
    at_most $((after - before)) $((15 * $(getconf CLK_TCK) / 100)) "ticks of CPU in 1.5 s without descriptors"
    equal "$(grep -c '^hark: error: .*Too many open files' "$LOG")" 1 "the number of error lines"
    touch "$T/go"
    finish early
    finish crowd
    # and it recovers
    eventually client --timeout 5 "$PORT" echo:1000
    equal "$(grep -c '^hark: error: .*Too many open files' "$LOG")" 1 "the number of error lines"
    stop_hark
}

@test "limits: EMFILE: one log line, no spin, recovery, and the others unharmed" {
    limited 40 --max-connections 0
    out_of_descriptors
}

@test "limits: EMFILE with --processes" {
    limited 40 --max-connections 0 --processes 2
    spawn_crowd crowd "$PORT" burst 120 20 "$T/go"
    wait_for_line crowd '^connected 120$'
    wait_for_log '^hark: error: .*Too many open files$' 2
    touch "$T/go"
    finish crowd
    eventually crowd "$PORT" serial 20
    stop_hark
}

# leave_descriptors COUNT: so many can hark still open, and no more.
leave_descriptors() {
    local left=$1 limit=0
    while ((left > 0)) || [ -e "/proc/$HARK_PID/fd/$limit" ]; do
        [ -e "/proc/$HARK_PID/fd/$limit" ] || left=$((left - 1))
        limit=$((limit + 1))
    done
    prlimit --pid "$HARK_PID" --nofile="$limit:$limit"
}

# short_of COUNT CLIENTS OPTION...: so many clients come in. The last one finds no descriptors for what its handler needs beside it, or
# the next one finds none at all. Either way everyone waits, and is served in the end.
short_of() {
    local count=$1 clients=$2
    shift 2
    rm -f "$T/go"
    serve -v --max-connections 0 "$@"
    spawn_client early "$PORT" echo:1000 say:served hold:"$T/go" echo:1000 end same
    wait_for_line early served
    leave_descriptors "$count"
    spawn_crowd crowd "$PORT" burst 30 20 "$T/go"
    wait_for_line crowd '^connected 30$'
    wait_for_log '^hark: error: cannot accept connections for now: Too many open files$'
    spawn_crowd waiting "$PORT" parallel 20 1000
    eventually has_accepted $((clients + 1))
    nothing_happens $((clients + 1))
    touch "$T/go"
    finish early
    finish crowd
    finish waiting
    equal "$(output_of waiting)" "done 20"
    crowd "$PORT" parallel 20 1000
    stop_hark
    refute grep -E ' reason=(error|reset)|^hark: error: [^c]|cannot run' "$LOG"
}

has_accepted() { # COUNT
    [ "$(count_accepts)" -eq "$1" ]
}

# While it is short: no CPU is used, nobody is accepted or sent away, and nothing is said twice.
nothing_happens() { # CLIENTS
    local before
    before=$(cpu_ticks "$HARK_PID")
    sleep 1.5 # what is measured is the time in which nothing is to happen
    at_most $(($(cpu_ticks "$HARK_PID") - before)) $((15 * $(getconf CLK_TCK) / 100)) "ticks of CPU in 1.5 s without descriptors"
    equal "$(count_accepts)" "$1" "the number of clients that are in"
    equal "$(grep -c '^hark: error: ' "$LOG")" 1 "the number of error lines"
    refute grep '^hark: close ' "$LOG"
}

@test "limits: EMFILE in forward: accepting fails" {
    without_valgrind "it has descriptors of its own below the limit"
    serve_target
    short_of 8 4 --handler forward "127.0.0.1:$TARGET_PORT"
}

@test "limits: EMFILE in forward: a client is in, and connecting to its target fails" {
    without_valgrind "it has descriptors of its own below the limit"
    serve_target
    short_of 9 5 --handler forward "127.0.0.1:$TARGET_PORT"
}

# The socket, a pipe for stderr, of which one end stays, and the pidfd.
@test "limits: EMFILE in exec: accepting fails" {
    without_valgrind "it has descriptors of its own below the limit"
    short_of 9 3 --handler exec cat
}

@test "limits: EMFILE in exec: a client is in, and starting its program fails" {
    without_valgrind "it has descriptors of its own below the limit"
    short_of 10 4 --handler exec cat
    short_of 11 4 --handler exec cat
}

@test "limits: by default no more are taken than there are descriptors for" {
    limited 100
    spawn_client early "$PORT" echo:1000 say:served hold:"$T/go" echo:1000 end same
    wait_for_line early served
    run crowd "$PORT" parallel 150 1000
    equal "$output" "done 150"
    touch "$T/go"
    finish early
    serve_target
    limited 100 --handler forward "127.0.0.1:$TARGET_PORT"
    run crowd "$PORT" parallel 150 1000
    equal "$output" "done 150"
    refute grep -q 'Too many' "$LOG"
}

@test "limits: the soft limit is raised to the hard one" {
    without_valgrind "it keeps limits to itself"
    WRAPPER=(bash -c 'ulimit -Sn 64 && exec "$@"' bash)
    serve
    spawn_crowd crowd "$PORT" hold 200 10 "$T/go"
    wait_for_line crowd '^held 200$'
    touch "$T/go"
    finish crowd
}

@test "limits: at the limit, TERM still serves those who wait in the backlog" {
    serve -v --max-connections 1
    spawn_client a "$PORT" echo:10 say:served hold:"$T/go" echo:10 end same
    wait_for_line a served
    spawn_client b "$PORT" say:connected echo:10 say:served hold:"$T/go" echo:10 end same
    wait_for_line b connected
    kill -TERM "$HARK_PID"
    wait_for_line b served
    touch "$T/go"
    finish a
    finish b
    wait_for_exit
    equal "$STATUS" 0
}
