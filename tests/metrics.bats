#!/usr/bin/env bats
# --metrics: what it counts, how it answers (also to those who mean no good), and what its process may do.
#
# shellcheck disable=SC2016,SC2030,SC2031,SC2034,SC2153,SC2154 # dollar signs of others; variables of lib.bash

load lib

# with_metrics OPTION...: serves, and sets WEB: its port, or unix:PATH.
with_metrics() {
    serve --metrics 0 "$@"
    find_web
}

find_web() {
    WEB=$(sed -n 's/^hark: metrics address=.* port=//p' "$LOG")
    match "$WEB" '^[0-9]+$'
}

metrics() { # COMMAND...
    timeout "$DEADLINE" "$PYTHON" -SE "$TESTS/metrics.py" "$WEB" "$@"
}

shows() { # SAMPLE...: all of them, as they stand
    local sample
    metrics text >"$T/samples" || return
    for sample; do
        grep -qxF "$sample" "$T/samples" || fail "it does not say \"$sample\": $(cat "$T/samples")" || return
    done
}

helper() { # its pid
    pgrep -P "$HARK_PID" -f '^hark: metrics'
}

workers() { # their pids
    pgrep -P "$HARK_PID" | grep -vxF "$(helper)"
}

# answer REQUEST REGEX: what it says, then "closed" or "open" and how much of the body came.
answer() {
    run metrics raw "$1"
    match "$output" "$2"
}

# ---- what it counts ----

lists_nobody() {
    metrics get /status | grep -qE '"newest": ?\[\]'
}

@test "metrics: the totals of two processes are those of the load" {
    with_metrics --processes 2
    local i
    for i in 1 2 3 4 5 6 7; do
        client "$PORT" echo:1000 end same
    done
    crowd "$PORT" reset 3
    eventually shows 'hark_connections_accepted_total 10' 'hark_connections 0' 'hark_connections_closed_total{reason="eof"} 7' \
        'hark_connections_closed_total{reason="reset"} 3' 'hark_connection_duration_seconds_count 10' \
        'hark_connection_duration_seconds_bucket{le="3600"} 10' 'hark_processes 2' 'hark_process_restarts_total 0'
    eventually lists_nobody # a process tells of its connections once a second
    metrics get /status >"$T/status"
    "$PYTHON" - "$T/status" "$T/samples" <<'END'
import json, sys
status = json.load(open(sys.argv[1]))
samples = dict(line.rsplit(' ', 1) for line in open(sys.argv[2]))
totals = status['totals']
assert totals['accepted'] == sum(p['accepted'] for p in status['processes']) == 10, status
assert totals['received_bytes'] == sum(p['received_bytes'] for p in status['processes']) >= 7000, status
assert int(samples['hark_received_bytes_total']) == totals['received_bytes'], status
assert sum(d['connections'] for d in status['durations']) == 10, status
assert totals['closed']['eof'] == 7 and totals['closed']['reset'] == 3, status
assert status['newest'] == [] and len(status['processes']) == 2 and status['handler'] == 'echo', status
END
    crowd "$PORT" serial 5
    eventually shows 'hark_connections_accepted_total 15'
    stop_hark
}

@test "metrics: bytes are exact, and those of the living show while they live" {
    with_metrics
    spawn_client one "$PORT" echo:5000 say:held hold:"$T/go" echo:300 end same
    wait_for_line one held
    eventually shows 'hark_received_bytes_total 5000' 'hark_sent_bytes_total 5000' 'hark_connections 1'
    metrics get /status >"$T/status"
    "$PYTHON" - "$T/status" <<'END'
import json, sys
status = json.load(open(sys.argv[1]))
[row] = status['newest']
assert (row['in'], row['out'], row['process'], row['open']) == (5000, 5000, 0, True), row
assert row['peer'].startswith('127.0.0.1:') and row['seconds'] >= 0 and row['id'] == 1, row
END
    touch "$T/go"
    finish one
    eventually shows 'hark_received_bytes_total 5300' 'hark_sent_bytes_total 5300' 'hark_connections 0'
    stop_hark
}

@test "metrics: the live list holds the newest, the newest first" {
    with_metrics --processes 2
    spawn_crowd many "$PORT" hold 1100 16 "$T/go"
    wait_for_line many 'held 1100'
    eventually lists_the_newest
    touch "$T/go"
    finish many
    stop_hark
}

lists_the_newest() {
    metrics get /status >"$T/status"
    "$PYTHON" - "$T/status" <<'END'
import json, sys
status = json.load(open(sys.argv[1]))
ids = [row['id'] for row in status['newest']]
assert status['connections'] == 1100 and ids == list(range(1100, 100, -1)), (status['connections'], len(ids), ids[:3], ids[-3:])
assert {row['process'] for row in status['newest']} == {0, 1}
END
}

@test "metrics: rejects go by their reason" {
    with_metrics --deny 127.0.0.1
    crowd "$PORT" reset 4 || true
    eventually shows 'hark_connections_rejected_total{reason="denied"} 4' 'hark_connections_accepted_total 0'
    with_metrics --max-per-ip 1
    spawn_client one "$PORT" echo:10 say:held hold:"$T/go" end same
    wait_for_line one held
    client "$PORT" count || true
    client "$PORT" count || true
    touch "$T/go"
    finish one
    eventually shows 'hark_connections_rejected_total{reason="limit"} 2' 'hark_connections_accepted_total 1'
    with_metrics --proxy-protocol 127.0.0.1
    client "$PORT" 'text:GET / HTTP/1.0\r\n\r\n' count || true
    eventually shows 'hark_connections_rejected_total{reason="proxy"} 1'
}

@test "metrics: handshakes that succeed and that fail" {
    with_metrics --processes 2 --ssl-self-signed
    client "$PORT" 'text:this is no handshake' count || true
    client --tls "$PORT" echo:100 end same
    client --tls "$PORT" echo:100 end same
    eventually shows 'hark_tls_handshakes_total 2' 'hark_connections_rejected_total{reason="handshake"} 1' \
        'hark_connections_accepted_total 2' 'hark_received_bytes_total 200'
    stop_hark
}

@test "metrics: programs, and the bytes of a socket that one has" {
    with_metrics --handler exec sh -c 'read -r line; echo "got $line"; read -r more'
    spawn_client one "$PORT" 'text:abc\n' line say:held hold:"$T/go" end count
    wait_for_line one held
    eventually shows 'hark_children_started_total 1' 'hark_received_bytes_total 4' 'hark_sent_bytes_total 8' 'hark_connections_limit 100'
    touch "$T/go"
    finish one
    eventually shows 'hark_connections_closed_total{reason="child"} 1' 'hark_received_bytes_total 4' 'hark_sent_bytes_total 8'
    stop_hark
}

@test "metrics: targets are down while a process leaves them alone" {
    serve_target
    local other="unix:$T/none \"quoted\""
    with_metrics --handler forward "127.0.0.1:$TARGET_PORT" "$other"
    client "$PORT" echo:10 end same
    client "$PORT" echo:10 end same
    local label="unix:$T/none \\\"quoted\\\""
    eventually shows "hark_target_up{target=\"127.0.0.1:$TARGET_PORT\"} 1" "hark_target_up{target=\"$label\"} 0" \
        "hark_target_failures_total{target=\"$label\"} 1" "hark_target_failures_total{target=\"127.0.0.1:$TARGET_PORT\"} 0"
    local port=$PORT
    start_hark --unix "$T/none \"quoted\""
    HARK_PID=${harks[1]} PORT=$port
    eventually target_is_tried "$label"
    stop_hark
}

@test "metrics: a target has the connections of all processes, and of none that was killed" {
    serve_target
    local one=127.0.0.1:$TARGET_PORT
    serve_target
    local other=127.0.0.1:$TARGET_PORT
    with_metrics --processes 2 --balance first --handler forward "$one" "$other"
    spawn_crowd many "$PORT" hold 20 500 "$T/go"
    wait_for_line many 'held 20'
    shows "hark_target_connections{target=\"$one\"} 20" "hark_target_connections{target=\"$other\"} 0"
    spawn_client one "$PORT" echo:10 say:held hold:"$T/go" end same
    wait_for_line one held
    shows "hark_target_connections{target=\"$one\"} 21"
    local pid
    for pid in $(workers); do
        kill -KILL "$pid"
    done
    eventually shows "hark_target_connections{target=\"$one\"} 0" "hark_process_restarts_total 2"
    spawn_client two "$PORT" echo:10 say:held hold:"$T/end" end same
    wait_for_line two held
    shows "hark_target_connections{target=\"$one\"} 1"
    touch "$T/end"
    finish two
    eventually shows "hark_target_connections{target=\"$one\"} 0"
    stop_hark
}

@test "metrics: who leaves before the target answers is none of its connections" {
    spawn_client silent --never-accept --backlog 0 listen
    wait_for_line silent '^port '
    local target i
    target=127.0.0.1:$(sed -n 's/^port //p' "$T/silent")
    with_metrics -v --handler forward "$target"
    for i in 1 2; do # the second waits to be connected
        spawn_client "number$i" "$PORT" say:connected hold:"$T/go$i" reset
        wait_for_log '^hark: accept ' "$i"
        eventually shows "hark_target_connections{target=\"$target\"} $i"
    done
    touch "$T/go2"
    wait_for_log '^hark: close .* reason=reset '
    eventually shows "hark_target_connections{target=\"$target\"} 1"
    touch "$T/go1"
    wait_for_log '^hark: close .* reason=reset ' 2
    eventually shows "hark_target_connections{target=\"$target\"} 0"
    stop_hark
}

@test "metrics: a target that is passed over tells when it is tried again" {
    serve_target
    with_metrics --handler forward "127.0.0.1:$TARGET_PORT" "unix:$T/none"
    targets_are 'up["retry_seconds"] is None and none["retry_seconds"] is None and none["up"]'
    client "$PORT" echo:10 end same
    client "$PORT" echo:10 end same
    eventually tells_of_the_next_try
    stop_hark
}

tells_of_the_next_try() { # the delay doubles with each try, until it is long enough to be seen
    client "$PORT" echo:10 end same
    targets_are 'up["up"] and not none["up"] and up["retry_seconds"] is None and 0.1 < none["retry_seconds"] <= 30 and none["failures"] >= 1 and
        up["connections"] == none["connections"] == 0'
}

targets_are() { # EXPRESSION in Python, of both targets
    metrics get /status >"$T/status"
    "$PYTHON" -SE -c 'import json, sys
up, none = json.load(open(sys.argv[1]))["targets"]
assert eval("(" + sys.argv[2] + ")"), (up, none)' "$T/status" "$1"
}

target_is_tried() { # LABEL: it is tried again when a connection comes
    client "$PORT" echo:10 end same
    shows "hark_target_up{target=\"$1\"} 1"
}

@test "metrics: no counter goes down when a process is killed, and its connections are gone" {
    with_metrics --processes 2
    spawn_crowd many "$PORT" hold 20 500 "$T/go"
    wait_for_line many 'held 20'
    eventually shows 'hark_received_bytes_total 10000' 'hark_connections 20'
    spawn watch "$PYTHON" -SE "$TESTS/metrics.py" "$WEB" watch "$T/enough"
    local pid
    for pid in $(workers); do
        kill -KILL "$pid"
    done
    eventually shows 'hark_process_restarts_total 2' 'hark_connections 0' 'hark_received_bytes_total 10000'
    crowd "$PORT" serial 50
    eventually shows 'hark_connections_accepted_total 70' 'hark_received_bytes_total 10800'
    metrics get /status >"$T/status"
    match "$(cat "$T/status")" '"newest":\[\]'
    touch "$T/enough"
    finish watch
    stop_hark
}

@test "metrics: counts under load are never inconsistent" {
    with_metrics --processes 2 --max-accepts 100
    spawn watch "$PYTHON" -SE "$TESTS/metrics.py" "$WEB" watch "$T/enough"
    crowd "$PORT" serial 90
    touch "$T/enough"
    finish watch
    eventually shows 'hark_connections_accepted_total 90' 'hark_connection_duration_seconds_count 90'
    stop_hark TERM 1
}

# ---- how it answers ----

@test "metrics: GET and HEAD, 1.0 and 1.1, one request after another" {
    with_metrics
    answer 'GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n' $'^HTTP/1.1 200 OK\n.*\nConnection: keep-alive\n.*\nopen\n'
    answer 'GET /metrics?a=b HTTP/1.1\r\nhost:127.0.0.1:1\r\nConnection: close\r\n\r\n' $'^HTTP/1.1 200 OK\n.*\nclosed\n'
    answer 'GET /status HTTP/1.0\r\n\r\n' $'200 OK\nContent-Type: application/json\n.*\nclosed\n'
    answer 'GET /status HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n' $' 200 .*\nopen\n'
    answer 'GET http://localhost:80/status HTTP/1.1\r\nHost: x\r\n\r\n' ' 200 '
    answer 'HEAD / HTTP/1.1\r\nHost: [::1]:9\r\n\r\n' $' 200 OK\nContent-Type: text/html; charset=utf-8\n.*\nopen\nbody 0 of [0-9]{4}'
    answer 'HEAD /none HTTP/1.1\r\nHost: localhost\r\n\r\n' $' 404 .*\nbody 0 of 14$'
    printf 'GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n%.0s' {1..50} >"$T/pipelined"
    printf 'GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >>"$T/pipelined"
    need nc netcat-openbsd
    timeout "$DEADLINE" nc -d 127.0.0.1 "$WEB" </dev/null >/dev/null 2>&1 &
    local idle=$!
    timeout "$DEADLINE" nc 127.0.0.1 "$WEB" <"$T/pipelined" >"$T/answers"
    equal "$(grep -c '^HTTP/1.1 404' "$T/answers")" 50
    equal "$(grep -c '^HTTP/1.1 200' "$T/answers")" 1
    kill "$idle"
    stop_hark
}

@test "metrics: nothing keeps what it says, or runs or frames it elsewhere" {
    with_metrics
    run metrics raw 'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'
    match "$output" $'\nCache-Control: no-store\n'
    match "$output" $'\nX-Content-Type-Options: nosniff\n'
    match "$output" "Content-Security-Policy: default-src 'none'; script-src 'nonce-([0-9a-f]{32})'; style-src 'nonce-[0-9a-f]{32}'; .*frame-ancestors 'none'"
    local nonce=${BASH_REMATCH[1]}
    metrics get / >"$T/page"
    refute grep -q -e '@NONCE@' -e "$nonce" "$T/page"
    equal "$(grep -cE '<(script|style) nonce="[0-9a-f]{32}">' "$T/page")" 2
    refute grep -qE '(src|href)="?(https?:)?//' "$T/page"
}

@test "metrics: what is no proper request is refused, and the connection with it" {
    with_metrics
    local bad
    for bad in 'GET\r\n\r\n' 'GET /\r\n\r\n' 'GET / HTTP/1.1\r\n\r\n' 'GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n' ' GET / HTTP/1.1\r\n\r\n' \
        'GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n' 'GET x HTTP/1.1\r\nHost: localhost\r\n\r\n' 'GET /\0 HTTP/1.0\r\n\r\n' \
        'GET / HTTP/1.1\r\nHost : localhost\r\n\r\n' 'GET / HTTP/1.1\r\nHost: localhost\r\n folded: 1\r\n\r\n' \
        'GET / HTTP/1.1\r\nHost: localhost\r\nA: b\nC: d\r\n\r\n' 'GET / HTTP/1.1\nHost: localhost\n\n\r\n\r\n' '\x16\x03\x01\0\r\n\r\n' \
        'GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello' '\r\n\r\n' 'GET / http/1.1\r\nHost: localhost\r\n\r\n' \
        'GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n' 'GET / HTTP/1.1\r\nHost:\r\n\r\n'; do
        answer "$bad" $'^HTTP/1.1 400 Bad Request\n.*\nclosed\nbody 16 of 16$'
    done
    answer 'GET / HTTP/2.0\r\nHost: localhost\r\n\r\n' $'^HTTP/1.1 505 .*\nclosed\n'
    answer 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' $'^HTTP/1.1 505 .*\nclosed\n'
    for bad in POST PUT DELETE OPTIONS TRACE CONNECT get; do
        answer "$bad / HTTP/1.1\r\nHost: localhost\r\n\r\n" $'^HTTP/1.1 405 .*\nAllow: GET, HEAD\nclosed\n'
    done
    for bad in /metrics/ /Metrics //metrics /../metrics /metrics%00 /status.html "/$(printf 'a%.0s' {1..200})"; do
        answer "GET $bad HTTP/1.1\r\nHost: localhost\r\n\r\n" $'^HTTP/1.1 404 .*\nopen\n'
    done
    answer "GET / HTTP/1.1\r\nHost: localhost\r\nA: $(printf 'a%.0s' {1..9000})\r\n\r\n" $'^HTTP/1.1 431 .*\nclosed\n'
    shows 'hark_connections_accepted_total 0'
    stop_hark
}

@test "metrics: a name that was made to point here is refused" {
    with_metrics
    local host
    for host in evil.example localhost.evil.example 127.0.0.1.evil.example '127.0.0.1@evil' 1.2.3 '[::1' localhos; do
        answer "GET /status HTTP/1.1\r\nHost: $host\r\n\r\n" $'^HTTP/1.1 4(21|00) .*\nclosed\n'
    done
    for host in LOCALHOST:8 127.0.0.1 192.0.2.7:80 '[2001:db8::1]:80' '[::1]'; do
        answer "GET /status HTTP/1.1\r\nHost: $host\r\n\r\n" '^HTTP/1.1 200 '
    done
    answer 'GET http://evil.example/status HTTP/1.1\r\nHost: localhost\r\n\r\n' '^HTTP/1.1 421 '
}

@test "metrics: crowds, silence and resets stop nobody else for long" {
    with_metrics
    spawn_crowd many "127.0.0.1:$WEB" burst 64 5 "$T/go"
    wait_for_line many 'connected 64'
    crowd "$PORT" serial 20 # the service does not notice
    touch "$T/go"
    finish many
    crowd "127.0.0.1:$WEB" reset 100
    eventually shows 'hark_connections_accepted_total 20'
    # who has connected and says nothing gives way to who asks
    rm "$T/go"
    spawn_crowd many "127.0.0.1:$WEB" burst 500 5 "$T/go"
    wait_for_line many '^connected ' # some of them may be gone again already
    local before=$EPOCHREALTIME
    shows 'hark_connections_accepted_total 20'
    at_most $(((${EPOCHREALTIME/[.,]/} - ${before/[.,]/}) / 1000)) 10000 "ms until there was an answer"
    touch "$T/go"
    finish many
    # who does not read his answers, either
    yes $'GET / HTTP/1.1\r\nHost: localhost\r\n\r' | head -c 1000000 >"$T/requests"
    spawn flood bash -c "exec 7<>/dev/tcp/127.0.0.1/$WEB; cat '$T/requests' >&7; echo sent; exec tail -f /dev/null"
    wait_for_line flood sent
    eventually shows 'hark_connections_accepted_total 20'
    kill "${background[flood]}"
    equal "$(helper | wc -l)" 1
    at_most "$(resident_kib "$(helper)")" "$(grep -q __asan_init "$HARK" && echo 400000 || echo 20000)" "KiB of memory"
    stop_hark
}

@test "metrics: the service's port does not know of it" {
    with_metrics
    run client "$PORT" 'text:GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n' end all
    match "$output" '^GET /metrics HTTP/1.1'
    refute match "$output" hark_
}

@test "metrics: over a unix socket, for this user, under any name" {
    serve --metrics "unix:$T/web"
    WEB="unix:$T/web"
    grep -qF "hark: metrics path=$T/web" "$LOG"
    equal "$(stat -c %a "$T/web")" 600
    crowd "$PORT" serial 3
    eventually shows 'hark_connections_accepted_total 3'
    answer 'GET /status HTTP/1.1\r\nHost: hark\r\n\r\n' '^HTTP/1.1 200 '
    stop_hark
    [ ! -e "$T/web" ]
}

@test "metrics: on IPv6 and under the name that was given" {
    serve --metrics '[::1]:0'
    grep -qE '^hark: metrics address=::1 port=[0-9]+$' "$LOG" || skip "no IPv6 here"
    serve --metrics localhost:0 --log-format json
    grep -qE '"event":"metrics",.*"address":"127.0.0.1","port":[0-9]+' "$LOG"
}

# ---- its process ----

@test "metrics: it has no rights, and no descriptors but its own" {
    [ "$(id -u)" -eq 0 ] || skip "only root may look"
    with_metrics --processes 2 --handler exec cat
    local pid
    pid=$(helper)
    match "$(cat "/proc/$pid/status")" $'\nUid:\t65534\t65534\t65534\t65534\nGid:\t65534\t65534\t65534\t65534\n.*\nGroups:[\t ]*\n'
    match "$(cat "/proc/$pid/status")" $'\nCapInh:\t0+\nCapPrm:\t0+\nCapEff:\t0+\n.*\nCapAmb:\t0+\nNoNewPrivs:\t1\n'
    equal "$(tr -d '\0' <"/proc/$pid/environ")" '' "its environment"
    equal "$(readlink "/proc/$pid/cwd")" /
    equal "$(readlink "/proc/$pid/fd/0" "/proc/$pid/fd/1" | sort -u)" /dev/null
    # its listener and the supervisor; beside these the standard three, and its loop's: two epoll sets, and what wakes it
    equal "$(find "/proc/$pid/fd" -lname 'socket:*' | wc -l)" 2 "its sockets"
    without_sanitizers
    at_most "$(descriptors "$pid")" 8 "its descriptors"
    match "$(grep memfd:hark "/proc/$pid/maps")" '^[^ ]+ r--s '
    equal "$(grep -c memfd:hark "/proc/$pid/maps")" 1
}

# Root without capabilities cannot become nobody, and is warned.
warned_of_nobody() {
    WRAPPER=(setpriv --inh-caps=-all --bounding-set=-all)
}

@test "metrics: what it has to say goes where --log-to says, also once the file was opened anew" {
    [ "$(id -u)" -eq 0 ] || skip "only root can lack its rights"
    warned_of_nobody
    serve --metrics "unix:$T/metrics" --log-to "$T/log"
    local warning=' hark: warning: the metrics process cannot become nobody '
    eventually has_lines "$T/log" "^[0-9T:.-]+Z$warning" 1
    refute grep warning "$LOG"
    mv "$T/log" "$T/log.1"
    kill -USR1 "$HARK_PID"
    eventually test -e "$T/log"
    kill -KILL "$(helper)"
    eventually has_lines "$T/log" "^[0-9T:.-]+Z$warning" 1
    equal "$(grep -c "$warning" "$T/log.1")" 1
    # and it does not keep the file
    WEB=unix:$T/metrics
    eventually shows 'hark_connections 0'
    equal "$(find "/proc/$(helper)/fd" -lname "$T/log*" | wc -l)" 0
    stop_hark
}

@test "metrics: in the journal, what it says has a priority" {
    [ "$(id -u)" -eq 0 ] || skip "only root can lack its rights"
    warned_of_nobody
    WRAPPER+=(sh -c 'JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@"' sh)
    serve --metrics "unix:$T/metrics"
    wait_for_log '^<4>hark: warning: the metrics process cannot become nobody '
    stop_hark
}

@test "metrics: no key is in its memory" {
    [ "$(id -u)" -eq 0 ] || skip "only root may look"
    need openssl openssl
    openssl ecparam -genkey -name prime256v1 -noout -out "$T/key.pem"
    openssl req -x509 -key "$T/key.pem" -subj /CN=localhost -days 2 -out "$T/cert.pem"
    with_metrics --ssl-cert "$T/cert.pem" --ssl-key "$T/key.pem"
    client --tls "$PORT" echo:100 end same
    metrics text >/dev/null
    has_key "$(workers)" # so it can be found
    refute has_key "$(helper)"
}

has_key() { # PID: the private number, either way round, or the lines of the file
    "$PYTHON" - "$1" "$T/key.pem" <<'END'
import base64, re, sys
lines = open(sys.argv[2]).read().split('\n')
der = base64.b64decode(''.join(lines[1:-2]))
key = der[7:39]
assert der[5:7] == b'\x04\x20', der.hex()
needles = [key, key[::-1], lines[1].encode()]
found = False
memory = open(f'/proc/{sys.argv[1]}/mem', 'rb', 0)
for line in open(f'/proc/{sys.argv[1]}/maps'):
    begin, end, rights = re.match(r'([0-9a-f]+)-([0-9a-f]+) (....)', line).groups()
    if rights[0] == 'r' and '[v' not in line and int(end, 16) - int(begin, 16) < 1 << 28:
        memory.seek(int(begin, 16))
        piece = memory.read(int(end, 16) - int(begin, 16))
        found |= any(needle in piece for needle in needles)
sys.exit(not found)
END
}

@test "metrics: it is restarted when it is killed, and counts as no process that serves" {
    with_metrics --processes 2
    crowd "$PORT" serial 4
    local pid
    pid=$(helper)
    kill -KILL "$pid"
    wait_for_log '^hark: restart process=metrics signal=9 '
    eventually shows 'hark_connections_accepted_total 4' 'hark_process_restarts_total 0' 'hark_processes 2'
    stop_hark
}

@test "metrics: it answers throughout a drain, and ends with it" {
    with_metrics --processes 2
    spawn_client peer "$PORT" echo:1000 say:held hold:"$T/go" echo:1000 end same
    wait_for_line peer held
    local pid
    pid=$(helper)
    kill -TERM "$HARK_PID" "$pid" # as a service manager does that tells all
    wait_for_log '^hark: stop '
    eventually shows 'hark_connections 1' 'hark_received_bytes_total 1000'
    touch "$T/go"
    finish peer
    wait_for_exit
    equal "$STATUS" 0
    is_gone "$pid"
}

@test "metrics: it does not keep hark alive" {
    with_metrics --once
    spawn_client peer "$PORT" echo:1000 say:held hold:"$T/go" end same
    wait_for_line peer held
    eventually refused # the supervisor's copies of the listener are closed, too
    shows 'hark_connections_accepted_total 1'
    touch "$T/go"
    finish peer
    wait_for_exit
    equal "$STATUS" 0
    with_metrics --max-accepts 2 --processes 2
    crowd "$PORT" serial 2
    wait_for_exit
    equal "$STATUS" 0
    with_metrics --exit-idle 2s
    crowd "$PORT" serial 1
    wait_for_exit
    equal "$STATUS" 0
}

refused() {
    [ "$(client "$PORT" end)" = refused ]
}

@test "metrics: it ends when the supervisor is killed, and with INT and QUIT" {
    local pid signal
    with_metrics
    pid=$(helper)
    kill -KILL "$HARK_PID"
    eventually is_gone "$pid"
    for signal in INT QUIT; do
        with_metrics
        pid=$(helper)
        stop_hark "$signal" "$([ "$signal" = INT ] && echo 130 || echo 0)"
        is_gone "$pid"
    done
}

@test "metrics: no descriptor of it is in the workers, or a program's" {
    with_metrics --handler exec sh -c 'ls -l /proc/self/fd'
    local inode
    inode=$(sed -n "s/^ *[0-9]*: 0100007F:$(printf %04X "$WEB") .* 0A .* \([0-9]*\) 1 [0-9a-f]* .*/\1/p" /proc/net/tcp)
    match "$inode" '^[0-9]+$'
    [ -n "$(find "/proc/$HARK_PID/fd" -lname "socket:?$inode?")" ]
    [ -z "$(find "/proc/$(workers)/fd" -lname "socket:?$inode?")" ]
    without_valgrind "it opens its log anew in a child"
    run client "$PORT" end all
    equal "$(grep -c ' -> ' <<<"$output")" 4 "descriptors: $output"
}

@test "metrics: its name is not for others" {
    without_valgrind "the process has another name"
    run bash -c "exec -a 'hark: metrics' '$HARK' 1 2 3"
    equal "$status" 2
    match "$output" 'is for its own use'
}

# ---- bad input ----

@test "metrics: what cannot be is said in one line before anything is bound" {
    local bad
    for bad in '' : :9100 x 1.2.3.4 1.2.3.4: 1.2.3.4:x 70000 -1 1.2.3.4:70000 ::1:80 '[::1]' '[1.2.3.4]:80' 'a b:c' unix: unix:@ '[]:1' 1:2:3; do
        run_hark --unix "$T/service" --metrics "$bad"
        equal "$status" 2 "the status of $bad"
        equal "$output" "hark: error: option --metrics: \"$bad\" is not ADDRESS:PORT, PORT (for this machine only) or unix:PATH"
    done
    run_hark --check --port 0 --metrics no.such.name.invalid:80
    equal "$status" 2
    match "$output" 'cannot resolve .*no.such.name.invalid'
    with_metrics
    touch "$T/file"
    for bad in "$WEB" "127.0.0.1:$WEB" "unix:$T/file" "unix:$T/no/such" 192.0.2.1:80; do
        run_hark --unix "$T/service" --metrics "$bad"
        equal "$status" 2 "the status of $bad"
        match "$output" '^hark: error: option --metrics: [^'$'\n'']*$'
        [ ! -e "$T/service" ]
    done
}

@test "metrics: if the service cannot listen, nothing of it stays" {
    serve
    run_hark --bind 127.0.0.1 --port "$PORT" --metrics "unix:$T/web"
    equal "$status" 2
    match "$output" 'Address already in use'
    [ ! -e "$T/web" ]
}

@test "metrics: --check tells of it, and binds nothing" {
    run_hark --check --bind 127.0.0.1 --port 8888 --metrics 9100
    equal "$status" 0
    match "$output" $'hark: listen .*\nhark: metrics address=127.0.0.1 port=9100$'
    run_hark --check --port 8888 --bind 127.0.0.1 --metrics "unix:$T/web"
    match "$output" "hark: metrics path=$T/web"
    [ ! -e "$T/web" ]
}
