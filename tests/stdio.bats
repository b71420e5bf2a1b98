#!/usr/bin/env bats
# stdio: joins a connection with hark's own stdin and stdout.
#
# shellcheck disable=SC2034,SC2153,SC2154 # variables of lib.bash

load lib

# stdio_once OPTION...: one connection, stdin and stdout as the caller has them.
stdio_once() {
    serve --handler stdio --once "$@"
}

# ends_with STATUS
ends_with() {
    wait_for_exit
    equal "$STATUS" "$1" "the exit status"
}

@test "stdio: a file out" {
    head -c 3000000 /dev/urandom >"$T/in"
    stdio_once <"$T/in" >"$T/out"
    client "$PORT" end all >"$T/got"
    cmp "$T/in" "$T/got"
    ends_with 0
    [ ! -s "$T/out" ]
}

@test "stdio: a file in" {
    stdio_once -v </dev/null >"$T/out"
    head -c 3000000 /dev/urandom >"$T/in"
    run client "$PORT" send:3000000 end count
    equal "$output" "0 eof"
    ends_with 0
    equal "$(stat -c %s "$T/out")" 3000000 "the size"
    grep -q ' in=3000000 out=0 ' "$LOG"
}

@test "stdio: both ways at once, each with its own end" {
    head -c 2000000 /dev/urandom >"$T/in"
    stdio_once <"$T/in" >"$T/out"
    spawn_client peer --seed 5 "$PORT" send:10 all
    # the end of stdin is not ours
    eventually has_size "$T/peer" 2000000
    cmp "$T/in" "$T/peer"
    finish peer
    ends_with 0
    equal "$(stat -c %s "$T/out")" 10 "the size"

    # and the other way round: the client's end does not end what goes to it
    mkfifo "$T/fifo"
    exec 5<>"$T/fifo"
    stdio_once <"$T/fifo" >"$T/out"
    spawn_client peer "$PORT" text:first end line all
    eventually grep -q first "$T/out"
    printf 'late\nand later' >&5
    wait_for_line peer late
    exec 5>&-
    finish peer
    equal "$(output_of peer)" $'late\nand later'
    ends_with 0
}

has_size() {
    [ "$(stat -c %s "$1")" -eq "$2" ]
}

@test "stdio: any bytes, in pipes" {
    head -c 300000 /dev/urandom >"$T/bytes"
    stdio_once < <(cat "$T/bytes") > >(cat >"$T/out")
    client "$PORT" "send:300000" end all >"$T/got"
    cmp "$T/bytes" "$T/got"
    ends_with 0
    eventually has_size "$T/out" 300000
    python -c 'import random, sys; r = random.Random(1); d = b"".join(r.randbytes(65536) for _ in range(5))
sys.exit(open(sys.argv[1], "rb").read() != d[:300000])' "$T/out"
}

@test "stdio: stdin is not read before there is a connection" {
    mkfifo "$T/fifo"
    exec 5<>"$T/fifo"
    serve --handler stdio <"$T/fifo"
    echo kept >&5
    client "$PORT" say:connected line reset >"$T/peer" # so that it has been running for a while
    grep -qx kept "$T/peer"
    wait_for_log '^hark: listen '
    stop_hark
    serve --handler stdio <"$T/fifo"
    echo "kept again" >&5
    stop_hark
    read -rt 5 line <&5
    exec 5>&-
    equal "$line" "kept again"
}

@test "stdio: stdin and stdout stay as they were: others share them" {
    mkfifo "$T/fifo"
    exec 5<>"$T/fifo" 6<>"$T/fifo"
    serve --handler stdio <&5 >&6
    spawn_client peer "$PORT" text:x say:sent hold:"$T/go" end count
    wait_for_line peer sent
    equal $((8#$(awk '/flags/ { print $2 }' "/proc/$HARK_PID/fdinfo/0") & 8#4000)) 0 "O_NONBLOCK of stdin"
    equal $((8#$(awk '/flags/ { print $2 }' "/proc/$HARK_PID/fdinfo/1") & 8#4000)) 0 "O_NONBLOCK of stdout"
    stop_hark QUIT
    exec 5>&- 6>&-
}

@test "stdio: --once serves one, and refuses the others from then on" {
    mkfifo "$T/fifo"
    exec 5<>"$T/fifo"
    stdio_once <"$T/fifo" >"$T/out"
    spawn_client peer "$PORT" text:hello end all
    eventually grep -q hello "$T/out"
    run client "$PORT" count
    equal "$output" refused
    exec 5>&-
    finish peer
    ends_with 0
}

@test "stdio: without --once the next is served when the one before has ended" {
    mkfifo "$T/fifo"
    exec 5<>"$T/fifo"
    serve -v --handler stdio --recv-only >"$T/out"
    spawn_client first "$PORT" text:one hold:"$T/go" text:two end count
    eventually grep -q one "$T/out"
    spawn_client second "$PORT" text:three end count
    spawn_client third "$PORT" say:connected
    wait_for_line third connected # it waits in the backlog, and so does the second
    equal "$(grep -c accept "$LOG")" 1
    touch "$T/go"
    finish first
    finish second
    wait_for_log '^hark: close id=2 '
    equal "$(<"$T/out")" onetwothree
    stop_hark
}

@test "stdio: --recv-only never reads stdin, and ends with the peer" {
    mkfifo "$T/fifo"
    exec 5<>"$T/fifo"
    echo unread >&5
    stdio_once --recv-only <&5 >"$T/out"
    run client "$PORT" text:hello end count
    equal "$output" "0 eof"
    ends_with 0
    equal "$(<"$T/out")" hello
    read -rt 5 line <&5
    equal "$line" unread
    exec 5>&-
}

only_receives() {
    spawn_client peer "$PORT" text:early hold:"$T/go" open text:late end count
    eventually grep -q early "$T/out"
    touch "$T/go"
    finish peer
    equal "$(output_of peer)" "0 eof"
    ends_with 0
    equal "$(<"$T/out")" earlylate
}

@test "stdio: a closed stdin means --recv-only" {
    without_valgrind "its log takes the place of what is closed"
    stdio_once <&- >"$T/out"
    only_receives
}

@test "stdio: /dev/null as stdin means --recv-only" {
    stdio_once </dev/null >"$T/out"
    only_receives
}

@test "stdio: --send-only drops what comes, and ends with stdin" {
    stdio_once --send-only < <(printf 'the answer') >"$T/out"
    # the client does not end by itself
    run client "$PORT" send:300000 all
    equal "$output" "the answer"
    ends_with 0
    [ ! -s "$T/out" ]
}

@test "stdio: a stdout that cannot be written ends hark with 1" {
    stdio_once </dev/null >/dev/full
    client "$PORT" text:hello count || true
    ends_with 1
    wait_for_log '^hark: error: .*No space left on device'

    serve --handler stdio > >(exec true)
    spawn_client writer "$PORT" fill:5
    ends_with 1
    wait_for_log '^hark: error: .*Broken pipe'
}

@test "stdio: a reader of stdout that stops, stops the client" {
    mkfifo "$T/fifo"
    exec 5<>"$T/fifo"
    stdio_once --max-buffer-size 64k </dev/null >"$T/fifo"
    spawn_client writer "$PORT" fill:1 end count
    wait_for_line writer '^filled '
    local filled
    filled=$(sed -n 's/^filled //p' "$T/writer")
    at_most "$filled" 12000000 "the bytes taken"
    exec 6<"$T/fifo" 5>&-
    equal "$(timeout "$DEADLINE" cat <&6 | wc -c)" "$filled" "the bytes that arrive"
    exec 6<&-
    finish writer
    ends_with 0
}

@test "stdio: with --once, reset is exit status 1" {
    mkfifo "$T/fifo"
    exec 5<>"$T/fifo"
    stdio_once <"$T/fifo" >"$T/out"
    spawn_client peer "$PORT" text:hello hold:"$T/go" reset
    eventually grep -q hello "$T/out"
    touch "$T/go"
    finish peer
    ends_with 1
    exec 5>&-
}

@test "stdio: with --once, TERM before the end is exit status 1" {
    stdio_once </dev/null
    stop_hark TERM 1
}

@test "stdio: --once counts a connection that reached its handler, for every handler" {
    serve --once -v
    run client "$PORT" exchange:100000
    equal "$output" "same 100000 eof"
    ends_with 0
    serve --once --handler exec sh -c 'exit 3'
    client "$PORT" count
    ends_with 1
    serve --once --handler exec true
    client "$PORT" count
    ends_with 0
    serve --once
    client "$PORT" text:x reset
    ends_with 1
}

# in_terminal FILE WORD...: runs a shell command line on a terminal of its own, whose output goes to FILE; TERMINAL is its process.
in_terminal() {
    local file=$1
    shift
    mkfifo "$T/keyboard" 2>/dev/null || true
    exec 4<>"$T/keyboard"
    HARK_TEST_MARK=$MARK timeout "$DEADLINE" script -qefc "$*" /dev/null <&4 >"$file" 3>&- 4>&- 5>&- 6>&- &
    background[terminal]=$!
}

@test "stdio: a terminal on stdin does not hold a connection whose peer has ended" {
    in_terminal "$T/screen" "'$HARK' -b 127.0.0.1 -p 0 -H stdio --once --ready-fd 9 9>'$T/where'; echo status=\$?"
    eventually has_line "$T/where" '^127'
    read -r _ PORT <"$T/where"
    run client "$PORT" 'text:hello\n' end all
    equal "$output" ""
    wait_for_line screen 'status=0'
    grep -q hello "$T/screen"
    exec 4>&-
}

@test "stdio: progress on a terminal, when there is a file" {
    head -c 1000000 /dev/zero >"$T/in"
    in_terminal "$T/screen" "'$HARK' -b 127.0.0.1 -p 0 -H stdio --once --ready-fd 9 9>'$T/where' <'$T/in' >'$T/out'; echo status=\$?"
    eventually has_line "$T/where" '^127'
    read -r _ PORT <"$T/where"
    spawn_client peer --rcvbuf 4096 "$PORT" slow:1000:0.05 text:abc hold:"$T/go" slow:65536:0 end count
    wait_for_line screen '[0-9.]+ [BKM], [0-9.]+ [BKM]/s, [0-9]+ %, [0-9]+:[0-9][0-9] left'
    touch "$T/go"
    finish peer
    equal "$(output_of peer)" "1000000 eof"
    wait_for_line screen 'status=0'
    exec 4>&-
}
