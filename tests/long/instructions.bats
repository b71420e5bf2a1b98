#!/usr/bin/env bats
# What a message costs in instructions, with limits and access rules and without.
#
# shellcheck disable=SC2034,SC2153 # variables of lib.bash

load ../lib

LASTS=200 DEADLINE=100

setup() {
    need valgrind valgrind
    without_sanitizers
}

# instructions ROUNDS OPTION...: sets COUNT to what hark runs from its start to its end, with one client that makes so many round trips.
instructions() {
    local rounds=$1
    shift
    WRAPPER=(valgrind --tool=callgrind --callgrind-out-file=/dev/null)
    serve "$@"
    WRAPPER=()
    client --timeout 100 "$PORT" "rounds:$rounds:64" end same
    kill -TERM "$HARK_PID"
    wait_for_exit # with 1, where --max-accepts were not reached
    COUNT=$(sed -n 's/^==.*== Collected : //p' "$LOG")
}

# a_message OPTION...: sets COUNT to how many one 64-byte message takes: what 2000 more of them add, whatever a start and an end take.
a_message() {
    local few
    instructions 1000 "$@"
    few=$COUNT
    instructions 3000 "$@"
    COUNT=$(((COUNT - few) / 2000))
}

# Of some 40 instructions 9 are libev's, which looks at its timers.
@test "instructions: limits and access rules add at most 5 % to a message" {
    local without with
    printf '%s\n' 10.0.0.0/8 2001:db8::/32 >"$T/rules"
    a_message
    without=$COUNT
    a_message --max-connections 100 --max-per-ip 50 --max-rate 100000 --max-accepts 100000 --idle-timeout 10m --half-close-timeout 10m \
        --max-lifetime 10m --exit-idle 10m --keepalive 60 --drain-timeout 10s --allow 127.0.0.0/8 --deny 127.0.0.9 --deny "@$T/rules"
    with=$COUNT
    echo "# note: a round trip of 64 bytes takes $without instructions, with limits and access rules $with" >&3
    ((without > 100 && with > 100)) || fail "that is not what a message takes"
    at_most $((with * 1000 / without)) 1050 "parts in 1000"
}
