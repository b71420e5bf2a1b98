#!/usr/bin/env bats
# Tickets: who may resume a session, and who may not.
#
# shellcheck disable=SC2016,SC2034,SC2153,SC2154 # dollar signs of others; variables of lib.bash

load lib
load certs

setup_file() {
    make_ca ca
    make_ca clients
    make_cert open ca DNS:open.test,DNS:localhost
    make_cert closed ca DNS:closed.test
    make_cert alice clients email:alice@example.org
}

secure() {
    serve -v --ssl-cert "$C/open.pem" "$@"
}

# The second name wants a certificate.
two_names() {
    secure --ssl-cert "$C/closed.pem" --ssl-ca "$C/clients.pem" "$@"
}

ticket_keys() { # FILE COUNT
    local i
    for i in $(seq "$2"); do
        openssl rand -base64 80 | tr -d '\n'
        echo
    done >"$1"
    chmod 600 "$1"
}

both_versions() { # COMMAND...
    local version
    for version in 1.2 1.3; do
        "$@" "$version" || fail "TLS $version"
    done
}

# talk OPTION...: openssl's client is answered: by then a ticket has come. Its output is in $T/talk.
talk() {
    converse talk ping '^ping' openssl s_client -connect "127.0.0.1:$PORT" "$@"
}

one_ticket() {
    talk "-tls1_${1#1.}" -msg
    equal "$(grep -c NewSessionTicket "$T/talk")" 1
}

@test "tickets: one a handshake" {
    secure
    both_versions one_ticket
}

resumes_everywhere() {
    local steps=() i
    for i in $(seq 16); do
        steps+=("$PORT")
    done
    run resume --version "$1" "$PORT" keep "${steps[@]}"
    equal "$output" "full$(printf '\nresumed%.0s' $(seq 16))"
}

@test "tickets: a session goes on in any of 4 processes" {
    secure -v --processes 4
    both_versions resumes_everywhere
    # they were not all served by one
    [ "$(grep -c '^hark: process ' "$LOG")" -eq 4 ]
}

@test "tickets: each resumption brings a new one, with which it goes on" {
    secure
    run resume --version 1.3 "$PORT" keep "$PORT" keep "$PORT" keep "$PORT"
    equal "$output" $'full\nresumed\nresumed\nresumed'
}

@test "tickets: openssl and gnutls resume, too" {
    need gnutls-cli gnutls-bin
    secure
    local version
    for version in 1_2 1_3; do
        talk "-tls$version" -sess_out "$T/session"
        run s_client "-tls$version" -sess_in "$T/session" </dev/null
        match "$output" $'\nReused, TLSv1'
    done
    converse gnutls ping '^ping' gnutls-cli --resume --waitresumption --x509cafile "$C/ca.pem" -p "$PORT" localhost
    match "$(output_of gnutls)" 'This is a resumed session'
}

# ---- between hosts ----

across_hosts() {
    run resume --version "$1" "$PORT" keep "$other" "$PORT"
    equal "$output" $'full\nresumed\nresumed'
}

not_across_hosts() {
    run resume --version "$1" "$PORT" keep "$other"
    equal "$output" $'full\nfull'
}

@test "tickets: hosts that share a file of keys resume each other's sessions, others do not" {
    ticket_keys "$T/keys" 3
    secure --ssl-ticket-keys "$T/keys"
    other=$PORT
    secure --ssl-ticket-keys "$T/keys" --processes 2
    both_versions across_hosts
    secure
    both_versions not_across_hosts
}

@test "tickets: the file is spread over hosts one after the other: the last but one encrypts, all decrypt" {
    ticket_keys "$T/three" 3
    tail -n 2 "$T/three" >"$T/later"
    head -n 2 "$T/three" >"$T/before"
    head -n 1 "$T/three" >"$T/single"
    secure --ssl-ticket-keys "$T/before"
    local before=$PORT
    secure --ssl-ticket-keys "$T/three"
    local three=$PORT
    secure --ssl-ticket-keys "$T/later"
    local later=$PORT
    secure --ssl-ticket-keys "$T/single"
    local single=$PORT
    # "before" encrypts with the 1st, "three" and "later" with the 2nd, "single" with its only one
    run resume "$before" keep "$three" "$later" "$single" drop "$three" keep "$before" "$later" "$single" drop "$single" keep "$before" "$later"
    equal "$(tr '\n' ' ' <<<"$output")" "full resumed full resumed full resumed resumed full full resumed full "
}

# ---- with time ----

@test "tickets: SIGHUP rotates: an old one is good for three more, and not for four; in all processes" {
    secure --processes 2
    spawn_resume peer "$PORT" keep say:first hold:"$T/go3" "$PORT" "$PORT" hold:"$T/go4" "$PORT" "$PORT"
    wait_for_line peer first
    reload
    reload
    reload
    touch "$T/go3"
    eventually has_lines "$T/peer" resumed 2
    reload
    touch "$T/go4"
    finish peer
    equal "$(tr '\n' ' ' <"$T/peer")" "full first resumed resumed full full "
}

@test "tickets: SIGHUP reads the file of keys again" {
    ticket_keys "$T/keys" 2
    ticket_keys "$T/new" 2
    secure --ssl-ticket-keys "$T/keys"
    spawn_resume peer "$PORT" keep say:first hold:"$T/go" "$PORT" hold:"$T/go2" "$PORT"
    wait_for_line peer first
    cat "$T/keys" "$T/new" >"$T/all"
    mv "$T/all" "$T/keys"
    reload
    touch "$T/go"
    eventually has_line "$T/peer" resumed
    cp "$T/new" "$T/keys"
    reload
    touch "$T/go2"
    finish peer
    equal "$(tr '\n' ' ' <"$T/peer")" "full first resumed full "
}

@test "tickets: sessions outlive a renewed certificate" {
    cp "$C/open.pem" "$T/cert.pem"
    serve -v --ssl-cert "$T/cert.pem"
    spawn_resume peer "$PORT" keep say:first hold:"$T/go" "$PORT"
    wait_for_line peer first
    openssl req -x509 -CA "$C/ca.pem" -CAkey "$C/ca.key" -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 5 -subj /CN=renewed \
        -addext subjectAltName=DNS:open.test,DNS:localhost -keyout "$T/key" -out "$T/crt" 2>/dev/null
    cat "$T/crt" "$T/key" >"$T/cert.pem"
    reload
    equal "$(subject_for -noservername)" renewed
    touch "$T/go"
    finish peer
    equal "$(tr '\n' ' ' <"$T/peer")" "full first resumed "
}

# ---- a ticket of one name opens no other (CVE-2025-23419) ----

not_across_names() {
    # without a certificate: refused, whatever was resumed before
    run resume --version "$1" "$PORT/open.test" keep "$PORT/open.test" "${other:-$PORT}/closed.test"
    match "$output" $'^full\nresumed\nalert: .*(CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE)$'
    # with one it has to be shown, and the ticket is not taken
    run resume --version "$1" --cert "$C/alice.pem" "$PORT/open.test" keep "${other:-$PORT}/closed.test"
    equal "$output" $'full\nfull'
    # no name at all is the first one's
    run resume --version "$1" "$PORT" keep "${other:-$PORT}/closed.test"
    match "$output" $'^full\nalert: .*(CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE)$'
}

@test "tickets: one taken without a client certificate is refused for a name that wants one: one server" {
    two_names
    both_versions not_across_names
    wait_for_log '^hark: reject .* sni=closed\.test error="peer did not return a certificate"$' 4
}

@test "tickets: one taken without a client certificate is refused for a name that wants one: several processes" {
    two_names --processes 3
    both_versions not_across_names
}

@test "tickets: one taken without a client certificate is refused for a name that wants one: two servers that share keys" {
    ticket_keys "$T/keys" 2
    two_names --ssl-ticket-keys "$T/keys"
    other=$PORT
    two_names --ssl-ticket-keys "$T/keys"
    both_versions not_across_names
    # and a server that wants one of everybody, under the name under which another wants none
    serve -v --ssl-ca "$C/clients.pem" --ssl-cert "$C/open.pem" --ssl-ticket-keys "$T/keys"
    local strict=$PORT version
    secure --ssl-ticket-keys "$T/keys"
    for version in 1.2 1.3; do
        run resume --version "$version" "$PORT/open.test" keep "$strict/open.test"
        match "$output" $'^full\nalert: .*(CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE)$'
    done
}

optional_is_no_require() {
    run resume --version "$1" "$PORT/open.test" keep "$PORT/open.test" "$PORT/closed.test"
    match "$output" $'^full\nresumed\nalert: .*(CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE)$'
}

@test "tickets: one of a name that does not insist on a certificate opens none that does" {
    serve -v --ssl-cert "$C/open.pem" --ssl-ca "$C/clients.pem" --ssl-verify optional --ssl-cert "$C/closed.pem" --ssl-ca "$C/clients.pem"
    both_versions optional_is_no_require
}

keeps_its_name() {
    run resume --version "$1" --cert "$C/alice.pem" "$PORT/closed.test" keep "$PORT/closed.test" "$PORT/open.test"
    equal "$output" $'full SUCCESS CN=alice\nresumed SUCCESS CN=alice\nfull NONE'
}

@test "tickets: a resumed session knows whose it is" {
    two_names --handler shell 'read -r line; echo "$SSL_CLIENT_VERIFY $SSL_CLIENT_S_DN"'
    both_versions keeps_its_name
}

@test "tickets: who has been revoked since cannot resume" {
    local version
    for version in 1.2 1.3; do
        make_crl crl clients
        serve -v --ssl-ca "$C/clients.pem" --ssl-crl "$C/crl" --ssl-cert "$C/open.pem"
        rm -f "$T/go"
        spawn_resume peer --version "$version" --cert "$C/alice.pem" "$PORT" keep "$PORT" say:first hold:"$T/go" "$PORT"
        wait_for_line peer first
        make_crl crl clients alice
        reload
        touch "$T/go"
        finish peer
        match "$(<"$T/peer")" $'^full\nresumed\nfirst\nalert: .*CERTIFICATE_REVOKED$'
        stop_hark
    done
}
