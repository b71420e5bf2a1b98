#!/usr/bin/env bats
# What an idle connection costs.

load lib

# connection_bytes [tls:]: the private memory of each of 800 connections that have carried 64 KiB, beyond 200 others; sets BYTES.
connection_bytes() {
    without_sanitizers
    [ "$(ulimit -Hn)" -ge 2100 ] || skip "too few descriptors: $(ulimit -Hn)"
    local before after
    spawn_crowd some "${1:-}$PORT" hold 200 65536 "$T/go"
    wait_for_line some '^held 200$'
    before=$(private_kib "$HARK_PID")
    spawn_crowd more "${1:-}$PORT" hold 800 65536 "$T/go"
    wait_for_line more '^held 800$'
    after=$(private_kib "$HARK_PID")
    touch "$T/go"
    finish some
    finish more
    BYTES=$(((after - before) * 1024 / 800))
    echo "$before KiB with 200, $after KiB with 1000: $BYTES bytes each"
}

@test "memory: an idle connection of echo takes at most 1 KiB" {
    serve
    connection_bytes
    at_most "$BYTES" 1024 "bytes for a connection"
}

@test "memory: an idle connection of forward takes at most 2 KiB" {
    serve_target
    serve --handler forward "127.0.0.1:$TARGET_PORT"
    connection_bytes
    at_most "$BYTES" 2048 "bytes for a connection"
}

@test "memory: an idle connection of forward from TLS takes at most 16.5 KiB" {
    serve_target
    serve --ssl-self-signed --handler forward "127.0.0.1:$TARGET_PORT"
    connection_bytes tls:
    at_most "$BYTES" $((33 * 512)) "bytes for a connection"
}
