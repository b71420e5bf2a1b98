#!/usr/bin/env bats
# echo: sends back what it gets.

load lib

@test "echo: everything comes back, and the end does" {
    serve -v
    run client "$PORT" exchange:3000000
    equal "$output" "same 3000000 eof"
    wait_for_log '^hark: close id=1 peer=127\.0\.0\.1:[0-9]+ reason=eof in=3000000 out=3000000 seconds=[0-9]+\.[0-9]{3}$'
    stop_hark
}

@test "echo: a client that says nothing and ends sees the end" {
    serve -v
    run client "$PORT" end same
    equal "$output" "same 0 eof"
    wait_for_log ' reason=eof in=0 out=0 '
}

@test "echo: is the default, and has a name" {
    serve
    grep -q ' handler=echo ' "$LOG"
    serve --handler echo
    run client "$PORT" echo:10 end same
    equal "$output" "same 10 eof"
}

@test "echo: bytes come back as they come, without waiting for more" {
    serve
    run client "$PORT" 'text:a' recv:0 'text:\n' line 'text:\x00\xff\r\x1b\n' line
    equal "$(printf '%s' "$output" | od -An -c | tr -d ' \n')" 'a\n377\r033'
}

@test "echo: twenty at once each get their own" {
    serve
    run crowd "$PORT" parallel 20 200000
    equal "$output" "done 20"
}

@test "echo: over IPv6" {
    [ -e /proc/net/if_inet6 ] || skip "no IPv6 here"
    start_hark --bind ::1 --port 0
    run client "[::1]:$PORT" exchange:100000
    equal "$output" "same 100000 eof"
}

@test "echo: over a unix socket" {
    start_hark --unix "$T/s"
    run client "unix:$T/s" exchange:1000000
    equal "$output" "same 1000000 eof"
}

@test "echo: one that reads slowly gets everything" {
    serve --max-buffer-size 64k
    run client --rcvbuf 4096 "$PORT" slow:20000:0.01 exchange:600000
    equal "$output" "same 600000 eof"
}

@test "echo: with the smallest buffer" {
    serve --max-buffer-size 1k
    run client "$PORT" exchange:1000000
    equal "$output" "same 1000000 eof"
}

@test "echo: those who never read, reset or vanish cost nobody anything" {
    serve -v
    client "$PORT" echo:10 # what is made once is there
    wait_for_log '^hark: close id=1 '
    local before
    before=$(descriptors "$HARK_PID")
    spawn_client stuck "$PORT" fill:0.3 say:full hold:"$T/go"
    wait_for_line stuck full
    client "$PORT" send:100000 reset
    client "$PORT" send:100 close
    run client "$PORT" exchange:1000000
    equal "$output" "same 1000000 eof"
    wait_for_log ' reason=reset '
    touch "$T/go"
    finish stuck
    wait_for_log 'close ' 5
    still_has() { [ "$(descriptors "$HARK_PID")" -le $((before + 4)) ]; } # two pipes for bulk are kept
    eventually still_has
}
