#!/usr/bin/env bats
# A reader that stops stops the writer, and hark's memory stays what it was.
#
# shellcheck disable=SC2016,SC2154 # dollar signs of others; variables of lib.bash

load lib

buffers=$((64 * 1024 * 1024)) # more than the kernel holds for two sockets, much less than a writer could send

filled() { # NAME
    sed -n 's/^filled //p' "$T/$1"
}

# flat BEFORE ALLOWED
flat() {
    at_most $(($(resident_kib "$HARK_PID") - $1)) "$2" "KiB more"
}

@test "back-pressure: echo: one that never reads is stopped, and nothing is lost" {
    without_sanitizers
    serve --max-buffer-size 64k
    client "$PORT" exchange:1000000
    local before
    before=$(resident_kib "$HARK_PID")
    spawn_client peer "$PORT" fill:0.5 hold:"$T/go" end same
    wait_for_line peer '^filled'
    at_most "$(filled peer)" $buffers "bytes taken"
    flat "$before" 200
    touch "$T/go"
    finish peer
    equal "$(tail -n 1 "$T/peer")" "same $(filled peer) eof"
}

@test "back-pressure: echo: no more than --max-buffer-size is held for each" {
    without_sanitizers
    serve --max-buffer-size 256k
    client "$PORT" exchange:1000000
    local before i
    before=$(resident_kib "$HARK_PID")
    for i in $(seq 8); do
        spawn_client "peer$i" --rcvbuf 4096 --sndbuf 4096 "$PORT" fill:0.5 hold:"$T/go"
    done
    for i in $(seq 8); do
        wait_for_line "peer$i" '^filled'
    done
    flat "$before" $((8 * 256 + 400))
    touch "$T/go"
}

@test "back-pressure: forward: a target that never reads stops the client" {
    without_sanitizers
    spawn_target listen hold:"$T/go" same
    serve --max-buffer-size 64k --handler forward "127.0.0.1:$TARGET_PORT"
    local before
    before=$(resident_kib "$HARK_PID")
    spawn_client peer "$PORT" fill:0.5 end count
    wait_for_line peer '^filled'
    at_most "$(filled peer)" $buffers "bytes taken"
    flat "$before" 400
    touch "$T/go"
    finish peer
    finish target
    equal "$(tail -n 1 "$T/target")" "same $(filled peer) eof"
}

@test "back-pressure: forward: a client that never reads stops the target" {
    without_sanitizers
    spawn_target listen fill:0.5 end count
    serve --max-buffer-size 64k --handler forward "127.0.0.1:$TARGET_PORT"
    local before
    before=$(resident_kib "$HARK_PID")
    spawn_client peer "$PORT" hold:"$T/go" end same
    wait_for_line target '^filled'
    at_most "$(filled target)" $buffers "bytes taken"
    flat "$before" 400
    touch "$T/go"
    finish peer
    equal "$(tail -n 1 "$T/peer")" "same $(filled target) eof"
}

@test "back-pressure: forward: one direction stands, the other goes" {
    spawn_target --seed 2 listen hold:"$T/stuck" send:2000000 hold:"$T/go" count
    serve --max-buffer-size 64k --handler forward "127.0.0.1:$TARGET_PORT"
    spawn_client peer --seed 2 "$PORT" fill:0.5 recv:2000000 say:received hold:"$T/go" end
    wait_for_line peer '^filled'
    touch "$T/stuck"
    wait_for_line peer received
    touch "$T/go"
    finish peer
    finish target
    equal "$(tail -n 1 "$T/target")" "$(filled peer) eof"
}

@test "back-pressure: exec: a program that stops reading stops the client, and the other way round" {
    serve --handler exec sh -c 'while [ ! -e "$1" ]; do sleep 0.05; done; exec cat' sh "$T/go"
    local before
    before=$(resident_kib "$HARK_PID")
    spawn_client peer "$PORT" fill:0.5 end same
    wait_for_line peer '^filled'
    at_most "$(filled peer)" $buffers "bytes taken"
    touch "$T/go"
    finish peer
    equal "$(tail -n 1 "$T/peer")" "same $(filled peer) eof"
    flat "$before" 400
}

@test "back-pressure: while everybody waits, hark does nothing" {
    serve_target --handler exec sleep 1000
    serve --handler forward "127.0.0.1:$TARGET_PORT"
    spawn_client peer "$PORT" fill:0.5 hold:"$T/go"
    wait_for_line peer '^filled'
    serve
    spawn_client half "$PORT" echo:1000 end say:ended hold:"$T/go"
    wait_for_line half ended
    local pid before=0 after=0
    for pid in "${harks[@]}"; do
        before=$((before + $(cpu_ticks "$pid")))
    done
    sleep 1 # what is measured is the time in which nothing is to happen
    for pid in "${harks[@]}"; do
        after=$((after + $(cpu_ticks "$pid")))
    done
    at_most $((after - before)) 5 "ticks of CPU in a second of rest"
    touch "$T/go"
}
