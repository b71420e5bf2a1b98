#!/usr/bin/env bats
# --sandbox: every process that serves is in it, and serves as ever. What cannot be done in it is in tests/unit/test_sandbox.c.
#
# shellcheck disable=SC2034,SC2153,SC2154 # variables of lib.bash

load lib
load certs

setup_file() {
    make_ca ca
    make_cert server ca DNS:localhost,IP:127.0.0.1
    make_cert second ca DNS:localhost
}

# LeakSanitizer would look at its process by ptrace(2), and be killed for it.
setup() {
    export ASAN_OPTIONS=$NO_LEAK_CHECK
}

workers() {
    pgrep -P "$HARK_PID"
}

has_status() { # PID NAME VALUE
    grep -qE "^$2:[[:blank:]]+$3\$" "/proc/$1/status" || fail "process $1: $(grep "^$2:" "/proc/$1/status"), not $3"
}

exchanges() { # BYTES [ADDRESS]
    run client "${2:-$PORT}" "exchange:$1"
    equal "$output" "same $1 eof"
}

# The kernel's name for a worker that the filter has killed is in no log of ours, but this is.
nobody_died() { # [LOG...]
    local trouble='(restart|error|warning)'
    [ -z "${HARK_VALGRIND:-}" ] || trouble='(restart|error|warning(?!: --sandbox has to do without))' # see need_filter
    refute grep -qP "\bhark: $trouble" "${@:-$LOG}"
}

need_filter() {
    without_valgrind "it lets nobody load a filter of system calls"
}

@test "sandbox: each process is in it, and says so; who supervises is not" {
    need_filter
    serve -vv --sandbox --processes 2
    wait_for_log '^hark: sandbox landlock=([1-9]|no) seccomp=yes no_new_privs=yes$' 2
    local pid count=0
    for pid in $(workers); do
        has_status "$pid" Seccomp 2
        has_status "$pid" NoNewPrivs 1
        count=$((count + 1))
    done
    equal "$count" 2 "the number of workers"
    has_status "$HARK_PID" Seccomp 0
    has_status "$HARK_PID" NoNewPrivs 0
    stop_hark
}

@test "sandbox: one process has a supervisor, too, and another that takes its place is in it as well" {
    need_filter
    serve -vv --sandbox
    kill -KILL "$(workers)"
    wait_for_log '^hark: sandbox ' 2
    exchanges 1000
    has_status "$(workers)" Seccomp 2
    stop_hark
}

@test "sandbox: the process that answers at --metrics is in one of its own" {
    need_filter
    serve --sandbox --metrics "unix:$T/metrics" --ssl-cert "$C/server.pem"
    local pid
    pid=$(pgrep -P "$HARK_PID" -x hark | while read -r pid; do grep -qz '^hark: metrics' "/proc/$pid/cmdline" && echo "$pid"; done)
    has_status "$pid" Seccomp 2
    has_status "$pid" NoNewPrivs 1
    run tls_client "$PORT" exchange:1000
    equal "$output" "same 1000 eof"
    run python "$TESTS/metrics.py" "unix:$T/metrics" text
    equal "$status" 0
    for page in / /status; do
        run python "$TESTS/metrics.py" "unix:$T/metrics" get "$page"
        equal "$status" 0
    done
    nobody_died
    stop_hark
    serve --metrics "unix:$T/metrics" --processes 1
    pid=$(pgrep -P "$HARK_PID" | tail -n 1)
    has_status "$pid" Seccomp 0 # only on demand
}

@test "sandbox: handlers that need more have none" {
    local handler
    for handler in 'exec true' 'shell true' stdio; do
        # shellcheck disable=SC2086 # words
        run_hark --port 0 --sandbox --handler $handler
        equal "$status" 2
        equal "$output" "hark: error: option --sandbox is for --handler echo, discard or forward, not for ${handler%% *}"
    done
}

@test "sandbox: echo and discard, little and much, with and without TLS" {
    serve -v --sandbox --unix "$T/s" --keepalive 60 --idle-timeout 1m --max-per-ip 10
    exchanges 100
    exchanges 20000000
    exchanges 3000000 "unix:$T/s"
    nobody_died
    stop_hark
    refute test -e "$T/s"
    serve -v --sandbox --handler discard
    run client "$PORT" send:5000000 end count
    equal "$output" "0 eof"
    nobody_died
    serve -v --sandbox --ssl-cert "$C/server.pem"
    run tls_client "$PORT" exchange:3000000
    equal "$output" "same 3000000 eof"
    nobody_died
}

@test "sandbox: forward to an address, a name, unix sockets, over TLS" {
    serve --unix "$T/s" --unix "@hark.$$.sandbox"
    local target=$PORT to
    for to in "127.0.0.1:$target" "localhost:$target" "unix:$T/s" "unix:@hark.$$.sandbox"; do
        serve -v --sandbox --handler forward "$to"
        exchanges 1000
        exchanges 20000000
        nobody_died
    done
    serve_target --ssl-cert "$C/server.pem"
    serve -v --sandbox --handler forward --forward-ssl --forward-ssl-ca "$C/ca.pem" "localhost:$TARGET_PORT"
    exchanges 3000000
    nobody_died
}

@test "sandbox: forward asks those whom the system trusts" {
    mkdir "$T/elsewhere" "$T/certs"
    cp "$C/ca.pem" "$T/elsewhere/"
    ln -s "$T/elsewhere/ca.pem" "$T/certs/"
    openssl rehash "$T/certs"
    serve_target --ssl-cert "$C/server.pem"
    WRAPPER=(env SSL_CERT_DIR="$T/certs" SSL_CERT_FILE=/nonexistent)
    serve -v --sandbox --handler forward --forward-ssl "localhost:$TARGET_PORT"
    exchanges 1000
    nobody_died
}

@test "sandbox: new certificates and rules on HUP, a new log file on USR1, which only the supervisor can open" {
    cp "$C/server.pem" "$T/cert.pem"
    echo 127.0.0.1 >"$T/rules"
    serve -v --sandbox --processes 2 --ssl-cert "$T/cert.pem" --allow "@$T/rules" --log-to "$T/log"
    equal "$(subject_for -servername localhost)" server "the certificate"
    cp "$C/second.pem" "$T/cert.pem"
    echo 127.0.0.2 >>"$T/rules"
    kill -HUP "$HARK_PID"
    eventually has_line "$T/log" ' reload certificates=1 allow=2$'
    shows_second() { [ "$(subject_for -servername localhost)" = second ]; }
    eventually shows_second
    mv "$T/log" "$T/log.1"
    kill -USR1 "$HARK_PID"
    says_so() { tls_client "$PORT" exchange:10 && has_line "$T/log" ' close id='; }
    eventually says_so
    nobody_died "$T/log" "$T/log.1"
    stop_hark
}

@test "sandbox: status, drain, and how --once ends" {
    serve -v --sandbox --max-accepts 2
    spawn_client stays "$PORT" echo:10 say:served hold:"$T/go" echo:10 end same
    wait_for_line stays served
    kill -USR2 "$HARK_PID"
    wait_for_log '^hark: status process=0 .* connections=1 '
    kill -TERM "$HARK_PID"
    wait_for_log '^hark: stop '
    run client "$PORT" count
    equal "$output" refused
    touch "$T/go"
    finish stays
    wait_for_exit
    equal "$STATUS" 1 # one was served, and not two
    nobody_died
    serve -v --sandbox --once
    exchanges 1000
    wait_for_exit
    equal "$STATUS" 0
    serve -v --sandbox --once
    client "$PORT" echo:10 reset
    wait_for_exit
    equal "$STATUS" 1
    nobody_died
}
