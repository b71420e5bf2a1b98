#!/usr/bin/env bats
# SIGHUP reads certificates, keys and the rest again: all of it or nothing, and no connection notices.
#
# shellcheck disable=SC2016,SC2034,SC2153,SC2154 # dollar signs of others; variables of lib.bash

load lib
load certs

setup_file() {
    make_ca ca
    make_ca clients
    make_cert first ca DNS:a.test,DNS:localhost
    make_cert second ca DNS:a.test,DNS:localhost
    make_dated late ca DNS:a.test 20200101000000Z 20210101000000Z
    make_cert alice clients email:alice@example.org
}

# secure OPTION...: with a certificate that may change.
secure() {
    cp "$C/first.pem" "$T/cert.pem"
    serve -v --ssl-cert "$T/cert.pem" "$@"
}

put() { # FILE: at once, as a good tool does it
    cp "$1" "$T/new"
    mv "$T/new" "$T/cert.pem"
}

shown() { # CN
    equal "$(subject_for -noservername)" "$1" "the certificate"
}

@test "reload: a new certificate, and the old one again" {
    secure
    shown first
    put "$C/second.pem"
    shown first
    reload
    shown second
    equal "$(tail -n 1 <(grep reload "$LOG"))" "hark: reload certificates=1"
    put "$C/first.pem"
    reload
    shown first
    stop_hark
}

@test "reload: what is bad is named, and everything stays as it was" {
    secure --ssl-cert "$C/second.pem"
    local bad
    head -c 300 "$C/second.pem" >"$T/cut"
    cat "$C/second.crt" "$C/first.key" >"$T/misfit"
    : >"$T/empty"
    for bad in cut misfit empty; do
        put "$T/$bad"
        reload
        shown first
        match "$(tail -n 1 <(grep reload "$LOG"))" "^hark: error: reload: TLS: .*\"$T/cert.pem\".*; everything stays as it was\$"
    done
    rm "$T/cert.pem"
    reload
    shown first
    match "$(tail -n 1 <(grep reload "$LOG"))" "\"$T/cert.pem\": No such file or directory; everything stays as it was\$"
    put "$C/second.pem"
    reload
    shown second
    equal "$(grep -c '^hark: error: reload:' "$LOG")" 4
}

@test "reload: an expired certificate is taken, with a warning" {
    secure
    put "$C/late.pem"
    reload
    grep -q "^hark: warning: .*$T/cert.pem.* has expired" "$LOG"
    shown late
}

@test "reload: connections live on, those in the middle of a handshake, too" {
    secure
    spawn_tls_client old --version 1.3 "$PORT" echo:100000 say:here hold:"$T/go" echo:100000 end count
    spawn_tls_client older --version 1.2 "$PORT" echo:100000 say:here hold:"$T/go" echo:100000 end count
    wait_for_line old here
    wait_for_line older here
    # a ClientHello in two halves, SIGHUP in between
    spawn halves "$PYTHON" -SE - "$PORT" "$T/half" "$T/go" <<'PYTHON'
import os, socket, ssl, sys, time
came, going = ssl.MemoryBIO(), ssl.MemoryBIO()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
engine = context.wrap_bio(came, going)
plain = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20)
def step(call, *arguments):
    while True:
        try:
            return call(*arguments)
        except ssl.SSLWantReadError:
            plain.sendall(going.read())
            came.write(plain.recv(65536))
try:
    engine.do_handshake()
except ssl.SSLWantReadError:
    hello = going.read()
plain.sendall(hello[:100])
open(sys.argv[2], "w").close()
while not os.path.exists(sys.argv[3]):
    time.sleep(0.01)
plain.sendall(hello[100:])
came.write(plain.recv(65536))
step(engine.do_handshake)
engine.write(b"x")
print(step(engine.read, 1).decode())
PYTHON
    eventually test -e "$T/half"
    put "$C/second.pem"
    reload
    reload
    touch "$T/go"
    finish old
    finish older
    finish halves
    equal "$(tail -n 1 "$T/old")" "0 eof"
    equal "$(tail -n 1 "$T/older")" "0 eof"
    equal "$(<"$T/halves")" x
    shown second
}

everyone_shows() { # CN
    in_each_process shown "$1"
}

@test "reload: every process" {
    secure --processes 3
    put "$C/second.pem"
    reload
    eventually everyone_shows second
    # once: by the process that they have in common
    equal "$(grep -c '^hark: reload ' "$LOG")" 1
    put /dev/null
    reload
    everyone_shows second
    equal "$(grep -c '^hark: error: reload:' "$LOG")" 1
    stop_hark
}

@test "reload: a process that is started again has what the others have, whatever stands in the files" {
    secure --processes 2
    put "$C/second.pem"
    reload
    eventually everyone_shows second
    kill -KILL "$(pgrep -P "$HARK_PID" | head -n 1)"
    wait_for_log '^hark: restart '
    eventually has_processes 2
    everyone_shows second
    put /dev/null
    reload
    kill -KILL "$(pgrep -P "$HARK_PID" | head -n 1)"
    wait_for_log '^hark: restart ' 2
    eventually has_processes 2
    everyone_shows second
}

has_processes() {
    [ "$(pgrep -c -P "$HARK_PID")" -eq "$1" ]
}

@test "reload: each process with its own listening socket" {
    secure --processes 2 --reuse-port
    put "$C/second.pem"
    reload
    local i
    for i in 1 2 3 4 5 6; do
        eventually shown second
    done
}

@test "reload: authorities, revocations, stapled responses" {
    make_crl "crl" clients
    cp "$C/crl" "$T/crl"
    cp "$C/clients.pem" "$T/authorities"
    make_ocsp ocsp ca first
    cp "$C/ocsp" "$T/ocsp"
    secure --ssl-ocsp "$T/ocsp" --ssl-ca "$T/authorities" --ssl-crl "$T/crl"
    run s_client -status -cert "$C/alice.pem" </dev/null
    match "$output" 'Cert Status: good'
    match "$output" $'certificate CA names\nCN = clients\n'
    run tls_client --cert "$C/alice.pem" "$PORT" end count
    equal "$output" "0 eof"

    make_crl crl clients alice
    cp "$C/crl" "$T/crl"
    reload
    run tls_client --version 1.2 --cert "$C/alice.pem" "$PORT" end count
    match "$output" CERTIFICATE_REVOKED

    # each of them alone is enough to keep everything
    local file
    for file in crl authorities ocsp; do
        mv "$T/$file" "$T/kept"
        echo junk >"$T/$file"
        reload
        match "$(tail -n 1 "$LOG")" "^hark: error: reload: TLS: \"$T/$file\" .*; everything stays as it was\$"
        mv "$T/kept" "$T/$file"
    done
    run tls_client --version 1.2 --cert "$C/alice.pem" "$PORT" end count
    match "$output" CERTIFICATE_REVOKED

    cat "$C/ca.pem" >>"$T/authorities"
    make_crl more ca
    cat "$C/more" >>"$T/crl"
    reload
    run s_client -status -cert "$C/second.pem" </dev/null
    match "$output" $'certificate CA names\nCN = ca\nCN = clients\n'
    run tls_client --cert "$C/second.pem" "$PORT" end count
    equal "$output" "0 eof"
}

@test "reload: the passphrase, too" {
    openssl pkey -in "$C/first.key" -aes256 -passout pass:old -out "$T/key"
    echo old >"$T/pass"
    chmod 600 "$T/key"
    serve --ssl-cert "$C/first.crt" --ssl-key "$T/key" --ssl-key-pass-file "$T/pass"
    openssl pkey -in "$C/first.key" -aes256 -passout pass:new -out "$T/key"
    reload
    match "$(tail -n 1 "$LOG")" 'the passphrase in .* is wrong; everything stays as it was'
    echo new >"$T/pass"
    reload
    match "$(tail -n 1 "$LOG")" '^hark: reload certificates=1$'
}

@test "reload: a certificate that was made up stays the same" {
    serve --ssl-self-signed --ssl-save-cert "$T/saved"
    local before
    before=$(s_client </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256)
    reload
    equal "$(s_client </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256)" "$before"
    equal "$(openssl x509 -in "$T/saved" -noout -fingerprint -sha256)" "$before"
}

@test "reload: without TLS there is nothing to read, and nothing to say" {
    serve -v
    kill -HUP "$HARK_PID"
    run client "$PORT" exchange:10
    equal "$output" "same 10 eof"
    refute grep -q reload "$LOG"
    stop_hark
}

@test "reload: while it ends, nothing happens" {
    local processes
    for processes in 1 2; do
        secure --processes $processes
        rm -f "$T/go"
        spawn_tls_client peer "$PORT" echo:10 say:here hold:"$T/go" echo:10 end count
        wait_for_line peer here
        kill -TERM "$HARK_PID"
        wait_for_log '^hark: stop '
        kill -HUP "$HARK_PID"
        touch "$T/go"
        finish peer
        wait_for_exit
        equal "$STATUS" 0
        refute grep -q reload "$LOG"
    done
}
