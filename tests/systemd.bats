#!/usr/bin/env bats
# Under systemd: sockets handed over, what it is told, and the units.
#
# shellcheck disable=SC2034,SC2154 # WRAPPER is for lib.bash, status and output come from it

load lib

setup() {
    need systemd-socket-activate systemd
}

UNITS=$TESTS/../cmd/systemd

# hand_over TYPE [OPTION]...: hark with what systemd would give it at descriptors 3 and up, in the words of the script below; it goes on
# as start_hark does.
hand_over() {
    local what=$1
    shift
    WRAPPER=("$PYTHON" -SE "$TESTS/systemd.py" "$what")
    start_hark "$@"
    WRAPPER=()
}

# The same for a hark that does not start.
refuses() { # WHAT MESSAGE OPTION...
    local what=$1 message=$2
    shift 2
    status=0
    timeout "$DEADLINE" "$PYTHON" -SE "$TESTS/systemd.py" "$what" "$HARK" "$@" >"$T/out" 2>"$T/err" 3>&- 4>&- 5>&- 6>&- || status=$?
    equal "$status" 2 "the status with $what"
    match "$(cat "$T/err")" "^hark: error: $message\$"
}

# ---- listening sockets ----

@test "systemd: a listening socket is served, and nothing else is needed" {
    hand_over listen=127.0.0.1 -v
    equal "${#READY[@]}" 1
    run client "$PORT" exchange:1000000
    equal "$output" "same 1000000 eof"
    grep -q "^hark: listen address=127\.0\.0\.1 port=$PORT handler=echo processes=1\$" "$LOG"
    stop_hark
}

@test "systemd: several, and some of our own beside them" {
    hand_over "listen=127.0.0.1 listen=$T/s" --bind 127.0.0.1 --port 0 --unix "$T/own"
    equal "${#READY[@]}" 4
    equal "${READY[1]}" "unix $T/own"
    equal "${READY[3]}" "unix $T/s"
    local where
    for where in "${READY[0]##* }" "${READY[2]##* }" "unix:$T/own" "unix:$T/s"; do
        run client "$where" exchange:1000
        equal "$output" "same 1000 eof"
    done
    stop_hark
    # whose it is
    [ -S "$T/s" ]
    [ ! -e "$T/own" ]
}

@test "systemd: every process serves a socket that was handed over, with --reuse-port, too" {
    local option
    for option in --backlog=100 --reuse-port; do
        hand_over listen=127.0.0.1 -v --bind 127.0.0.1 --port 0 --processes 2 "$option"
        crowd "${READY[1]##* }" serial 20
        crowd "${READY[0]##* }" serial 20
        stop_hark
    done
}

@test "systemd: a program gets none of it" {
    without_valgrind "it opens its log anew in a child"
    hand_over listen=127.0.0.1 --handler shell 'env | grep -cE "^(LISTEN|NOTIFY|WATCHDOG)"; ls /proc/self/fd | tr "\n" " "'
    run client "$PORT" all
    equal "$output" $'0\n0 1 2 3 ' # 3 is ls's own
}

@test "systemd: sockets for another process are not ours" {
    LISTEN_PID=1 LISTEN_FDS=1 run_hark --check --port 0
    equal "$status" 0
    LISTEN_PID=1 LISTEN_FDS=1 run_hark
    equal "$status" 2
    match "$output" 'nothing to listen on'
    LISTEN_FDS=1 run_hark
    match "$output" 'nothing to listen on'
}

@test "systemd: what was to be handed over and is not open is said" {
    without_valgrind "its log takes the place of what is closed"
    refuses closed 'LISTEN_FDS=1, and descriptor 3 is not open'
    refuses 'listen=127.0.0.1 fds=2' 'LISTEN_FDS=2, and descriptor 4 is not open'
}

@test "systemd: what is handed over and makes no sense is said, and nothing is bound" {
    refuses datagram 'LISTEN_FDS=1, and descriptor 3 is not a stream socket \(ListenStream=\)'
    refuses file 'LISTEN_FDS=1, and descriptor 3 is not a stream socket \(ListenStream=\)'
    refuses 'listen=127.0.0.1 fds=one' 'LISTEN_FDS="one" is not a number of descriptors from 1 to 1024'
    refuses 'listen=127.0.0.1 fds=-1' 'LISTEN_FDS="-1" is not a number of descriptors from 1 to 1024'
    refuses 'listen=127.0.0.1 pid=me' 'LISTEN_PID="me" is not the number of a process'
    refuses 'connection listen=127.0.0.1' 'LISTEN_FDS=2, and descriptor 3 is a connection: .*'
    refuses connection 'option --port 0 has no effect: a connection was handed over \(LISTEN_FDS\), .*' --port 0
    refuses connection 'option --processes has no effect: a connection was handed over \(LISTEN_FDS\)' --processes 2
    refuses listen=127.0.0.1 'option --ready-fd: descriptor 3 is a socket to listen on \(LISTEN_FDS\)' --ready-fd 3
}

# ---- one connection ----

@test "systemd: a connection is served, then hark exits" {
    local handler
    for handler in echo 'shell cat' 'exec cat'; do
        # shellcheck disable=SC2086
        run timeout "$DEADLINE" "$PYTHON" -SE "$TESTS/systemd.py" 'connection say=hello' "$HARK" -v --handler $handler
        equal "$status" 0
        match "$output" '^heard hello$|heard hello'
        match "$output" 'hark: accept id=1 peer=127\.0\.0\.1:'
        match "$output" 'hark: close id=1 '
    done
}

@test "systemd: a connection whose client has gone is no failure" {
    run timeout "$DEADLINE" "$PYTHON" -SE "$TESTS/systemd.py" 'connection gone' "$HARK" -v
    equal "$status" 0
    match "$output" 'hark: close id=1 .* reason=reset'
}

@test "systemd: systemd-socket-activate, both ways" {
    local way port
    for way in '' --accept; do
        serve
        port=$PORT
        stop_hark
        # shellcheck disable=SC2086
        spawn "activate$way" systemd-socket-activate $way -l "127.0.0.1:$port" "$HARK" --log-to "$T/log$way" -v
        eventually client "$port" exchange:1000
        run client "$port" exchange:1000
        equal "$output" "same 1000 eof"
        if [ "$way" ]; then
            eventually has_lines "$T/activate$way.err" 'died with code 0' 2
        fi
        kill "${background[activate$way]}"
    done
}

# ---- what systemd is told ----

# What was said so far, in $T/told; NOTIFY is where.
listen_for_notices() { # SOCKET
    spawn told "$PYTHON" -SEuc 'import socket, sys
name = sys.argv[1]
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("\0" + name[1:] if name.startswith("@") else name)
print("listening")
while True:
    print(s.recv(4096).decode().replace("\n", " "))' "$1"
    wait_for_line told listening
}

@test "systemd: ready, reloading, stopping; from one process and from a supervisor" {
    local processes
    for processes in 1 2; do
        listen_for_notices "$T/notify.$processes"
        WRAPPER=(env NOTIFY_SOCKET="$T/notify.$processes")
        serve --processes "$processes"
        wait_for_line told "^READY=1 STATUS=echo, sockets: 1, processes: $processes\$"
        kill -HUP "$HARK_PID"
        wait_for_line told '^RELOADING=1 MONOTONIC_USEC=[0-9]+$'
        wait_for_line told '^READY=1$'
        stop_hark
        wait_for_line told '^STOPPING=1 STATUS=no more connections'
        equal "$(grep -c STOPPING "$T/told")" 1
        kill "${background[told]}"
    done
}

@test "systemd: the time of a reload is of the monotonic clock" {
    listen_for_notices "@hark.$$.notify"
    WRAPPER=(env NOTIFY_SOCKET="@hark.$$.notify")
    serve
    local before after told
    before=$(python -c 'import time; print(time.monotonic_ns() // 1000)')
    kill -HUP "$HARK_PID"
    wait_for_line told MONOTONIC_USEC
    after=$(python -c 'import time; print(time.monotonic_ns() // 1000)')
    told=$(sed -n 's/.*MONOTONIC_USEC=//p' "$T/told")
    ((before <= told && told <= after)) || fail "$told is not between $before and $after"
}

@test "systemd: a bad reload is ready again, too" {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x -keyout "$T/key" -out "$T/cert" 2>/dev/null
    listen_for_notices "$T/notify"
    local processes
    for processes in 1 2; do
        WRAPPER=(env NOTIFY_SOCKET="$T/notify")
        serve --processes "$processes" --ssl-cert "$T/cert" --ssl-key "$T/key"
        mv "$T/cert" "$T/away"
        kill -HUP "$HARK_PID"
        eventually has_lines "$T/told" '^READY=1$' "$processes"
        grep -q '^hark: error: reload: ' "$LOG"
        mv "$T/away" "$T/cert"
        stop_hark
    done
}

# Sets worker to the pid of the one that is stopped.
reload_while_one_hangs() {
    listen_for_notices "$T/notify"
    echo 127.0.0.1 >"$T/rules"
    WRAPPER=(env NOTIFY_SOCKET="$T/notify")
    serve --processes 2 --allow "@$T/rules"
    worker=$(pgrep -P "$HARK_PID" | head -n 1)
    kill -STOP "$worker"
    eventually is_state "$worker" T
    kill -HUP "$HARK_PID"
    wait_for_log '^hark: reload allow=1$'
}

@test "systemd: a reload is over when every process has taken what is new" {
    local worker
    reload_while_one_hangs
    wait_for_line told '^RELOADING=1 '
    read -rt 0.5 _ <&"$silence" || true # what is looked for is that nothing comes
    refute grep '^READY=1$' "$T/told"
    kill -CONT "$worker"
    wait_for_line told '^READY=1$'
    refute grep warning "$LOG"
}

@test "systemd: a process that ends instead keeps no reload from being over" {
    local worker
    reload_while_one_hangs
    kill -KILL "$worker"
    wait_for_line told '^READY=1$'
    refute grep warning "$LOG"
}

@test "systemd: the watchdog hears from a server twice as often as it has to" {
    local processes
    for processes in 1 2; do
        listen_for_notices "$T/notify.$processes"
        WRAPPER=(env NOTIFY_SOCKET="$T/notify.$processes" WATCHDOG_USEC=200000)
        serve --processes "$processes"
        eventually has_lines "$T/told" '^WATCHDOG=1$' 12
        ((SECONDS)) || true
        stop_hark
        kill "${background[told]}"
    done
    # not meant for us
    listen_for_notices "$T/notify"
    WRAPPER=(env NOTIFY_SOCKET="$T/notify" WATCHDOG_USEC=1000 WATCHDOG_PID=1)
    serve
    stop_hark
    wait_for_line told STOPPING
    refute grep WATCHDOG "$T/told"
}

@test "systemd: a server that hangs lets the watchdog bark" {
    listen_for_notices "$T/notify"
    WRAPPER=(env NOTIFY_SOCKET="$T/notify" WATCHDOG_USEC=100000)
    serve
    wait_for_line told WATCHDOG
    kill -STOP "$HARK_PID"
    eventually is_state "$HARK_PID" T
    local before
    before=$(grep -c WATCHDOG "$T/told")
    read -rt 0.3 _ <&"$silence" || true # three times what would be too long
    equal "$(grep -c WATCHDOG "$T/told")" "$before"
    kill -CONT "$HARK_PID"
}

@test "systemd: a NOTIFY_SOCKET or watchdog that makes no sense" {
    while IFS='|' read -r environment message; do
        run timeout "$DEADLINE" env "$environment" NOTIFY_ALSO=1 "$HARK" --check --port 0
        equal "$status" 2 "the status with $environment"
        equal "$output" "hark: error: $message"
    done <<-'ROWS'
		NOTIFY_SOCKET=relative|NOTIFY_SOCKET="relative" is neither an absolute path nor @NAME
		NOTIFY_SOCKET=@|NOTIFY_SOCKET="@" is neither an absolute path nor @NAME
	ROWS
    run timeout "$DEADLINE" env NOTIFY_SOCKET="/$(printf 'x%.0s' $(seq 200))" "$HARK" --check --port 0
    equal "$output" "hark: error: NOTIFY_SOCKET has 201 bytes, a unix socket's path has at most 107"
    listen_for_notices "$T/notify"
    run timeout "$DEADLINE" env NOTIFY_SOCKET="$T/notify" WATCHDOG_USEC=soon "$HARK" --check --port 0
    equal "$output" 'hark: error: WATCHDOG_USEC="soon" is not a number of microseconds'
    # nobody there is no reason not to serve
    WRAPPER=(env NOTIFY_SOCKET="$T/nobody")
    serve
    wait_for_log "^hark: error: cannot tell NOTIFY_SOCKET=$T/nobody how things are: No such file or directory\$"
    stop_hark
}

# ---- the units ----

@test "systemd: the units are good, and leave little exposed" {
    local unit exposure
    mkdir "$T/units"
    # of a program that is there; templates are good if an instance is
    for unit in "$UNITS"/*; do
        sed "s|/usr/bin/hark|$HARK|; /^Documentation=/d" "$unit" >"$T/units/${unit##*/}"
        [[ "$unit" == *@.* ]] && cp "$T/units/${unit##*/}" "$T/units/$(basename "${unit/@./@8080.}")"
    done
    run timeout "$DEADLINE" systemd-analyze verify "$T"/units/*[!@].s*
    equal "$status" 0
    equal "$output" ""
    for unit in "$UNITS"/*.service; do
        exposure=$(timeout "$DEADLINE" systemd-analyze security --offline=true "$unit" | sed -n 's/.*Overall exposure level for .*: \([0-9.]*\) .*/\1/p')
        awk -v exposure="$exposure" 'BEGIN { exit !(exposure > 0 && exposure <= 1.5) }' || fail "$unit: $exposure"
    done
}
