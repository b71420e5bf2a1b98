#!/usr/bin/env bats
# discard: reads and forgets.

load lib

@test "discard: reads everything, answers nothing, ends with the peer" {
    serve -v --handler discard
    run client "$PORT" send:10000000 end count
    equal "$output" "0 eof"
    wait_for_log ' reason=eof in=10000000 out=0 '
    stop_hark
}

@test "discard: keeps nothing" {
    without_sanitizers
    serve --handler discard
    client "$PORT" send:1000000 end count
    local before after
    before=$(private_kib "$HARK_PID")
    client "$PORT" send:30000000 end count
    after=$(private_kib "$HARK_PID")
    at_most $((after - before)) 200 "KiB kept"
}

@test "discard: a reset is no end" {
    serve -v --handler discard
    client "$PORT" send:1000 reset
    wait_for_log ' reason=reset '
    run client "$PORT" send:1000 end count
    equal "$output" "0 eof"
}
