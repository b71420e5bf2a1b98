#!/usr/bin/env bats
# 500 MB through everything.
#
# shellcheck disable=SC2153 # variables of lib.bash

load ../lib

big() {
    head -c 500000000 /dev/urandom >"$T/big"
    sum=$(sha256sum <"$T/big")
}

# there_and_back: the file through $PORT with half-close, compared.
there_and_back() {
    need socat socat
    local got
    got=$(timeout 300 socat -t 100 - "TCP:127.0.0.1:$PORT" <"$T/big" | sha256sum)
    equal "$got" "$sum" "what came back"
}

@test "500 MB: through echo" {
    big
    serve -v
    there_and_back
    wait_for_log ' reason=eof in=500000000 out=500000000 '
}

@test "500 MB: through exec cat" {
    big
    serve --handler exec cat
    there_and_back
}

@test "500 MB: through forward" {
    big
    serve_target
    serve -v --handler forward "127.0.0.1:$TARGET_PORT"
    there_and_back
    wait_for_log ' reason=eof in=500000000 out=500000000 '
}

@test "500 MB: through forward to exec cat, over unix sockets" {
    big
    start_hark --unix "$T/s" --handler exec cat
    serve --handler forward "unix:$T/s"
    there_and_back
}

@test "500 MB: out of a file, and into a file" {
    need socat socat
    big
    serve --handler stdio --once <"$T/big" >/dev/null
    equal "$(timeout 300 socat -u "TCP:127.0.0.1:$PORT,shut-none" - </dev/null | sha256sum)" "$sum"
    HARK_TEST_DEADLINE=60 wait_for_exit
    equal "$STATUS" 0
    serve --handler stdio --once </dev/null >"$T/got"
    timeout 300 socat -u "$T/big" "TCP:127.0.0.1:$PORT"
    wait_for_exit
    equal "$STATUS" 0
    cmp "$T/big" "$T/got"
}

@test "500 MB: between two harks, one reading a pipe, one writing a pipe" {
    need nc netcat-openbsd
    big
    serve --handler stdio --once < <(cat "$T/big") > >(sha256sum >"$T/answer")
    # both ways at once, nc half-closes
    equal "$(timeout 300 nc -N 127.0.0.1 "$PORT" <"$T/big" | sha256sum)" "$sum"
    wait_for_exit
    equal "$STATUS" 0
    eventually test -s "$T/answer"
    equal "$(<"$T/answer")" "$sum"
}
