#!/usr/bin/env bats
# exec under load: many connections at once, thousands in all; both ways to connect a program, and warm ones.
#
# HARK_FULL=1: 20,000 connections each, not 5,000.
# shellcheck disable=SC2004,SC2016,SC2030,SC2031,SC2034,SC2153,SC2154 # dollar signs of programs; variables of lib.bash

load ../lib

TOTAL=5000 LASTS=380
[ "${HARK_FULL:-}" = 1 ] && TOTAL=20000

setup() {
    [ "$(ulimit -Hn)" -ge 4000 ] || skip "too few descriptors: $(ulimit -Hn)"
}

# Four crowds of 50, each as soon as it can: the connections of one come while those of the others are under way.
load_it() {
    local name
    for name in a b c d; do
        spawn "$name" bash -c 'for i in $(seq "$1"); do timeout 120 "$2" -SE "$3/crowd.py" "$4" parallel 50 3000 || exit 1; done' \
            load $((TOTAL / 4 / 50)) "$PYTHON" "$TESTS" "$PORT"
    done
    for name in a b c d; do
        finish "$name"
        equal "$(grep -cx 'done 50' "$T/$name")" $((TOTAL / 4 / 50)) "the rounds of $name"
    done
}

has_children() { # COUNT
    [ "$(pgrep -P "$HARK_PID" | wc -l)" -eq "$1" ]
}

# survives COUNT OPTION...: COUNT programs are there before and after.
survives() {
    local waiting=$1 before highest
    shift
    serve -v "$@" --handler exec cat
    crowd "$PORT" parallel 10 1000
    wait_for_log '^hark: close ' 10
    eventually has_children "$waiting"
    before=$(descriptors "$HARK_PID")
    load_it
    DEADLINE=60 wait_for_log '^hark: close ' $((TOTAL + 10))
    equal "$(grep -cE '^hark: close .* reason=child in=3000 out=3000 .* status=0 ' "$LOG")" "$TOTAL" "those that ended as they should"
    equal "$(grep -c '^hark: close ' "$LOG")" $((TOTAL + 10)) "the number of close lines"
    equal "$(grep -cE '^hark: (error|warning):' "$LOG" || true)" 0 "errors and warnings"
    eventually has_children "$waiting"
    equal "$(zombies "$HARK_PID")" 0 zombies
    eventually has_descriptors "$HARK_PID" "$before"
    highest=$(awk '/ accept / { n++ } / close / { n-- } n > most { most = n } END { print most }' "$LOG")
    echo "$* served $highest at once"
    HIGHEST=$highest
    stop_hark
    eventually none_marked cat
}

@test "exec load: 200 at once, with sockets" {
    survives 0 --max-connections 0 --exec-io socket
}

@test "exec load: 200 at once, with pipes" {
    survives 0 --max-connections 0 --exec-io pipe
}

@test "exec load: 200 at once, warm" {
    survives 8 --max-connections 0 --warm 8
}

@test "exec load: 200 at once at the default limit of 100, with sockets" {
    survives 0 --exec-io socket
    at_most "$HIGHEST" 100 "connections at once"
}

@test "exec load: 200 at once at the default limit of 100, with pipes" {
    survives 0 --exec-io pipe
    at_most "$HIGHEST" 100 "connections at once"
}

@test "exec load: 200 at once at the default limit of 100, warm" {
    survives 8 --warm 8
    at_most "$HIGHEST" 100 "connections at once"
}

@test "exec load: 200 at the very same time" {
    local options
    for options in --exec-io=socket --exec-io=pipe --warm=8; do
        serve -v --max-connections 0 $options --handler exec sh -c 'read -r name; echo "hello $name"; cat >/dev/null'
        kill -STOP "$HARK_PID"
        eventually is_state "$HARK_PID" T
        spawn_crowd crowd "$PORT" ask 200
        eventually all_wait 200
        kill -CONT "$HARK_PID"
        finish crowd
        equal "$(output_of crowd)" "done 200"
        wait_for_log '^hark: close .* reason=child .* status=0 ' 200
        stop_hark
    done
}

# The backlog of the listening socket.
all_wait() { # COUNT
    local port
    printf -v port ':%04X ' "$PORT"
    # connected, or ended by the client already; on our side, where nobody has accepted them
    [ "$(awk -v port="$port" 'index($2 " ", port) && ($4 == "01" || $4 == "08")' /proc/net/tcp | wc -l)" -ge "$1" ]
}
