#!/usr/bin/env bats
# What ncat and socat were seen to do wrong, row by row, and what hark does instead. The numbers are those of the table in the list of
# weaknesses that this project started from; those that are missing are about features that hark does not have.
#
# shellcheck disable=SC2016,SC2030,SC2031,SC2034,SC2153,SC2154 # dollar signs of others; variables of lib.bash

load lib

@test "row 1: a client that sends 8 bytes and ends at once gets all of it back" {
    serve
    run client "$PORT" exchange:8
    equal "$output" "same 8 eof"
    serve --handler exec /bin/cat
    run client "$PORT" exchange:8
    equal "$output" "same 8 eof"
    run client "$PORT" exchange:1000000
    equal "$output" "same 1000000 eof"
}

@test "row 1: with ncat, socat and nc as clients" {
    need ncat ncat
    need socat socat
    need nc netcat-openbsd
    serve --handler exec /bin/cat
    equal "$(printf 12345678 | timeout "$DEADLINE" ncat 127.0.0.1 "$PORT")" 12345678 ncat
    equal "$(printf 12345678 | timeout "$DEADLINE" socat -t 20 - "TCP:127.0.0.1:$PORT")" 12345678 socat
    equal "$(printf 12345678 | timeout "$DEADLINE" nc -N 127.0.0.1 "$PORT")" 12345678 nc
}

@test "row 2: sort gets its input's end, and its answer arrives" {
    serve --handler exec sort
    run client "$PORT" 'text:b\na\n' end all
    equal "$output" $'a\nb'
}

@test "row 3: an answer that comes a second after the client's end arrives" {
    serve --handler exec sh -c 'cat >/dev/null; sleep 1; echo response'
    run client "$PORT" text:request end all
    equal "$output" response
}

@test "row 4: the same over TLS" {
    serve --ssl-self-signed --handler exec sort
    run client --tls "$PORT" 'text:b\na\n' end all
    equal "$output" $'a\nb'
    serve --ssl-self-signed --handler exec sh -c 'cat >/dev/null; sleep 1; echo response'
    run client --tls "$PORT" text:request end all
    equal "$output" response
}

@test "row 5: a child whose output is larger than its input does not lock up" {
    serve --handler exec od -An -v -tx1
    # 2 MB in, 6 MB out, read all the time
    run python -c 'import socket, sys, threading
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.settimeout(30)
def send():
    s.sendall(b"\xff" * 2000000)
    s.shutdown(socket.SHUT_WR)
t = threading.Thread(target=send)
t.start()
n = 0
while True:
    d = s.recv(65536)
    if not d:
        break
    n += len(d) - d.count(b"\n")
t.join()
print(n)' "$PORT"
    equal "$output" 6000000
}

@test "row 6: what a child writes right before it exits arrives: 20 kB, 100 times" {
    serve --max-connections 100 --handler exec sh -c 'exec head -c 20000 /dev/zero'
    run crowd "$PORT" gather 100 20000
    equal "$output" "done 100"
}

@test "row 7: what a child writes right before it exits arrives over TLS: 60 kB, 30 times" {
    serve --ssl-self-signed --handler exec head -c 60000 /dev/zero
    local i
    for i in {1..30}; do
        client --tls "$PORT" count
    done >"$T/counts"
    equal "$(sort "$T/counts" | uniq -c)" "$(printf '%7d 60000 eof' 30)"
}

@test "row 8: the same with 1 MB, 30 times" {
    serve --handler exec head -c 1000000 /dev/zero
    run crowd "$PORT" gather 30 1000000
    equal "$output" "done 30"
}

@test "row 9: a child that exits 1 after 3 MB loses none of it to a slow reader" {
    serve -v --handler exec sh -c 'head -c 3000000 /dev/zero; exit 1'
    run client --rcvbuf 16384 "$PORT" slow:65536:0.002 count
    equal "$output" "3000000 eof"
    wait_for_log ' reason=child .* status=1( |$)'
}

@test "row 10: a child that closes its input and answers a second later, while the client sends" {
    serve --handler exec sh -c 'exec <&-; sleep 1; echo answer'
    run client "$PORT" send:300000 all
    equal "$output" answer
    run client "$PORT" send:1000 end all
    equal "$output" answer
}

@test "row 11: a time limit ends the idle client, not the server" {
    serve -v --idle-timeout 300ms
    run client "$PORT" count
    wait_for_log ' reason=timeout '
    crowd "$PORT" serial 3
    stop_hark
}

@test "row 12: with a program, too, and no orphan keeps the port" {
    local io
    for io in socket pipe; do
        serve -v --idle-timeout 300ms --kill-after 100ms --exec-io $io --handler exec cat
        run client "$PORT" count
        wait_for_log ' reason=timeout '
        client "$PORT" exchange:1000
        stop_hark
        eventually none_marked cat
        run client "$PORT" end
        equal "$output" refused
    done
}

@test "row 13: two silent clients at a limit of two do not keep the third out for ever" {
    serve -v --max-connections 2 --idle-timeout 500ms
    spawn_client a "$PORT" count
    spawn_client b "$PORT" count
    wait_for_log '^hark: accept ' 2
    client "$PORT" exchange:1000
    # over TLS, where they never come as far as being idle
    serve -v --max-connections 2 --handshake-timeout 500ms --ssl-self-signed
    spawn_client a "$PORT" say:connected count
    spawn_client b "$PORT" say:connected count
    wait_for_line a connected
    wait_for_line b connected
    client --tls "$PORT" exchange:1000
    wait_for_log '^hark: reject .* reason=handshake' 2
}

@test "row 13: two silent clients on a TLS port do not keep the third out for longer than the handshake may take" {
    local limit=500ms
    [ -z "${HARK_VALGRIND:-}" ] || limit=5s # as long as the third's own may take there
    serve -v --ssl-self-signed --max-connections 2 --handshake-timeout "$limit"
    spawn_client a "$PORT" say:here count
    spawn_client b "$PORT" say:here count
    wait_for_line a here
    wait_for_line b here
    run client --tls "$PORT" exchange:1000
    equal "$output" "same 1000 eof"
    finish a
    finish b
    equal "$(grep -c '^hark: reject .* reason=handshake ' "$LOG")" 2
}

@test "row 14: out of descriptors: no spin, and everybody is served in the end" {
    without_valgrind "it has descriptors of its own below the limit"
    WRAPPER=(bash -c 'ulimit -n 20; exec "$@"' bash)
    local limit
    for limit in '' '--max-connections 0'; do
        # shellcheck disable=SC2086
        serve $limit
        spawn_client first "$PORT" echo:10 say:served hold:"$T/go" end same
        wait_for_line first served
        spawn_crowd crowd "$PORT" burst 20 10 "$T/go"
        wait_for_line crowd '^connected 20$'
        local before after
        before=$(cpu_ticks "$HARK_PID")
        sleep 1 # what is measured is the time in which nothing is to happen
        after=$(cpu_ticks "$HARK_PID")
        at_most $((after - before)) 10 "ticks of CPU in a second without descriptors"
        touch "$T/go"
        finish crowd
        finish first
        eventually crowd "$PORT" serial 30
        rm "$T/go"
    done
}

@test "row 15: 1100 connections at once" {
    [ "$(ulimit -Hn)" -ge 1300 ] || skip "too few descriptors: $(ulimit -Hn)"
    serve --max-connections 2000
    spawn_crowd crowd "$PORT" hold 1100 100 "$T/go"
    wait_for_line crowd '^held 1100$'
    client "$PORT" exchange:100000
    touch "$T/go"
    finish crowd
    has_line "$T/crowd" '^done 1100$'
    stop_hark
}

@test "row 16: nobody of a burst of 60 waits for a retransmission" {
    serve
    kill -STOP "$HARK_PID" # so that only the backlog can take them
    spawn_crowd burst "$PORT" burst 60 10 "$T/go"
    wait_for_line burst '^connected 60$'
    kill -CONT "$HARK_PID"
    touch "$T/go"
    finish burst
}

@test "row 18: a child has its connection and nothing else, and SIGPIPE is what it is" {
    # a program that writes to nobody dies of it
    serve -v --handler exec yes
    client "$PORT" recv:0 line reset
    wait_for_log ' (signal=13|status=1)( |$)'
    without_valgrind "it opens its log anew in a child"
    serve --handler exec sh -c 'ls /proc/$$/fd; grep SigIgn /proc/$$/status'
    spawn_client other "$PORT" hold:"$T/go"
    run client "$PORT" all
    equal "$(xargs <<<"$output")" "0 1 2 SigIgn: 0000000000000000"
    touch "$T/go"
}

@test "row 19: children whose clients are gone do not stay" {
    serve -v --kill-after 500ms --handler exec sleep 1000
    local i
    for i in 1 2 3 4 5; do
        client "$PORT" text:x reset
    done
    wait_for_log '^hark: accept ' 5
    wait_for_log '^hark: close id=[1-5] .* reason=reset .* signal=15( |$)' 5
    eventually none_marked sleep
    eventually no_children "$HARK_PID"
}

@test "row 20: TERM: sessions end as they like, the port is refused meanwhile, a restart works, nobody else is signalled" {
    spawn script bash -c 'trap "echo signalled; exit 1" TERM HUP
        "$HARK" -b 127.0.0.1 -p 0 --ready-fd 9 9>"$1/ready" --handler exec cat & echo "$!"; wait; wait; echo script-went-on' script "$T"
    eventually has_line "$T/ready" '^127'
    read -r _ PORT <"$T/ready"
    wait_for_line script '^[0-9]+$'
    spawn_client peer "$PORT" echo:10 say:held hold:"$T/go" echo:10 end same
    wait_for_line peer held
    kill -TERM "$(head -n 1 "$T/script")"
    eventually refuses
    start_hark --bind 127.0.0.1 --port "$PORT"
    client "$PORT" echo:10
    touch "$T/go"
    finish peer
    has_line "$T/peer" '^same 20 eof$'
    wait_for_line script '^script-went-on$'
    refute grep -q signalled "$T/script"
}

refuses() {
    [ "$(client --timeout 1 "$PORT" end)" = refused ]
}

@test "row 21: localhost is every address of localhost" {
    [ -e /proc/net/if_inet6 ] || skip "no IPv6 here"
    printf '127.0.0.1 localhost\n::1 localhost\n' >"$T/hosts"
    permitted unshare -m mount --bind "$T/hosts" /etc/hosts
    WRAPPER=(unshare -m sh -c "mount --bind '$T/hosts' /etc/hosts && exec \"\$@\"" sh)
    start_hark --bind localhost --port 0
    client "127.0.0.1:$PORT" echo:10
    client "[::1]:$PORT" echo:10
}

@test "row 22: a stdin that has ended does not end every client" {
    serve --handler stdio </dev/null >"$T/out"
    spawn_client peer "$PORT" text:first hold:"$T/go" open end count
    eventually grep -q first "$T/out"
    touch "$T/go"
    finish peer
    equal "$(output_of peer)" "0 eof"
    run client "$PORT" text:second end count
    equal "$output" "0 eof"
    stop_hark
    equal "$(<"$T/out")" firstsecond
}

@test "row 23: TLS: the end of stdin is a close_notify" {
    local how
    for how in "" --send-only; do
        # shellcheck disable=SC2086
        start_hark --bind 127.0.0.1 --port 0 --ssl-self-signed --handler stdio --once $how <<<hello
        run client --tls "$PORT" line count end
        equal "$output" $'hello\n0 eof'
        wait_for_exit
        equal "$STATUS" 0 "the exit status"
    done
}

@test "row 24: TLS: the end of a program is a close_notify, in both versions" {
    serve --ssl-self-signed --handler exec echo hello
    local version
    for version in 1.2 1.3; do
        run client --tls --version "$version" "$PORT" line count
        equal "$output" $'hello\n0 eof'
    done
}

fifty_idle() { # KIB OPTION...
    local kib=$1 kind='' before
    shift
    [ $# -eq 0 ] || kind=tls:
    serve "$@"
    crowd "$kind$PORT" serial 5
    before=$(private_kib "$HARK_PID")
    spawn_crowd "crowd$kib" "$kind$PORT" hold 50 1000 "$T/go$kib"
    wait_for_line "crowd$kib" '^held 50$'
    at_most $(($(private_kib "$HARK_PID") - before)) "$kib" "KiB for 50 connections"
    no_children "$HARK_PID"
    touch "$T/go$kib"
    finish "crowd$kib"
}

@test "row 25: 50 idle connections cost one process, and little memory, over TLS, too" {
    without_sanitizers
    fifty_idle 100
    fifty_idle 1000 --ssl-self-signed
}

@test "row 26: 20 forwarded connections take no process either" {
    without_sanitizers
    serve_target
    serve --handler forward "127.0.0.1:$TARGET_PORT"
    crowd "$PORT" serial 5
    local before
    before=$(private_kib "$HARK_PID")
    spawn_crowd crowd "$PORT" hold 20 1000 "$T/go"
    wait_for_line crowd '^held 20$'
    at_most $(($(private_kib "$HARK_PID") - before)) 100 "KiB for 20 connections"
    no_children "$HARK_PID"
    touch "$T/go"
    finish crowd
}

@test "row 28: a unix socket: TERM, and start again" {
    local i
    for i in 1 2 3; do
        start_hark --unix "$T/s"
        client "unix:$T/s" echo:10
        stop_hark
        [ ! -e "$T/s" ]
    done
}
