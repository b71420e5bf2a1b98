#!/usr/bin/env bats
# TLS: reloads under load, and what many connections leave behind.
#
# shellcheck disable=SC2016,SC2034,SC2153,SC2154 # dollar signs of others; variables of lib.bash

load ../lib
load ../certs
load leaves

setup_file() {
    make_ca ca
    make_cert server ca DNS:localhost,IP:127.0.0.1
    make_cert next ca DNS:localhost,IP:127.0.0.1
}

secure() {
    serve --ssl-cert "$C/server.pem" "$@"
}

# ---- reload ----

@test "tls: 100 SIGHUPs under load: no connection fails, and nothing grows" {
    without_sanitizers
    cp "$C/server.pem" "$T/cert.pem"
    serve --processes 2 --ssl-cert "$T/cert.pem"
    local i workers before after pid
    crowd "tls:$PORT" serial 500
    for i in $(seq 20); do # what a reload needs is there afterwards
        reload_with server
    done
    mapfile -t workers < <(pgrep -P "$HARK_PID")
    before=$(for pid in "$HARK_PID" "${workers[@]}"; do echo "$(descriptors "$pid") $(private_kib "$pid")"; done)
    for i in 1 2 3; do
        spawn_crowd "load$i" "tls:$PORT" serial 1500
    done
    spawn_crowd held "tls:$PORT" hold 20 1000 "$T/go"
    wait_for_line held '^held 20'
    for i in $(seq 50); do
        reload_with next
        reload_with server
    done
    for i in 1 2 3; do
        finish "load$i"
        equal "$(output_of "load$i")" "done 1500"
    done
    touch "$T/go"
    finish held
    equal "$(tail -n 1 "$T/held")" "done 20"
    equal "$(grep -c '^hark: reload ' "$LOG")" 120
    refute grep -qE 'error|restart' "$LOG"
    equal "$(pgrep -P "$HARK_PID" | tr '\n' ' ')" "$(printf '%s ' "${workers[@]}")" "the workers"
    i=0
    for pid in "$HARK_PID" "${workers[@]}"; do
        i=$((i + 1))
        read -r had kib < <(sed -n "${i}p" <<<"$before")
        eventually has_descriptors "$pid" "$had"
        at_most $(($(private_kib "$pid") - kib)) 512 "KiB more in process $pid"
    done
    stop_hark
}

reload_with() { # NAME
    cp "$C/$1.pem" "$T/new.pem"
    mv "$T/new.pem" "$T/cert.pem"
    reload
}

# ---- what is left behind ----

@test "tls: 10,000 short connections to echo leave nothing" {
    secure
    leaves_nothing 1000 10000 128 "tls:$PORT"
}

@test "tls: 1,000 short connections to exec leave nothing" {
    secure --handler exec cat
    leaves_nothing 200 1000 128 "tls:$PORT"
}

@test "tls: 2,000 short connections, forwarded to TLS, leave nothing" {
    serve --ssl-cert "$C/server.pem"
    serve --ssl-cert "$C/server.pem" --handler forward --forward-ssl --forward-ssl-ca "$C/ca.pem" "127.0.0.1:$PORT"
    leaves_nothing 500 2000 128 "tls:$PORT"
}

@test "tls: 2,000 handshakes given up leave nothing, and nobody waits for them" {
    local descriptors memory round
    secure
    for round in 1 2 3 4 5 6; do # so many at once take what is kept for the next
        python "$TESTS/tls_abuse.py" "$PORT" storm 500
    done
    spawn_crowd held "tls:$PORT" hold 5 1000 "$T/go"
    wait_for_line held '^held 5'
    eventually has_connections 5
    descriptors=$(descriptors "$HARK_PID")
    memory=$(private_kib "$HARK_PID")
    for round in 1 2 3 4; do
        equal "$(python "$TESTS/tls_abuse.py" "$PORT" storm 500)" "done 500"
        equal "$(crowd "tls:$PORT" serial 10)" "done 10"
    done
    eventually has_descriptors "$HARK_PID" "$descriptors"
    grep -q __asan_init "$HARK" || at_most $(($(private_kib "$HARK_PID") - memory)) 256 "KiB more"
    touch "$T/go"
    finish held
    stop_hark
}

has_connections() {
    [ "$(find "/proc/$HARK_PID/fd" -lname 'socket:*' | wc -l)" -eq $(($1 + 1)) ]
}
