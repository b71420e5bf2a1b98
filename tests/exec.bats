#!/usr/bin/env bats
# exec: a program for each connection, whose stdin and stdout the connection is.
#
# shellcheck disable=SC2016,SC2034 # the dollar signs of programs; WRAPPER is for lib.bash

load lib

@test "exec: stdin and stdout are the connection" {
    serve -v --handler exec cat
    run client "$PORT" exchange:3000000
    equal "$output" "same 3000000 eof"
    wait_for_log '^hark: close id=1 peer=127\.0\.0\.1:[0-9]+ reason=child .*seconds=[0-9.]+ status=0( |$)'
    stop_hark
}

@test "exec: arguments reach the program as they are, options too" {
    serve --handler exec printf '[%s]' -v --port "a b" '' '*'
    run client "$PORT" all
    equal "$output" '[-v][--port][a b][][*]'
}

@test "exec: the child has the socket itself, blocking, and nothing else" {
    without_valgrind "it opens its log anew in a child"
    exec 7</dev/null 8>"$T/other"
    serve --handler exec sh -c 'readlink /proc/$$/fd/0 /proc/$$/fd/1; ls /proc/$$/fd
        grep flags /proc/$$/fdinfo/0; readlink /proc/$$/fd/2'
    run client "$PORT" all
    exec 7<&- 8>&-
    match "${lines[0]}" '^socket:'
    equal "${lines[1]}" "${lines[0]}"
    equal "${lines[*]:2:3}" "0 1 2" "what is open"
    match "${lines[5]}" 'flags:.*[0-7]$'
    equal "$((8#$(awk '{ print $2 }' <<<"${lines[5]}") & 8#4000))" 0 O_NONBLOCK
    match "${lines[6]}" '^pipe:'
    equal "${#lines[@]}" 7
}

# With many descriptors open, hark shares its table with the child at first.
with_many_descriptors() {
    local i fd
    for i in $(seq 400); do
        exec {fd}</dev/null
    done
    serve "$@"
    for ((; fd > 9; fd--)); do
        exec {fd}<&-
    done
    [ "$(descriptors "$HARK_PID")" -gt 400 ]
}

@test "exec: the same with 400 descriptors open in hark" {
    without_valgrind "it knows no clone with CLONE_FILES"
    with_many_descriptors -v --handler exec sh -c 'ls /proc/$$/fd; echo err >&2; cat'
    local before
    before=$(descriptors "$HARK_PID")
    run client "$PORT" 'text:more' end all
    equal "$output" $'0\n1\n2\nmore'
    wait_for_log 'stderr id=1 text=err$'
    client "$PORT" reset
    run crowd "$PORT" parallel 20 10
    wait_for_log '^hark: close ' 22
    eventually has_descriptors "$HARK_PID" "$before"
}

@test "exec: signals are as a program expects them, whatever hark was started with" {
    serve_ignoring() {
        trap '' PIPE INT USR1 TERM CHLD
        serve "$@"
        trap - PIPE INT USR1 TERM CHLD
    }
    serve_ignoring --handler exec cat /proc/self/status
    run client "$PORT" all
    output=$(grep -E '^Sig(Blk|Ign|Cgt)' <<<"$output")
    local zero=0000000000000000
    equal "$output" $'SigBlk:\t'$zero$'\nSigIgn:\t'$zero$'\nSigCgt:\t'$zero
}

@test "exec: each child leads a process group of its own, and gets TERM when hark dies" {
    need ps procps
    serve --handler exec sh -c 'echo "$(ps -o pgid= -p $$)" $$; exec sleep 1000'
    spawn_client one "$PORT" line hold:"$T/go"
    wait_for_line one '[0-9]'
    local pgid pid
    read -r pgid pid < <(output_of one)
    equal "$pgid" "$pid" "the process group"
    kill -KILL "$HARK_PID"
    eventually is_gone "$pid"
    touch "$T/go"
}

@test "exec: the environment tells who is connected to what" {
    without_valgrind "its own variables are inherited"
    WRAPPER=(env -i PATH="$PATH" KEPT=yes PROTO=OLD TCPREMOTEIP=old TCPREMOTEHOST=old TCPREMOTEINFO=old REMOTE_ADDR=old REMOTE_PORT=1
        SSL_CLIENT_CERT=old SSLLOCALIP=old UNIXREMOTEPID=1 LISTEN_FDS=1 LISTEN_PID=1 LISTEN_FDNAMES=x NOTIFY_SOCKET=/x WATCHDOG_PID=1
        WATCHDOG_USEC=1 HARK_ID=99 REMOTE_HOST=old SSL_PROTOCOL=old)
    serve -v --handler exec env
    run client "$PORT" all
    local remote
    remote=$(sed -n 's/.*accept id=1 peer=127\.0\.0\.1:\([0-9]*\) .*/\1/p' "$LOG")
    local expected="HARK_ID=1
KEPT=yes
PATH=$PATH
PROTO=TCP
REMOTE_ADDR=127.0.0.1
REMOTE_PORT=$remote
TCPLOCALIP=127.0.0.1
TCPLOCALPORT=$PORT
TCPREMOTEIP=127.0.0.1
TCPREMOTEPORT=$remote"
    equal "$(grep -v '^TCPCONNNUM=1$' <<<"$output" | sort)" "$expected" "the environment"
}

@test "exec: the environment of a wildcard, IPv6 and unix listener" {
    [ -e /proc/net/if_inet6 ] || skip "no IPv6 here"
    start_hark --bind ::1 --port 0 --bind 0.0.0.0 --unix "$T/s" --handler exec env
    run client "[::1]:$PORT" all
    grep -qx "TCPLOCALIP=::1" <<<"$output"
    grep -qx "TCPREMOTEIP=::1" <<<"$output"
    grep -qx "REMOTE_ADDR=::1" <<<"$output"
    run client "127.0.0.2:$PORT" all
    grep -qx "TCPLOCALIP=127.0.0.2" <<<"$output"
    run client "unix:$T/s" all
    grep -qx "PROTO=UNIX" <<<"$output"
    grep -qx "HARK_ID=3" <<<"$output"
    refute grep -qE '^(TCPLOCAL|TCPREMOTE|REMOTE_)' <<<"$output"
}

@test "exec: the child has the descriptor limit that hark was started with" {
    without_valgrind "it keeps limits to itself"
    limited() {
        ulimit -Sn 300
        serve "$@"
    }
    limited --handler exec sh -c 'ulimit -Sn; ulimit -Hn'
    run client "$PORT" all
    equal "${lines[0]}" 300 "the child's soft limit"
    equal "${lines[1]}" "$(ulimit -Hn)" "the child's hard limit"
    equal "$(awk '/^Max open files/ { print $4 }' "/proc/$HARK_PID/limits")" "$(ulimit -Hn)" "hark's own soft limit"
}

@test "exec: standard error becomes log lines, the last one too, before the close line" {
    serve -v --handler exec sh -c 'printf "one\ntwo\r\n\nlast" >&2; echo out'
    run client "$PORT" all
    equal "$output" out
    wait_for_log '^hark: close '
    equal "$(grep -v -e accept -e listen "$LOG" | sed 's/ peer=.*//')" 'hark: stderr id=1 text=one
hark: stderr id=1 text=two
hark: stderr id=1 text=""
hark: stderr id=1 text=last
hark: close id=1'
}

@test "exec: a line without an end is cut into pieces, and nothing of it is lost" {
    serve -v --handler exec sh -c 'head -c 10000 /dev/zero | tr "\0" x >&2'
    client "$PORT" all
    wait_for_log '^hark: close '
    equal "$(sed -n 's/.* text=//p' "$LOG" | tr -d '\n' | wc -c)" 10000 "the number of bytes"
    equal "$(sed -n 's/.* text=//p' "$LOG" | tr -d 'x\n')" ""
}

bytes_that_are_escaped() { # OPTION...
    serve -v "$@" --handler exec python3 -SEc 'import os, sys
for piece in b"\1" * 4000, b"\2" * 4000 + b"\n", b"\3" * 8000 + b"\n":
    os.write(2, piece)
    if not piece.endswith(b"\n"): sys.stdin.read()'
    client "$PORT" end all
    wait_for_log close
    local number
    for number in 1 2; do
        equal "$(grep -oE "(u00|x)0$number" "$LOG" | wc -l)" 4000 "how often byte $number is there"
    done
    equal "$(grep -oE "(u00|x)03" "$LOG" | wc -l)" 8000 "how often byte 3 is there"
}

@test "exec: nothing of long lines is lost, in pieces or whole, of bytes that have to be escaped" {
    bytes_that_are_escaped
    bytes_that_are_escaped --log-format json
}

@test "exec: how the program ended is logged" {
    serve -v --handler exec sh -c 'read -r how; eval "$how"'
    client "$PORT" 'text:exit 3\n' all
    client "$PORT" 'text:kill -SEGV $$\n' all
    wait_for_log '^hark: close id=1 .* reason=child .* status=3( |$)'
    wait_for_log '^hark: close id=2 .* reason=child .* signal=11( |$)'
}

@test "exec: background processes do not hold the connection" {
    serve -v --handler exec sh -c 'sleep 1000 & echo started'
    run client "$PORT" all
    equal "$output" started
    wait_for_log '^hark: close id=1 .* reason=(child|eof|finished) '
}

@test "exec: input that the program does not read does not destroy its answer" {
    serve --handler exec printf 'the answer\n'
    local i
    for i in 1 2 3 4 5; do
        run client "$PORT" text:GET send:30000 all
        equal "$output" "the answer" "answer $i"
    done
}

@test "exec: what the client goes on sending after the program's end does not destroy the answer" {
    serve -v --handler exec sh -c 'echo "the answer"; echo bye >&2'
    spawn_client peer "$PORT" send:1000 hold:"$T/go" send:100000 all
    wait_for_log 'text=bye$'
    eventually no_children "$HARK_PID"
    touch "$T/go"
    finish peer
    equal "$(output_of peer)" "the answer"
}

@test "exec: 100 of 100 curls get a canned answer" {
    need curl curl
    serve --handler exec printf 'HTTP/1.0 200 OK\r\n\r\nhi\n'
    run curl -sS --max-time 50 --fail "http://127.0.0.1:$PORT/[1-100]"
    equal "$status" 0 "curl's status"
    equal "$(grep -cx hi <<<"$output")" 100 "the number of answers"
}

@test "exec: a client that goes on sending after the program has ended is dropped after 2 s, without harm to the answer" {
    serve -v --handler exec echo 'done'
    run client "$PORT" line fill:3
    equal "${lines[0]}" 'done'
    match "$output" 'fill:3: .*(reset|Broken pipe)'
    wait_for_log ' reason=child '
}

@test "exec: an end of input is no more than that" {
    serve -v --handler exec sh -c 'cat >/dev/null; sleep 0.7; echo late'
    run client "$PORT" 'text:x' end all
    equal "$output" late
    wait_for_log ' status=0( |$)'
}

@test "exec: a shell script answers line by line" {
    printf '#!/bin/sh\nwhile read -r name; do echo "hello $name"; done\n' >"$T/script"
    chmod +x "$T/script"
    serve --handler exec "$T/script"
    run client "$PORT" 'text:a\n' line 'text:b\n' line end all
    equal "$output" $'hello a\nhello b'
    run crowd "$PORT" ask 30
    equal "$output" "done 30"
}

@test "exec: the program is looked up at start; one that vanishes is an error at the connection, and hark goes on" {
    without_valgrind "its vfork is a fork: the child cannot tell us"
    printf '#!/bin/sh\necho here\n' >"$T/program"
    chmod +x "$T/program"
    serve -v --handler exec "$T/program"
    mv "$T/program" "$T/away"
    run client "$PORT" count
    match "$output" '^0 '
    wait_for_log "^hark: error: cannot run \"$T/program\": No such file or directory\$"
    wait_for_log '^hark: close id=1 .* reason=error '
    mv "$T/away" "$T/program"
    run client "$PORT" all
    equal "$output" here
    equal "$(zombies "$HARK_PID")" 0 zombies
}

@test "exec: open to everyone is warned about, once, unless it is said" {
    start_hark --port 0 --handler exec cat
    equal "$(grep -c '^hark: warning: ' "$LOG")" 1 "the number of warnings"
    start_hark --port 0 --bind 0.0.0.0 --bind :: --handler exec cat
    equal "$(grep -c warning "$LOG")" 0 "the number of warnings"
    start_hark --port 0 --handler echo
    equal "$(grep -c warning "$LOG")" 0 "the number of warnings"
    start_hark --unix "$T/s" --handler exec cat
    equal "$(grep -c warning "$LOG")" 0 "the number of warnings"
}

@test "exec: a child that stays when its client has reset gets TERM, and as long after that KILL" {
    serve -v --kill-after 1s --handler exec sh -c 'if [ "$HARK_ID" = 1 ]; then trap "" TERM; fi; echo ready; sleep 1000 & wait; sleep 1000'
    client "$PORT" line reset
    client "$PORT" line reset
    wait_for_log '^hark: close id=2 .* reason=reset .* signal=15( |$)'
    wait_for_log '^hark: close id=1 .* reason=reset .* signal=9( |$)'
    local seconds
    seconds=$(sed -n 's/.*close id=2 .* seconds=\([0-9]*\)\..*/\1/p' "$LOG")
    ((seconds >= 1)) || fail "TERM came after $seconds s"
    seconds=$(sed -n 's/.*close id=1 .* seconds=\([0-9]*\)\..*/\1/p' "$LOG")
    ((seconds >= 2)) || fail "KILL came after $seconds s"
    eventually none_marked sleep # the whole group
}

@test "exec: children leave no zombies, descriptors or memory behind" {
    serve -v --handler exec true
    crowd "$PORT" reset 20
    local before
    crowd "$PORT" gather 1 0
    wait_for_log '^hark: close ' 21
    eventually no_children "$HARK_PID"
    before=$(descriptors "$HARK_PID")
    crowd "$PORT" gather 40 0
    eventually no_children "$HARK_PID"
    eventually has_descriptors "$HARK_PID" "$before"
}
