#!/usr/bin/env bats
# TLS: what scanners find.
#
# shellcheck disable=SC2016,SC2034,SC2153,SC2154 # dollar signs of others; variables of lib.bash

load ../lib
load ../certs

setup_file() {
    make_ca ca
    make_cert server ca DNS:localhost,IP:127.0.0.1
    make_cert serverrsa ca DNS:localhost,IP:127.0.0.1 rsa
}

secure() {
    serve --ssl-cert "$C/server.pem" "$@"
}

# What scanners ask is answered as HTTP, so that they get somewhere.
web() {
    secure --ssl-cert "$C/serverrsa.pem" --handler exec sh -c 'printf "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"'
}

@test "tls: sslscan: 1.2 and 1.3, ciphers with forward secrecy and AEAD, groups of curves, and nothing else" {
    need sslscan sslscan
    web
    timeout 200 sslscan --no-colour "127.0.0.1:$PORT" >"$T/found"
    equal "$(grep -E '^(SSLv|TLSv1\.[0-3] +(en|dis)abled)' "$T/found" | awk '$2 == "enabled" { printf "%s ", $1 }')" "TLSv1.2 TLSv1.3 "
    grep -q '^Session renegotiation not supported' "$T/found"
    grep -q '^Server supports TLS Fallback SCSV' "$T/found"
    refute grep -qE '[^t] vulnerable|Compression enabled' "$T/found"
    local accepted
    accepted=$(grep -E '^(Preferred|Accepted) ' "$T/found")
    equal "$(grep -c 'TLSv1\.3' <<<"$accepted")" 3 "ciphersuites of TLS 1.3"
    refute grep -vE 'TLSv1\.3|TLSv1\.2 .* ECDHE-(ECDSA|RSA)-(AES(128|256)-GCM-SHA(256|384)|CHACHA20-POLY1305)( |$)' <<<"$accepted"
    refute grep -q ffdhe "$T/found"
    stop_hark
}

# scan: sets `output` to what testssl.sh has found.
scan() {
    rm -f "$T/found.json"
    timeout 195 testssl --quiet --color 0 --warnings batch --ip one --jsonfile "$T/found.json" -p -s -S -U "127.0.0.1:$PORT" >"$T/found" 2>&1 || true
    run python -c 'import json, sys
for finding in json.load(open(sys.argv[1])):
    if finding["severity"] not in ("OK", "INFO", "DEBUG"):
        print(finding["severity"], finding["id"].split()[0], finding["finding"])' "$T/found.json"
}

@test "tls: testssl.sh finds nothing but a CA of our own, and a certificate without a place to ask about it" {
    need testssl testssl.sh
    web
    scan
    if grep -q 'check failed because of connect problem' <<<"$output"; then # its own time limit, on a busy machine
        scan
    fi
    # certificates of 20 days, of a CA of our own, without an address to ask about revocation; and no DNS
    refute grep -vE ' (cert_chain_of_trust|cert_notAfter|cert_expirationStatus|cert_revocation|DNS_CAArecord|engine_problem) ' <<<"$output"
    stop_hark
}
