#!/usr/bin/env bats
# What a round trip costs in system calls.

load lib

setup() {
    without_valgrind "its own system calls are counted, too"
}

# count_calls: strace on hark while a client that has made ten round trips makes 1000 more; sets CALLS.
count_calls() {
    need strace strace
    spawn_client peer "$PORT" rounds:10:64 say:warm hold:"$T/go" rounds:1000:64 say:finished hold:"$T/stop" end same
    wait_for_line peer warm
    strace -f -c -o "$T/strace.log" -p "$HARK_PID" 2>"$T/strace.err" 3>&- &
    local strace=$!
    if ! eventually grep -q '^TracerPid:.*[1-9]' "/proc/$HARK_PID/status"; then
        cat "$T/strace.err"
        skip "strace may not attach here"
    fi
    touch "$T/go"
    wait_for_line peer finished
    kill -INT "$strace"
    wait "$strace" || true
    touch "$T/stop"
    finish peer
    cat "$T/strace.log"
    # calls is the fourth column; errors, the fifth, may be missing
    CALLS=$(awk '$NF == "total" { print $4 }' "$T/strace.log")
    [ "$CALLS" -ge 1000 ]
}

@test "system calls: echo takes at most 3.05 a round trip" {
    serve
    count_calls
    at_most "$CALLS" 3050 "calls in 1000 round trips"
}

@test "system calls: forward takes at most 6.05 a round trip" {
    serve_target
    serve --handler forward "127.0.0.1:$TARGET_PORT"
    count_calls
    at_most "$CALLS" 6050 "calls in 1000 round trips"
}

@test "system calls: with -v and two processes it is the same" {
    serve -v --processes 2
    spawn_client first "$PORT" rounds:10:64 say:warm hold:"$T/stop"
    wait_for_line first warm
    local pid
    for pid in $(pgrep -P "$HARK_PID"); do
        kill -STOP "$pid"
        break
    done
    HARK_PID=$(pgrep -n -P "$HARK_PID")
    count_calls
    at_most "$CALLS" 3050 "calls in 1000 round trips"
}

@test "system calls: in the sandbox it is the same" {
    export ASAN_OPTIONS=$NO_LEAK_CHECK
    serve --sandbox
    HARK_PID=$(pgrep -P "$HARK_PID")
    count_calls
    at_most "$CALLS" 3050 "calls in 1000 round trips"
}

# All limits and access rules at once.
rules() {
    printf '%s\n' 10.0.0.0/8 2001:db8::/32 >"$T/rules"
    limits=(--max-connections 100 --max-per-ip 50 --max-rate 100000 --max-accepts 100000 --idle-timeout 10m --half-close-timeout 10m
        --max-lifetime 10m --exit-idle 10m --keepalive 60 --drain-timeout 10s --allow 127.0.0.0/8 --deny 127.0.0.9 --deny "@$T/rules")
}

@test "system calls: limits and access rules take none a message" {
    rules
    serve --processes 2 "${limits[@]}"
    spawn_client first "$PORT" rounds:10:64 say:warm hold:"$T/stop"
    wait_for_line first warm
    one_process
    count_calls
    at_most "$CALLS" 3050 "calls in 1000 round trips"
}

# None was ever seen; 50 of 1000 is for what wakes up meanwhile.
@test "system calls: limits and access rules take none a connection" {
    rules
    local without processes
    for processes in 1 2; do
        serve --processes $processes
        [ $processes -eq 1 ] || one_process
        count_connection_calls
        without=$CALLS
        serve --processes $processes "${limits[@]}"
        [ $processes -eq 1 ] || one_process
        count_connection_calls
        at_most "$CALLS" $((without + 50)) "calls in 1000 connections ($without without limits)"
    done
}

@test "system calls: --metrics takes none a message, and none a connection" {
    serve --metrics 0
    HARK_PID=$(pgrep -o -P "$HARK_PID")
    count_calls
    at_most "$CALLS" 3050 "calls in 1000 round trips"
    serve
    count_connection_calls
    local without=$CALLS
    serve --metrics 0
    HARK_PID=$(pgrep -o -P "$HARK_PID")
    count_connection_calls
    at_most "$CALLS" $((without + 50)) "calls in 1000 connections ($without without it)"
}

# Of two workers one sleeps, and HARK_PID is the other.
one_process() {
    kill -STOP "$(pgrep -o -P "$HARK_PID")"
    HARK_PID=$(pgrep -n -P "$HARK_PID")
}

# strace on hark while 1000 connections come and go; sets CALLS, which leaves out waiting and reading: how often the end of what a client
# sends is there together with it depends on how busy the machine is. Of these there are at most six a connection.
count_connection_calls() {
    need strace strace
    crowd "$PORT" serial 5
    strace -f -c -o "$T/strace.log" -p "$HARK_PID" 2>"$T/strace.err" 3>&- &
    local strace=$!
    eventually grep -q '^TracerPid:.*[1-9]' "/proc/$HARK_PID/status"
    crowd "$PORT" serial 1000
    kill -INT "$strace"
    wait "$strace" || true
    cat "$T/strace.log"
    local all
    all=$(awk '$NF == "total" { print $4 }' "$T/strace.log")
    at_most "$all" 9050 "all calls in 1000 connections"
    CALLS=$((all - $(awk '$NF ~ /^(epoll_wait|epoll_ctl|recvfrom)$/ { n += $4 } END { print n + 0 }' "$T/strace.log")))
    [ "$CALLS" -ge 3000 ]
}
