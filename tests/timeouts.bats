#!/usr/bin/env bats
# --idle-timeout, --half-close-timeout, --max-lifetime, --exit-idle, --keepalive.
#
# shellcheck disable=SC2034,SC2153,SC2154 # variables of lib.bash

load lib

# seconds_of ID: how long that connection lived, in milliseconds.
milliseconds_of() {
    sed -nE "s/^hark: close id=$1 .* seconds=([0-9]+)\.([0-9]{3}).*/\1\2/p" "$LOG" | sed 's/^0*//'
}

lived() { # ID AT-LEAST AT-MOST, in milliseconds
    wait_for_log "^hark: close id=$1 "
    local ms
    ms=$(milliseconds_of "$1")
    ((ms >= $2 && ms <= $3)) || fail "connection $1 lived ${ms} ms, not $2 to $3"
}

@test "timeouts: idle: closed after the time, not before, and others go on" {
    serve -v --idle-timeout 400ms
    spawn_client busy "$PORT" rounds:10:10 say:on rounds:10:10 hold:"$T/go" end same
    run client "$PORT" echo:10 count
    match "$output" '^0 (eof|reset)$'
    wait_for_log '^hark: close id=[12] .* reason=timeout '
    crowd "$PORT" serial 3
}

@test "timeouts: idle: bytes in either direction count" {
    serve -v --idle-timeout 500ms --handler exec sh -c 'for i in 1 2 3 4 5 6; do sleep 0.2; echo $i; done'
    run client "$PORT" all
    equal "$output" $'1\n2\n3\n4\n5\n6'
    serve -v --idle-timeout 500ms --handler discard
    python -c 'import socket, sys, time
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
for i in range(6):
    time.sleep(0.2)
    s.send(b"x")
s.shutdown(socket.SHUT_WR)
sys.exit(len(s.recv(1)))' "$PORT"
    lived 1 1200 9000
    refute grep -q timeout "$LOG"
}

@test "timeouts: idle: exec on the socket itself, whose bytes only the kernel sees; its program ends too" {
    serve -v --idle-timeout 300ms --kill-after 200ms --exec-io socket --handler exec sleep 1000
    run client "$PORT" text:x count
    match "$output" '^0 (eof|reset)$'
    wait_for_log '^hark: close id=1 .* reason=timeout .* signal=15'
    lived 1 300 9000
    eventually none_marked sleep
    serve -v --idle-timeout 300ms --kill-after 200ms --exec-io pipe --handler exec sleep 1000
    run client "$PORT" text:x count
    wait_for_log '^hark: close id=1 .* reason=timeout .* signal=15'
    lived 1 300 9000
}

@test "timeouts: idle: forward, and stdio" {
    serve_target --handler discard
    serve -v --idle-timeout 300ms --handler forward "127.0.0.1:$TARGET_PORT"
    run client "$PORT" text:x count
    wait_for_log '^hark: close id=1 .* reason=timeout '
    mkfifo "$T/fifo"
    exec 5<>"$T/fifo"
    serve -v --idle-timeout 300ms --handler stdio --once <"$T/fifo" >/dev/null
    run client "$PORT" text:x count
    wait_for_exit
    equal "$STATUS" 1
    grep -q ' reason=timeout ' "$LOG"
}

@test "timeouts: on unix sockets exec is relayed when there are any" {
    # shellcheck disable=SC2016 # the program expands it
    start_hark --unix "$T/s" --idle-timeout 300ms --kill-after 100ms -v --handler exec sh -c 'readlink /proc/$$/fd/0; exec sleep 1000'
    run client "unix:$T/s" line count
    match "$output" '^pipe:'
    wait_for_log '^hark: close id=1 .* reason=timeout '
    # shellcheck disable=SC2016 # the program expands it
    start_hark --unix "$T/s2" --max-lifetime 300ms --kill-after 100ms -v --handler exec sh -c 'readlink /proc/$$/fd/0; exec sleep 1000'
    run client "unix:$T/s2" line count
    match "$output" '^socket:'
    wait_for_log '^hark: close id=1 .* reason=timeout '
}

@test "timeouts: half-close: counts from the end of one direction, anew with each byte" {
    serve -v --half-close-timeout 400ms --kill-after 100ms --exec-io pipe --handler exec sh -c 'cat; for i in 1 2 3 4; do sleep 0.2; echo $i; done; sleep 1000'
    spawn_client open "$PORT" text:x hold:"$T/go" open close
    wait_for_log "^hark: accept id=1 "
    run client "$PORT" end all
    match "$output" $'1\n2\n3\n4'
    wait_for_log '^hark: close id=2 .* reason=timeout '
    lived 2 1200 9000
    refute grep -q 'close id=1 ' "$LOG"
    touch "$T/go"
}

@test "timeouts: half-close: the same on the socket itself, idle for longer before" {
    serve -v --half-close-timeout 400ms --kill-after 100ms --exec-io socket --handler exec sh -c 'cat; for i in 1 2 3 4; do sleep 0.2; echo $i; done; sleep 1000'
    run python -c 'import socket, sys, time
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.send(b"x")
s.recv(1)
time.sleep(1)
s.shutdown(socket.SHUT_WR)
try:
    while (data := s.recv(100)):
        print(data.decode(), end="", flush=True)
except ConnectionResetError:
    print("reset")' "$PORT"
    match "$output" $'^1\n2\n3\n4\n'
    wait_for_log '^hark: close id=1 .* reason=timeout '
    lived 1 2200 9000
}

@test "timeouts: lifetime: whatever moves" {
    local io
    for io in socket pipe; do
        serve -v --max-lifetime 500ms --kill-after 100ms --exec-io $io --handler exec sh -c 'while sleep 0.1; do echo x; done'
        run client "$PORT" count
        wait_for_log '^hark: close id=1 .* reason=timeout '
        lived 1 500 9000
    done
}

@test "timeouts: none of them ends the server, and 0 is none" {
    serve -v --idle-timeout 0 --half-close-timeout 0 --max-lifetime 0 --max-rate 0 --max-per-ip 0 --exit-idle 0 --max-accepts 0
    client "$PORT" echo:10
    stop_hark
}

@test "timeouts: --exit-idle: exits when nobody came, and when the last has gone" {
    serve --exit-idle 300ms
    wait_for_exit
    equal "$STATUS" 0
    serve -v --exit-idle 900ms
    exec 7<>"/dev/tcp/127.0.0.1/$PORT" # who starts a program first may come too late
    sleep 2                            # what is tested is that it does not exit now
    client "$PORT" echo:10
    echo here >&7
    equal "$(head -n 1 <&7)" here
    exec 7>&-
    wait_for_exit
    equal "$STATUS" 0
    serve --exit-idle 2s --max-accepts 2
    : <"/dev/tcp/127.0.0.1/$PORT"
    wait_for_exit
    equal "$STATUS" 1
}

@test "timeouts: --exit-idle with several processes: one connection holds them all" {
    serve -v --exit-idle 2s --processes 3 # longer than a client takes to start on a busy machine
    spawn_client peer "$PORT" echo:10 say:held hold:"$T/go" echo:10 end same
    wait_for_line peer held
    sleep 2.5 # what is tested is that it does not exit now
    local i
    for i in 1 2 3 4 5 6; do
        client "$PORT" echo:10 # whoever takes it
    done
    touch "$T/go"
    finish peer
    has_line "$T/peer" '^same 20 eof$'
    wait_for_exit
    equal "$STATUS" 0
    refute grep -q 'restart' "$LOG"
}

@test "timeouts: --keepalive is set on what is accepted" {
    need ss iproute2
    serve --keepalive 60,7,3
    spawn_client peer "$PORT" echo:10 say:held hold:"$T/go" end same
    wait_for_line peer held
    match "$(ss -tno state established "sport = :$PORT")" 'timer:\(keepalive,(5[0-9]sec|1min)'
    touch "$T/go"
    finish peer
}
