#!/usr/bin/env bats
# Where log lines go: a file, syslog, the journal; and what keeps a flood of them from filling a disk.
#
# shellcheck disable=SC2034,SC2154 # WRAPPER is for lib.bash, status and output come from it

load lib

time='[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z'

in_log() { # REGEX [COUNT]: in the file
    eventually has_lines "$T/log" "$1" "${2:-1}"
}

# How many of this test's processes have FILE open.
holders() { # FILE
    local pid
    for pid in $(marked_processes); do
        find "/proc/$pid/fd" -lname "$1" 2>/dev/null
    done | wc -l
}

nobody_holds() {
    [ "$(holders "$1")" -eq 0 ]
}

# ---- a file ----

@test "log-to: a file is appended to, its lines begin with the time, and stderr stays silent" {
    echo before >"$T/log"
    serve -v --log-to "$T/log" --handler exec sh -c 'echo "$1" >&2' sh $'from a child\e[31m\nhark: error: forged'
    client "$PORT" all
    in_log '^[^ ]+ hark: close id=1 '
    stop_hark
    equal "$(head -n 1 "$T/log")" before
    refute grep -vE "^(before|$time hark: (listen|accept|close|stderr|stop) .*)\$" "$T/log"
    grep -qE "^$time hark: stderr id=1 text=\"from a child\\\\x1b\[31m\"\$" "$T/log"
    equal "$(cat "$LOG")" ""
}

@test "log-to: JSON in a file" {
    serve --log-to "$T/log" --log-format json
    stop_hark
    python -c 'import json, sys
for line in open(sys.argv[1]):
    print(json.loads(line)["event"])' "$T/log" >"$T/events"
    equal "$(tr '\n' ' ' <"$T/events")" "listen stop "
}

@test "log-to: a file that was moved away is opened again on USR1, by every process" {
    serve -v --processes 3 --log-to "$T/log"
    crowd "$PORT" serial 20
    in_log ' close ' 20
    equal "$(holders "$T/log")" 4
    mv "$T/log" "$T/log.1"
    kill -USR1 "$HARK_PID"
    eventually nobody_holds "$T/log.1"
    crowd "$PORT" serial 20
    in_log ' close ' 20
    equal "$(grep -c ' close ' "$T/log.1")" 20
    stop_hark
}

@test "log-to: one process reopens, too, and keeps the old file if there can be no new one" {
    mkdir "$T/d"
    serve -v --log-to "$T/d/log"
    mv "$T/d/log" "$T/log"
    kill -USR1 "$HARK_PID"
    eventually test -e "$T/d/log"
    client "$PORT" exchange:10
    eventually has_line "$T/d/log" ' close id=1 '
    mv "$T/d" "$T/gone"
    kill -USR1 "$HARK_PID"
    eventually has_line "$T/gone/log" " hark: error: cannot log to $T/d/log: No such file or directory\$"
    client "$PORT" exchange:10
    eventually has_line "$T/gone/log" ' close id=2 '
    stop_hark
}

@test "log-to: USR1 without a file is nothing" {
    serve
    kill -USR1 "$HARK_PID"
    run client "$PORT" exchange:10
    equal "$output" "same 10 eof"
    stop_hark
}

@test "log-to: what keeps hark from starting is on stderr" {
    serve
    run_hark --log-to "$T/log" --bind 127.0.0.1 --port "$PORT"
    equal "$status" 2
    match "$output" '^hark: error: .*Address already in use'
}

@test "log-to: places that are none" {
    mkfifo "$T/fifo"
    local row
    while IFS='|' read -r to message; do
        run_hark --port 0 --log-to "$to"
        equal "$status" 2 "the status with $to"
        equal "$output" "hark: error: cannot log to $message"
        run_hark --check --port 0 --log-to "$to"
        equal "$status" 2 "the status of --check with $to"
    done <<-ROWS
		$T|$T: Is a directory
		$T/no/log|$T/no/log: No such file or directory
		$T/fifo|$T/fifo: No such device or address
	ROWS
    run_hark --port 0 --log-to ''
    equal "$status" 2
    equal "$output" 'hark: error: option --log-to: empty, and should be stderr|syslog|FILE'
}

@test "log-to: --check makes no file" {
    run_hark --check --port 0 --log-to "$T/log"
    equal "$status" 0
    [ ! -e "$T/log" ]
    : >"$T/log"
    run_hark --check --port 0 --log-to "$T/log"
    equal "$status" 0
    [ ! -s "$T/log" ]
}

# ---- syslog ----

# A /dev of its own, with a log that this test reads: WRAPPER puts hark into it.
private_dev() {
    mkdir "$T/dev"
    : >"$T/dev/null"
    cat >"$T/in-dev" <<-'SH'
		mount --bind /dev/null "$1/null" && mount --rbind "$1" /dev && shift && exec "$@"
	SH
    permitted unshare -m sh "$T/in-dev" "$T/dev" true
    WRAPPER=(unshare -m sh "$T/in-dev" "$T/dev")
}

@test "log-to: syslog, with priorities" {
    private_dev
    spawn syslogd "$PYTHON" -SEuc 'import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
while True:
    print(s.recv(65536).decode().replace("\n", "<NEWLINE>"))' "$T/dev/log"
    eventually test -S "$T/dev/log"
    serve -vv --log-to syslog --handler shell 'echo "100 %s %n" >&2'
    client "$PORT" all
    wait_for_line syslogd "^<29>.* hark\[$HARK_PID\]: listen address=127\.0\.0\.1 port=$PORT handler=shell processes=1\$"
    wait_for_line syslogd "^<31>.* hark\[$HARK_PID\]: process pid="
    wait_for_line syslogd "^<30>.* hark\[$HARK_PID\]: accept id=1 "
    wait_for_line syslogd "^<30>.* hark\[$HARK_PID\]: stderr id=1 text=\"100 %s %n\"\$"
    wait_for_line syslogd "^<30>.* hark\[$HARK_PID\]: close id=1 "
    stop_hark
    wait_for_line syslogd "^<29>.* hark\[$HARK_PID\]: stop signal=TERM "
    refute grep -F '<NEWLINE>' "$T/syslogd"
    equal "$(cat "$LOG")" ""
}

@test "log-to: syslog, and nobody there" {
    private_dev
    run timeout "$DEADLINE" "${WRAPPER[@]}" "$HARK" --port 0 --log-to syslog
    equal "$status" 2
    equal "$output" "hark: error: cannot log to syslog: /dev/log: No such file or directory"
}

# ---- the journal ----

# hark's stderr is a pipe; sets STREAM to what the journal would call it.
@test "log-to: the journal's priorities when stderr is the journal, and only then" {
    # exec in a shell that can name its own stderr
    WRAPPER=(sh -c 'JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@"' sh)
    serve -v --handler shell 'echo oops >&2'
    client "$PORT" all
    wait_for_log '^<6>hark: close id=1 '
    stop_hark
    grep -q '^<5>hark: listen ' "$LOG"
    grep -q '^<6>hark: stderr id=1 text=oops$' "$LOG"
    refute grep -v '^<[56]>hark: ' "$LOG"

    local stream
    for stream in 1:2 nonsense 1: ''; do
        WRAPPER=(env JOURNAL_STREAM="$stream")
        serve
        wait_for_log '^hark: listen '
        stop_hark
    done
}

@test "log-to: a file that has reached its limit ends nobody" {
    WRAPPER=(bash -c 'ulimit -f 1 && exec "$@"' bash)
    serve -v --log-to "$T/log"
    local i
    for i in $(seq 20); do
        client "$PORT" exchange:10
    done >"$T/ends"
    equal "$(grep -c '^same 10 eof$' "$T/ends")" 20
    equal "$(stat -c %s "$T/log")" 1024
    stop_hark TERM 0
}

# ---- floods ----

@test "log-to: errors that clients cause are not written without limit, and are counted" {
    serve_target
    stop_hark
    serve -q --handler forward "127.0.0.1:$TARGET_PORT"
    local i
    for i in $(seq 40); do
        cat <"/dev/tcp/127.0.0.1/$PORT" || true
    done 2>"$T/resets" # within the five seconds, however busy the machine is
    equal "$(grep -c 'Connection reset by peer$' "$T/resets")" 40
    stop_hark
    local written suppressed
    written=$(grep -c '^hark: error: ' "$LOG")
    suppressed=$(sed -n 's/^hark: suppressed event=error lines=\([0-9]*\)$/\1/p' "$LOG" | awk '{ n += $1 } END { print n + 0 }')
    equal "$((written + suppressed))" 40 "all errors"
    # ten in five seconds
    at_most "$written" 39 "errors written"
    ((suppressed > 0))
}
