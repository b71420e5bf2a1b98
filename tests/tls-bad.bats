#!/usr/bin/env bats
# Bad files and settings are named at start; bad clients end alone.
#
# shellcheck disable=SC2016,SC2034,SC2153,SC2154 # dollar signs of others; variables of lib.bash

load lib
load certs

setup_file() {
    make_ca ca
    make_cert good ca DNS:localhost,DNS:good.test
    make_cert other ca DNS:other.test
    make_cert same ca DNS:good.test
    make_cert goodrsa ca DNS:good.test rsa
    make_dated late ca DNS:late.test 20200101000000Z 20210101000000Z
    make_dated early ca DNS:early.test 20400101000000Z 20410101000000Z
    openssl pkey -in "$C/good.key" -aes256 -passout pass:secret -out "$C/locked.key"
    chmod 600 "$C/locked.key"
    make_ocsp good.ocsp ca good
    make_crl good.crl ca
    echo junk >"$C/junk"
    : >"$C/empty"
    mkdir "$C/directory"
}


secure() {
    serve -v --ssl-cert "$C/good.pem" "$@"
}

abuse() { # WHAT ARGUMENT...
    python "$TESTS/tls_abuse.py" "$PORT" "$@"
}

spawn_abuse() { # NAME WHAT ARGUMENT...
    local name=$1
    shift
    spawn "$name" "$PYTHON" -SE "$TESTS/tls_abuse.py" "$PORT" "$@"
}

# ---- at start ----

# bad REGEX OPTION...: one line that matches, status 2, and nothing is bound.
bad() {
    local regex=$1
    shift
    run_hark --bind 127.0.0.1 --port 0 --unix "$T/s" "$@"
    equal "$status" 2 "the exit status of $*"
    match "$output" "^hark: error: [^"$'\n'"]*${regex}[^"$'\n'"]*\$"
    [ ! -e "$T/s" ] || fail "bound: $*"
    run_hark --check --bind 127.0.0.1 --port 0 "$@"
    equal "$status" 2 "the exit status of --check $*"
}

@test "bad at start: certificates" {
    local cert=--ssl-cert
    bad "\"$C/nowhere\": No such file or directory" $cert "$C/nowhere"
    bad "\"$C/directory\": Is a directory" $cert "$C/directory"
    bad "\"$C/junk\" holds no certificate in PEM" $cert "$C/junk"
    bad "\"$C/empty\" holds no certificate in PEM" $cert "$C/empty"
    bad "\"$C/good.key\" holds no certificate in PEM" $cert "$C/good.key"
    bad "\"$C/good.crt\" holds no private key in PEM" $cert "$C/good.crt"
    { cat "$C/good.pem" "$C/other.crt" | head -c -100; } >"$T/cut"
    bad "\"$T/cut\": a certificate of the chain is damaged" $cert "$T/cut"
    # the second one is looked at, too
    bad "\"$C/junk\" holds no certificate" $cert "$C/good.pem" $cert "$C/junk"
    bad '--ssl-cert' --ssl-cert
}

@test "bad at start: a file that may not be read" {
    [ "$(id -u)" -eq 0 ] || skip "only root can stop being root"
    cp "$C/good.pem" "$T/secret"
    chmod 600 "$T/secret"
    chmod 711 "$T"
    run timeout 10 setpriv --reuid 65534 --regid 65534 --clear-groups "$HARK" --port 0 --ssl-cert "$T/secret"
    equal "$status" 2
    match "$output" "\"$T/secret\": Permission denied$"
}

@test "bad at start: keys and passphrases" {
    local cert=(--ssl-cert "$C/good.crt" --ssl-key)
    bad "\"$C/nowhere\": No such file" "${cert[@]}" "$C/nowhere"
    bad "\"$C/junk\" holds no private key in PEM" "${cert[@]}" "$C/junk"
    bad "the key in \"$C/other.key\" is not that of the certificate in \"$C/good.crt\"" "${cert[@]}" "$C/other.key"
    bad "the key in \"$C/goodrsa.key\" is not that of" "${cert[@]}" "$C/goodrsa.key"
    bad "\"$C/locked.key\" is encrypted, and no file with a passphrase is given" "${cert[@]}" "$C/locked.key"
    echo wrong >"$T/pass"
    bad "\"$C/locked.key\": the passphrase in \"$T/pass\" is wrong" "${cert[@]}" "$C/locked.key" --ssl-key-pass-file "$T/pass"
    printf 'secret\r\n' >"$T/windows"
    bad "the passphrase in \"$T/windows\" is wrong: it ends in a carriage return" "${cert[@]}" "$C/locked.key" \
        --ssl-key-pass-file "$T/windows"
    bad "\"$C/empty\" holds no passphrase" "${cert[@]}" "$C/locked.key" --ssl-key-pass-file "$C/empty"
    bad "\"$C/nowhere\": No such file" "${cert[@]}" "$C/locked.key" --ssl-key-pass-file "$C/nowhere"
    head -c 2000 /dev/zero | tr '\0' x >"$T/long"
    bad "\"$T/long\": a passphrase has at most" "${cert[@]}" "$C/locked.key" --ssl-key-pass-file "$T/long"
    bad '--ssl-key' --ssl-key "$C/good.key" --ssl-cert "$C/good.pem" --ssl-cert "$C/other.pem"
}

@test "bad at start: authorities, revocations, responses, ticket keys" {
    local cert=(--ssl-cert "$C/good.pem")
    bad "\"$C/nowhere\": No such file" "${cert[@]}" --ssl-ca "$C/nowhere"
    bad "\"$C/junk\" holds no certificate in PEM" "${cert[@]}" --ssl-ca "$C/junk"
    bad "\"$C/directory\" holds no certificates in PEM" "${cert[@]}" --ssl-ca "$C/directory"
    bad "\"$C/junk\" holds no revocation list in PEM" "${cert[@]}" --ssl-ca "$C/ca.pem" --ssl-crl "$C/junk"
    bad "\"$C/nowhere\": No such file" "${cert[@]}" --ssl-ca "$C/ca.pem" --ssl-crl "$C/nowhere"
    bad "\"$C/junk\" is no OCSP response in DER" "${cert[@]}" --ssl-ocsp "$C/junk"
    bad "\"$C/nowhere\": No such file" "${cert[@]}" --ssl-ocsp "$C/nowhere"
    bad "\"$C/good.ocsp\" is an OCSP response about another certificate" --ssl-cert "$C/other.pem" --ssl-ocsp "$C/good.ocsp"
    bad "\"$C/junk\", line 1: not a ticket key" "${cert[@]}" --ssl-ticket-keys "$C/junk"
    bad "\"$C/empty\" holds no ticket key" "${cert[@]}" --ssl-ticket-keys "$C/empty"
    { openssl rand -base64 80 | tr -d '\n'; echo; openssl rand -base64 48; } >"$T/keys"
    bad "\"$T/keys\", line 2: not a ticket key" "${cert[@]}" --ssl-ticket-keys "$T/keys"
    for _ in $(seq 17); do head -n 1 "$T/keys"; done >"$T/many"
    bad "\"$T/many\": more than 16 ticket keys" "${cert[@]}" --ssl-ticket-keys "$T/many"
    bad "\"$C/directory\": Is a directory" "${cert[@]}" --ssl-keylog "$C/directory"
    bad "\"$C/nowhere/keys\": No such file" "${cert[@]}" --ssl-keylog "$C/nowhere/keys"
    mkfifo "$T/fifo"
    bad "\"$T/fifo\": No such device or address" "${cert[@]}" --ssl-keylog "$T/fifo"
}

@test "bad at start: a directory of authorities in which OpenSSL would find none" {
    mkdir "$T/ca"
    cp "$C/ca.pem" "$T/ca"
    local unhashed="\"$T/ca\" holds certificates, but none under its hashed name .openssl rehash \"$T/ca\"."
    bad "$unhashed" --ssl-cert "$C/good.pem" --ssl-ca "$T/ca"
    bad "$unhashed" --forward-ssl --forward-ssl-ca "$T/ca" --handler forward localhost:1
    openssl rehash "$T/ca"
    run_hark --check --bind 127.0.0.1 --port 0 --ssl-cert "$C/good.pem" --ssl-ca "$T/ca"
    equal "$status" 0
}

@test "bad at start: a directory of revocation lists in which OpenSSL would find none" {
    local options=(--ssl-cert "$C/good.pem" --ssl-ca "$C/ca.pem" --ssl-crl)
    mkdir "$T/lists"
    cp "$C/good.crl" "$T/lists"
    bad "\"$T/lists\" holds no revocation list under its hashed name .openssl rehash \"$T/lists\"." "${options[@]}" "$T/lists"
    cp "$C/junk" "$T/lists/0123abcd.r0"
    bad "\"$T/lists/0123abcd.r0\" holds no revocation list in PEM" "${options[@]}" "$T/lists"
}

@test "bad at start: versions, ciphers, groups, protocols, names" {
    local cert=(--ssl-cert "$C/good.pem")
    bad '--ssl-min-version: 1.3 is above --ssl-max-version 1.2' "${cert[@]}" --ssl-min-version 1.3 --ssl-max-version 1.2
    bad '--ssl-min-version.*1\.1' "${cert[@]}" --ssl-min-version 1.1
    bad 'unknown cipher "NOPE"' "${cert[@]}" --ssl-ciphers ECDHE+AESGCM:NOPE
    bad 'unknown ciphersuite "TLS_NOPE"' "${cert[@]}" --ssl-ciphersuites TLS_AES_128_GCM_SHA256:TLS_NOPE
    bad 'unknown group "P-257"' "${cert[@]}" --ssl-groups X25519:P-257
    bad 'ALPN: a protocol has 1 to 255 bytes' "${cert[@]}" --ssl-alpn h2,,http/1.1
    bad 'option --ssl-self-signed: "a b" is neither a host name nor an address' '--ssl-self-signed=a b'
    bad '"x,DNS:evil" is neither a host name nor an address' --ssl-self-signed=x,DNS:evil
    # --check writes nothing, and so does not find out
    run_hark --bind 127.0.0.1 --port 0 --unix "$T/s" --ssl-self-signed --ssl-save-cert "$C/nowhere/x"
    equal "$status" 2
    equal "$output" "hark: error: option --ssl-save-cert: \"$C/nowhere/x\": No such file or directory"
    [ ! -e "$T/s" ]
}

@test "bad at start: options that could have no effect, or contradict each other" {
    local option
    for option in "--ssl-ca $C/ca.pem" "--ssl-alpn h2" "--ssl-min-version 1.3" "--ssl-ciphers HIGH" "--ssl-strict-sni" "--ssl-key $C/good.key" \
        "--ssl-ocsp $C/good.ocsp" "--ssl-save-cert $T/x" "--ssl-ticket-keys $T/x" "--ssl-keylog $T/x" "--handshake-timeout 5s" "--max-handshakes 5"; do
        # shellcheck disable=SC2086 # two words
        bad "option ${option%% *} .*--ssl-(cert|self-signed)" $option
    done
    local cert=(--ssl-cert "$C/good.pem")
    bad '--ssl-verify .*--ssl-ca' "${cert[@]}" --ssl-verify require
    bad '--ssl-crl .*--ssl-ca' "${cert[@]}" --ssl-crl "$C/good.crl"
    bad 'option --ssl-ciphers has no effect with --ssl-min-version 1.3' "${cert[@]}" --ssl-min-version 1.3 --ssl-ciphers ECDHE+AESGCM
    bad 'option --ssl-ciphersuites has no effect with --ssl-max-version 1.2' "${cert[@]}" --ssl-max-version 1.2 \
        --ssl-ciphersuites TLS_AES_128_GCM_SHA256
    bad '"name": handler echo takes none; if the certificate is for it, type --ssl-self-signed=name' --ssl-self-signed name
    bad '--ssl-verify: "maybe" is not one of' "${cert[@]}" --ssl-ca "$C/ca.pem" --ssl-verify maybe
    bad '--ssl-self-signed' "${cert[@]}" --ssl-self-signed
    bad '--ssl-save-cert' "${cert[@]}" --ssl-save-cert "$T/x"
    bad '--exec-io' "${cert[@]}" --exec-io socket --handler exec cat
    bad '--forward-ssl-ca' --forward-ssl-ca "$C/ca.pem" --handler forward localhost:1
    bad '--forward-ssl' --forward-ssl
    bad '--forward-ssl-(ca|insecure)' --forward-ssl --forward-ssl-ca "$C/ca.pem" --forward-ssl-insecure --handler forward localhost:1
    bad "\"$C/junk\" holds no certificate in PEM" --forward-ssl --forward-ssl-ca "$C/junk" --handler forward localhost:1
    bad 'two certificates for "good.test" do not ask the same of clients' "${cert[@]}" --ssl-cert "$C/same.pem" --ssl-ca "$C/ca.pem"
    bad '"unix:/x" has no name that its certificate could be for' --forward-ssl --handler forward unix:/x
}

@test "bad at start: what is only a warning: dates, a key that all can read" {
    serve --ssl-cert "$C/late.pem"
    equal "$(grep -c warning "$LOG")" 1
    grep -qx "hark: warning: \"$C/late.pem\": the certificate has expired" "$LOG"
    serve --ssl-cert "$C/early.pem"
    grep -qx "hark: warning: \"$C/early.pem\": the certificate is not valid yet" "$LOG"
    cat "$C/good.crt" "$C/late.crt" "$C/good.key" >"$T/chain.pem"
    chmod 644 "$T/chain.pem"
    serve --ssl-cert "$T/chain.pem"
    grep -qx "hark: warning: \"$T/chain.pem\": a certificate of the chain has expired" "$LOG"
    grep -qx "hark: warning: \"$T/chain.pem\": everyone can read this private key (chmod o-r)" "$LOG"
    run client --tls "$PORT" exchange:10
    equal "$output" "same 10 eof"
}

@test "bad at start: what is only a warning: a revocation list and an OCSP response that are out of date" {
    make_ca brief
    make_cert brief.test brief DNS:brief.test
    database brief
    ca brief -gencrl -crl_lastupdate 20200101000000Z -crl_nextupdate 20200102000000Z -out "$C/brief.crl"
    serve --ssl-cert "$C/good.pem" --ssl-ca "$C/brief.pem" --ssl-crl "$C/brief.crl"
    equal "$(grep warning "$LOG")" "hark: warning: \"$C/brief.crl\": a revocation list is out of date, and lets nobody in"
    make_ocsp brief.ocsp brief brief.test
    LC_ALL=C sed -i 's/\x18\x0f20../\x18\x0f2020/g' "$C/brief.ocsp" # its times; nobody but a client looks at its signature
    serve --ssl-cert "$C/brief.test.pem" --ssl-ocsp "$C/brief.ocsp"
    equal "$(grep warning "$LOG")" "hark: warning: \"$C/brief.ocsp\": the OCSP response is out of date"
}

# ---- clients ----

# A connection that works all the while.
watch_over() {
    spawn_tls_client witness "$PORT" echo:100 say:here hold:"$T/over" echo:100000 end count
    wait_for_line witness here
    descriptors=$(descriptors "$HARK_PID")
}

# All is as it was before: the witness goes on, the descriptors are those from then, and nothing turns in circles.
nobody_noticed() {
    eventually has_descriptors "$HARK_PID" "$descriptors"
    touch "$T/over"
    finish witness
    equal "$(tail -n 1 "$T/witness")" "0 eof"
    stays_idle
}

# No more than 2 ticks, 20 ms, in half a second; what is measured is that nothing happens.
stays_idle() {
    local before
    before=$(cpu_ticks "$HARK_PID")
    read -rt 0.5 _ <&"$silence" || true
    at_most $(($(cpu_ticks "$HARK_PID") - before)) 2 "ticks while nothing happens"
}

rejects() { # ERROR [COUNT]
    wait_for_log "^hark: reject id=[0-9]+ peer=127\\.0\\.0\\.1:[0-9]+ reason=handshake (sni=[^ ]+ )?error=\"?$1\"?\$" "${2:-1}"
}

# rejected COUNT: so many or more, counted at the end, when it is told what was suppressed.
rejected() {
    local count
    stop_hark
    count=$(awk '/^hark: reject / { n++ } /^hark: suppressed event=reject / { sub(/.*lines=/, ""); n += $0 } END { print n + 0 }' "$LOG")
    ((count >= $1)) || fail "$count rejects, and not $1"
}

@test "bad clients: plain HTTP, junk, records too long, of the wrong kind: each is told what is wrong, and logged" {
    secure
    watch_over
    equal "$(abuse raw "$(printf 'GET / HTTP/1.0\r\n\r\n' | od -An -v -tx1 | tr -d ' \n')")" "none eof"
    rejects 'http request'
    equal "$(abuse raw 160301ffff0100)" "alert 2 22 eof" # record_overflow
    rejects 'packet length too long'
    equal "$(abuse raw 1503010002022800)" "alert 2 10 eof" # unexpected_message
    rejects 'unexpected message'
    equal "$(abuse raw 80000000000000000000)" "none eof"
    rejects 'wrong version number'
    equal "$(abuse garbage 40)" "done 40"
    nobody_noticed
    rejected 44
}

@test "bad clients: a ClientHello cut at every byte, then FIN or a reset" {
    secure
    watch_over
    match "$(abuse cut fin)" '^done [0-9]{3}$'
    match "$(abuse cut rst)" '^done [0-9]{3}$'
    nobody_noticed
    rejected 1000
}

@test "bad clients: a ClientHello with each byte changed in its turn" {
    secure
    watch_over
    match "$(abuse flip)" '^done [0-9]{3}$'
    nobody_noticed
    refute grep -q 'error="callback failed"' "$LOG"
}

@test "bad clients: a handshake given up at every step, by FIN and by reset, in both versions" {
    secure
    watch_over
    match "$(abuse abandon 1.2)" '^done [0-9]+$'
    match "$(abuse abandon 1.3)" '^done [0-9]+$'
    nobody_noticed
    rejected 8
}

@test "bad clients: gone as soon as the handshake is done, with and without a last word" {
    local how
    secure
    watch_over
    for how in end line none; do
        equal "$(abuse hasty 20 "$how")" "done 20"
    done
    nobody_noticed
    # a reset is none of TLS's errors, even after close_notify
    refute grep -q 'written to after its end' "$LOG"
    # programs that read, that do not, that write first
    secure --handler shell 'case $((HARK_ID % 3)) in 0) cat ;; 1) exit 0 ;; *) echo first; cat ;; esac'
    for how in end line none; do
        equal "$(abuse hasty 30 "$how")" "done 30"
    done
    wait_for_log '^hark: close ' 90
    stop_hark
}

@test "bad clients: after the handshake: a record too long, one that is forged, plain text" {
    secure
    watch_over
    local zeros
    zeros=$(printf '00%.0s' $(seq 64))
    equal "$(abuse inside "1703034200$zeros")" "alert: TLSV1_ALERT_RECORD_OVERFLOW"
    wait_for_log '^hark: close id=2 .* reason=tls .* tls=TLSv1\.3 cipher=[A-Z0-9_]+ error="packet length too long"$'
    equal "$(abuse inside "1703030040$zeros")" "alert: SSLV3_ALERT_BAD_RECORD_MAC"
    wait_for_log '^hark: close id=3 .* reason=tls .* error="decryption failed or bad record mac"$'
    equal "$(abuse inside "$(printf 'GET / HTTP/1.0\r\n\r\n' | od -An -v -tx1 | tr -d ' \n')")" "alert: TLSV1_ALERT_PROTOCOL_VERSION"
    wait_for_log '^hark: close id=4 .* reason=tls .* error="wrong version number"$'
    nobody_noticed
}

@test "bad clients: a reset in the middle of much" {
    secure --max-buffer-size 64k
    watch_over
    tls_client "$PORT" send:1000000 reset
    wait_for_log '^hark: close id=2 .* reason=reset '
    spawn_tls_client stuck --rcvbuf 4096 "$PORT" fill:0.3 reset
    finish stuck
    wait_for_log '^hark: close id=3 .* reason=reset '
    nobody_noticed
}

@test "bad clients: key updates: some are answered, a flood is cut off" {
    secure
    watch_over
    equal "$(abuse updates 20 0)" "sent 20"
    equal "$(abuse updates 20 1)" "sent 20"
    match "$(abuse updates 1000 0)" '^cut after '
    match "$(abuse updates 1000 1)" '^cut after '
    wait_for_log ' reason=tls .* error="too many requests for new keys"$' 2
    nobody_noticed
}

@test "bad clients: renegotiations: each is refused, a flood is cut off" {
    secure --ssl-ciphers ECDHE+AESGCM:ECDHE-ECDSA-NULL-SHA:@SECLEVEL=0
    watch_over
    equal "$(abuse renegotiate 20)" "refused 20 times, answered"
    match "$(abuse renegotiate 1000)" "^refused [0-9]{1,3} times, cut off$"
    wait_for_log ' reason=tls .* error="too many requests for new keys"$'
    nobody_noticed
}

@test "bad clients: silence ends with --handshake-timeout, and so do single bytes; who is through is not concerned" {
    local limit=500ms pause=0.02
    [ -z "${HARK_VALGRIND:-}" ] || limit=5s pause=0.2 # for as long as the witness's own may take there
    secure --handshake-timeout "$limit"
    watch_over
    spawn_abuse quiet silent 5 "$T/go"
    wait_for_line quiet connected
    stays_idle
    rejects '.*timed out' 5
    match "$(abuse slow "$pause")" '^cut after [0-9]{1,2} bytes$'
    rejects '.*timed out' 6
    touch "$T/go"
    finish quiet
    nobody_noticed
}

@test "bad clients: --max-handshakes: silent ones hold up those that come, for a while, and nobody who is through" {
    local limit=1s patience=15
    [ -z "${HARK_VALGRIND:-}" ] || limit=5s patience=60 # as above
    secure --max-handshakes 3 --handshake-timeout "$limit"
    watch_over
    spawn_abuse quiet silent 9 "$T/go"
    wait_for_line quiet connected
    # through the backlog, after three turns of silence at most
    run tls_client --timeout "$patience" "$PORT" exchange:10
    equal "$output" "same 10 eof"
    rejects '.*timed out' 6
    stays_idle
    touch "$T/go"
    finish quiet
    nobody_noticed
}

@test "bad clients: 300 handshakes given up at once" {
    secure
    watch_over
    equal "$(abuse storm 300)" "done 300"
    nobody_noticed
    rejected 300
}

@test "bad clients: several processes: the same" {
    secure --processes 2
    equal "$(abuse storm 100)" "done 100"
    equal "$(abuse garbage 20)" "done 20"
    run tls_client "$PORT" exchange:1000
    equal "$output" "same 1000 eof"
    refute grep -q restart "$LOG"
    rejected 120
}

@test "idle: a server that speaks first waits for a silent client without turning in circles" {
    exec 5<> <(:)
    echo hello >&5
    secure --handler stdio <&5 >"$T/out"
    spawn_abuse quiet silent 1 "$T/go"
    wait_for_line quiet connected
    stays_idle
    touch "$T/go"
    finish quiet
    exec 5>&-
    serve_speaker
    spawn_abuse quiet silent 3 "$T/go2"
    wait_for_line quiet connected
    stays_idle
    touch "$T/go2"
    finish quiet
    exec 5>&-
}

serve_speaker() {
    secure --handler exec sh -c 'echo first; exec cat'
}

@test "idle: established connections and half of a record cost nothing" {
    secure
    spawn_tls_client one "$PORT" echo:100 say:here hold:"$T/go" end count
    spawn_tls_client two --version 1.2 "$PORT" echo:100 end say:here hold:"$T/go" count
    wait_for_line one here
    wait_for_line two here
    # the header of a record and nothing more
    spawn half "$PYTHON" -SE -c 'import os, socket, sys, time
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import tls_socket
plain = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
s = tls_socket.TlsSocket(plain, tls_socket.client_context())
s.sendall(b"x")
s.recv(1)
plain.sendall(bytes.fromhex("1703030040aabb"))
print("half", flush=True)
while not os.path.exists(sys.argv[3]): time.sleep(0.01)' "$TESTS" "$PORT" "$T/go"
    wait_for_line half half
    stays_idle
    touch "$T/go"
    finish one
    finish two
    finish half
}
