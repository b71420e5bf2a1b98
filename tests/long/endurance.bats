#!/usr/bin/env bats
# What 10,000 connections leave behind.
#
# shellcheck disable=SC2153 # variables of lib.bash

load ../lib
load leaves

@test "endurance: 10,000 short connections to echo" {
    serve
    leaves_nothing 1000 10000 64
}

@test "endurance: 10,000 short connections, and a log line for each" {
    serve -v --log-format json
    leaves_nothing 1000 10000 64
    python -c 'import json, sys
ids = [e["id"] for e in map(json.loads, open(sys.argv[1])) if e["event"] == "close"]
assert sorted(ids) == list(range(1, 13002)), len(ids)' "$LOG"
}

@test "endurance: 10,000 short connections to forward" {
    serve_target
    serve --handler forward "127.0.0.1:$TARGET_PORT"
    leaves_nothing 1000 10000 64
}

@test "endurance: 2,000 short connections to exec" {
    serve --handler exec cat
    leaves_nothing 200 2000 64
}

@test "endurance: 2,000 connections to a target that refuses" {
    serve
    local target=$PORT descriptors
    stop_hark
    serve -q --handler forward "127.0.0.1:$target"
    client "$PORT" count
    descriptors=$(descriptors "$HARK_PID")
    local i
    for i in $(seq 20); do
        spawn_crowd "burst$i" "$PORT" burst 100 10 "$T/go"
    done
    touch "$T/go"
    for i in $(seq 20); do
        finish "burst$i"
    done
    eventually has_descriptors "$HARK_PID" "$descriptors"
}
