#!/usr/bin/env bats
# Which certificate a client is shown, what it has to show itself, and what the two agree on.
#
# shellcheck disable=SC2016,SC2034,SC2153,SC2154 # dollar signs of others; variables of lib.bash

load lib
load certs

setup_file() {
    make_ca ca
    make_ca clients
    make_ca strangers
    make_cert default ca DNS:default.test
    make_cert exact ca DNS:www.example.test
    make_cert wild ca 'DNS:*.example.test,DNS:Upper.Test'
    make_cert both ca DNS:both.test
    make_cert bothrsa ca DNS:both.test rsa
    make_cert alice clients email:alice@example.org
    make_cert bob clients email:bob@example.org
    make_cert mallory strangers email:mallory@example.org
    make_dated late clients email:late@example.org 20200101000000Z 20210101000000Z
    make_crl clients.crl clients bob
    make_cert address1 ca DNS:one.test,IP:127.0.0.1,IP:::1
    make_cert address2 ca DNS:two.test,IP:127.0.0.1
    make_ocsp both.ocsp ca both
}

secure() {
    serve -v --ssl-cert "$C/default.pem" "$@"
}

# shown NAME CN: a client that asks for NAME is shown the certificate of CN.
shown() {
    equal "$(subject_for -servername "$1")" "$2" "the certificate for $1"
}

# ---- names ----

@test "certs: SNI: exact, wildcard, upper case, unknown, none; the order does not matter" {
    secure --ssl-cert "$C/wild.pem" --ssl-cert "$C/exact.pem"
    shown www.example.test exact
    shown WWW.Example.TEST exact
    shown mail.example.test wild
    shown MAIL.example.test wild
    shown upper.test wild
    shown default.test default
    # the wildcard stands for one label, whole
    shown a.b.example.test default
    shown example.test default
    shown nobody.test default
    equal "$(subject_for -noservername)" default
    wait_for_log '^hark: close .* sni=MAIL\.example\.test( |$)'
}

@test "certs: SNI: a name with a final dot" {
    secure --ssl-cert "$C/exact.pem"
    shown www.example.test. exact
    shown nobody.test. default
}

@test "certs: SNI: RSA and ECDSA for one name, chosen by what the client can" {
    secure --ssl-cert "$C/both.pem" --ssl-cert "$C/bothrsa.pem"
    equal "$(subject_for -servername both.test -tls1_3 -sigalgs rsa_pss_rsae_sha256)" bothrsa
    equal "$(subject_for -servername both.test -tls1_3 -sigalgs ecdsa_secp256r1_sha256)" both
    equal "$(subject_for -servername both.test -tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256)" bothrsa
    equal "$(subject_for -servername both.test -tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256)" both
    # and the other way round; as the default, too
    serve --ssl-cert "$C/bothrsa.pem" --ssl-cert "$C/both.pem"
    equal "$(subject_for -servername both.test -tls1_3 -sigalgs ecdsa_secp256r1_sha256)" both
    equal "$(subject_for -noservername -tls1_3 -sigalgs rsa_pss_rsae_sha256)" bothrsa
    equal "$(subject_for -noservername -tls1_3 -sigalgs ecdsa_secp256r1_sha256)" both
}

@test "certs: SNI: strict: an unknown name is refused with its alert, and logged; others are served" {
    local version
    for version in 1_2 1_3; do
        secure --ssl-strict-sni --ssl-cert "$C/wild.pem"
        shown mail.example.test wild
        run s_client -servername nobody.test "-tls$version" </dev/null
        match "$output" 'alert unrecognized name|tlsv1 unrecognized name'
        wait_for_log '^hark: reject .* reason=handshake sni=nobody\.test error='
        stop_hark
    done
}

@test "certs: SNI: an address, as ncat and socat ask for it, is a name of the certificate that has it" {
    need ncat ncat
    need socat socat
    secure --ssl-strict-sni --ssl-cert "$C/address1.pem" --ssl-cert "$C/address2.pem" --ssl-ca "$C/clients.pem"
    shown 127.0.0.1 address1
    shown ::1 address1
    converse ncat 'from ncat' '^from ncat' ncat --ssl 127.0.0.1 "$PORT"
    equal "$(output_of ncat)" "from ncat"
    run bash -c "echo from socat | timeout 20 socat -t 15 - OPENSSL:127.0.0.1:$PORT,cafile=$C/ca.pem"
    equal "$output" "from socat"
    shown 127.0.0.2 ""
}

@test "certs: the chain is sent, and its order is the file's" {
    make_ca between ca
    make_cert leaf between DNS:leaf.test
    cat "$C/leaf.crt" "$C/between.pem" "$C/leaf.key" >"$T/chain.pem"
    chmod 600 "$T/chain.pem"
    serve --ssl-cert "$T/chain.pem"
    run s_client -verify_return_error -verify_hostname leaf.test </dev/null
    match "$output" 'Verify return code: 0 \(ok\)'
}

# ---- keys ----

@test "certs: a key of its own, before or after; an encrypted one" {
    openssl pkey -in "$C/exact.key" -aes256 -passout pass:secret -out "$T/locked.key"
    chmod 600 "$T/locked.key"
    echo secret >"$T/pass"
    serve --ssl-cert "$C/exact.crt" --ssl-key "$C/exact.key"
    shown www.example.test exact
    serve --ssl-key "$C/exact.key" --ssl-cert "$C/exact.crt"
    shown www.example.test exact
    serve --ssl-cert "$C/default.pem" --ssl-cert "$C/exact.crt" --ssl-key "$T/locked.key" --ssl-key-pass-file "$T/pass"
    shown www.example.test exact
    shown default.test default
    refute grep -q warning "$LOG"
}

@test "certs: certificate and key through one pipe, and the same for several names" {
    serve --ssl-cert <(cat "$C/exact.pem") --processes 2
    shown www.example.test exact
    serve --ssl-ca <(cat "$C/clients.pem") --ssl-cert <(cat "$C/default.pem") --ssl-cert <(cat "$C/wild.pem")
    served --sni mail.example.test --cert "$C/alice.pem"
    served --sni default.test --cert "$C/alice.pem"
}

@test "certs: self-signed: curl trusts what --ssl-save-cert wrote; the fingerprint is in the log" {
    need curl curl
    serve --ssl-self-signed --ssl-save-cert "$T/saved.pem" --handler exec sh -c 'printf "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"'
    local host
    for host in localhost 127.0.0.1; do
        run curl --silent --show-error --max-time 20 --cacert "$T/saved.pem" "https://$host:$PORT/"
        equal "$output" ok
    done
    grep -qx "hark: certificate names=localhost,127\.0\.0\.1,::1 sha256=$(fingerprint "$T/saved.pem")" "$LOG"
    refute grep -q 'PRIVATE KEY' "$T/saved.pem"
    refute curl --silent --max-time 20 "https://localhost:$PORT/"
}

@test "certs: self-signed: for a name, for an address; not the same twice" {
    serve --ssl-self-signed=my.test --ssl-save-cert "$T/first.pem"
    run timeout 20 openssl s_client -connect "127.0.0.1:$PORT" -servername my.test -CAfile "$T/first.pem" -verify_hostname my.test -verify_return_error </dev/null
    match "$output" 'Verify return code: 0 \(ok\)'
    grep -q '^hark: certificate names=localhost,127\.0\.0\.1,::1,my\.test sha256=' "$LOG"
    serve --ssl-self-signed=192.0.2.7 --ssl-save-cert "$T/second.pem"
    openssl x509 -in "$T/second.pem" -noout -ext subjectAltName | grep -q 'IP Address:192.0.2.7'
    refute cmp -s "$T/first.pem" "$T/second.pem"
}

# ---- stapled responses, secrets ----

@test "certs: OCSP: the response of the certificate that is shown is stapled, to those who ask" {
    secure --ssl-cert "$C/both.pem" --ssl-ocsp "$C/both.ocsp" --ssl-cert "$C/bothrsa.pem"
    local version
    for version in 1_2 1_3; do
        run s_client -status -servername both.test "-tls$version" -sigalgs ECDSA+SHA256 </dev/null
        match "$output" 'OCSP Response Status: successful'
        match "$output" 'Cert Status: good'
        run s_client -status -servername default.test "-tls$version" </dev/null
        match "$output" 'OCSP response: no response sent'
        run s_client -servername both.test "-tls$version" -sigalgs ECDSA+SHA256 </dev/null
        refute grep -q 'OCSP Response Status' <<<"$output"
    done
    # the RSA one of that name has none
    run s_client -status -servername both.test -tls1_3 -sigalgs rsa_pss_rsae_sha256 </dev/null
    match "$output" 'OCSP response: no response sent'
}

@test "certs: key log: the lines that the client has as well, for both versions; nobody else may read them" {
    secure --ssl-keylog "$T/server.keys" --processes 2
    local version
    for version in 1_2 1_3; do
        s_client "-tls$version" -keylogfile "$T/client.keys" </dev/null >/dev/null 2>&1
    done
    grep -q '^CLIENT_RANDOM [0-9a-f]\{64\} [0-9a-f]\{96\}$' "$T/server.keys"
    grep -q '^SERVER_TRAFFIC_SECRET_0 ' "$T/server.keys"
    equal "$(sort "$T/server.keys" | grep -v EXPORTER)" "$(grep -v -e '^#' -e EXPORTER "$T/client.keys" | sort)"
    equal "$(stat -c %a "$T/server.keys")" 600
}

@test "certs: key log: --check makes none; one that everyone can read is warned about" {
    run_hark --check --port 0 --ssl-cert "$C/default.pem" --ssl-keylog "$T/keys"
    equal "$status" 0
    [ ! -e "$T/keys" ]
    refute grep -q warning "$T/err"
    (umask 022 && echo '# from before' >"$T/keys")
    local warning="hark: warning: \"$T/keys\": everyone can read these secrets (chmod o-r)"
    run_hark --check --port 0 --ssl-cert "$C/default.pem" --ssl-keylog "$T/keys"
    equal "$status" 0
    equal "$(grep -c -xF "$warning" "$T/err")" 1
    equal "$(<"$T/keys")" '# from before'
    secure --ssl-keylog "$T/keys" --processes 2
    equal "$(grep warning "$LOG")" "$warning"
    # a device keeps none
    secure --ssl-keylog /dev/null
    refute grep -q warning "$LOG"
}

# ---- certificates of clients ----

# served OPTION-OF-CLIENT...: it gets through to echo.
served() {
    run tls_client "$@" "$PORT" echo:10 end count
    equal "$output" "0 eof" "what $* got"
}

# refused ALERT OPTION-OF-CLIENT...: it does not, and is told why.
refused() {
    local alert=$1
    shift
    run tls_client "$@" "$PORT" echo:10 end count
    match "$output" "alert: .*$alert\$"
}

@test "client certificates: required: a good one is served, none and bad ones are refused, in both versions" {
    secure --ssl-ca "$C/clients.pem"
    local version
    for version in 1.2 1.3; do
        served --version "$version" --cert "$C/alice.pem"
        refused UNKNOWN_CA --version "$version" --cert "$C/mallory.pem"
        refused CERTIFICATE_EXPIRED --version "$version" --cert "$C/late.pem"
    done
    refused HANDSHAKE_FAILURE --version 1.2
    refused CERTIFICATE_REQUIRED --version 1.3
    wait_for_log '^hark: close .* client="CN=alice"$' 2
    wait_for_log '^hark: reject .* error="peer did not return a certificate"$' 2
    wait_for_log '^hark: reject .* error="unable to get local issuer certificate"$' 2
    wait_for_log '^hark: reject .* error="certificate has expired"$' 2
}

@test "client certificates: optional: without one it is served, with a bad one not; the program learns which" {
    secure --ssl-ca "$C/clients.pem" --ssl-verify optional --handler shell 'echo "$SSL_CLIENT_VERIFY $SSL_CLIENT_S_DN"'
    run tls_client --cert "$C/alice.pem" "$PORT" all
    equal "$output" "SUCCESS CN=alice"
    run tls_client "$PORT" all
    equal "$output" "NONE "
    refused UNKNOWN_CA --cert "$C/mallory.pem"
}

@test "client certificates: none: nobody is asked" {
    secure --ssl-ca "$C/clients.pem" --ssl-verify none --handler shell 'echo "$SSL_CLIENT_VERIFY"'
    run tls_client --cert "$C/mallory.pem" "$PORT" all
    equal "$output" NONE
    run s_client </dev/null
    match "$output" 'No client certificate CA names sent'
}

@test "client certificates: the names of the authorities are sent, of a file and of a directory" {
    mkdir "$T/authorities"
    cp "$C/clients.pem" "$T/authorities/"
    openssl rehash "$T/authorities"
    local where
    for where in "$C/clients.pem" "$T/authorities"; do
        secure --ssl-ca "$where"
        run s_client -cert "$C/alice.pem" </dev/null
        match "$output" $'Acceptable client certificate CA names\nCN = clients\n'
        served --cert "$C/alice.pem"
        refused UNKNOWN_CA --cert "$C/mallory.pem"
        stop_hark
    done
}

@test "client certificates: revoked" {
    secure --ssl-ca "$C/clients.pem" --ssl-crl "$C/clients.crl"
    served --cert "$C/alice.pem"
    refused CERTIFICATE_REVOKED --cert "$C/bob.pem"
    refused CERTIFICATE_REVOKED --version 1.2 --cert "$C/bob.pem"
    wait_for_log '^hark: reject .* error="certificate revoked"$' 2
}

@test "client certificates: revoked, by lists in a directory, that of the authorities, too" {
    local version
    mkdir "$T/both"
    make_crl strangers.crl strangers mallory
    cp "$C/clients.pem" "$C/strangers.pem" "$C/clients.crl" "$C/strangers.crl" "$T/both"
    # who does not ask for the lists there is told so
    openssl rehash "$T/both"
    [ "$(find "$T/both" -name '*.r0' | wc -l)" -eq 2 ]
    secure --ssl-ca "$T/both"
    served --cert "$C/bob.pem"
    equal "$(grep warning "$LOG")" \
        "hark: warning: \"$T/both\": its revocation lists are not used, since none are asked for (--ssl-crl \"$T/both\")"
    secure --ssl-ca "$T/both" --ssl-crl "$T/both"
    refute grep -q warning "$LOG"
    for version in 1.2 1.3; do
        served --version "$version" --cert "$C/alice.pem"
        refused CERTIFICATE_REVOKED --version "$version" --cert "$C/bob.pem"
        refused CERTIFICATE_REVOKED --version "$version" --cert "$C/mallory.pem"
    done
    # one of the two has no list any more: none of its clients is let in after the reload
    find "$T/both" -type l -delete
    rm "$T/both/clients.crl"
    openssl rehash "$T/both"
    reload
    refused '[A-Z_]+' --cert "$C/alice.pem"
    wait_for_log '^hark: reject .* error="unable to get certificate CRL"$'
}

@test "client certificates: through authorities between, as many as --ssl-verify-depth allows" {
    make_ca between clients
    make_ca closer between
    make_cert carol closer email:carol@example.org
    cat "$C/carol.crt" "$C/closer.pem" "$C/between.pem" "$C/carol.key" >"$T/carol.pem"
    secure --ssl-ca "$C/clients.pem"
    served --cert "$T/carol.pem"
    secure --ssl-ca "$C/clients.pem" --ssl-verify-depth 2
    served --cert "$T/carol.pem"
    secure --ssl-ca "$C/clients.pem" --ssl-verify-depth 1
    refused '[A-Z_]+' --cert "$T/carol.pem"
    wait_for_log '^hark: reject .* error="certificate chain too long"$'
}

@test "client certificates: for each name its own rules" {
    secure --ssl-cert "$C/exact.pem" --ssl-ca "$C/clients.pem" --ssl-cert "$C/wild.pem" --ssl-ca "$C/strangers.pem" --ssl-verify optional
    local version
    for version in 1.2 1.3; do
        served --version "$version" --sni default.test
        served --version "$version" --sni www.example.test --cert "$C/alice.pem"
        refused 'UNKNOWN_CA' --version "$version" --sni www.example.test --cert "$C/mallory.pem"
        refused '(REQUIRED|HANDSHAKE_FAILURE)' --version "$version" --sni WWW.example.test
        served --version "$version" --sni mail.example.test
        served --version "$version" --sni mail.example.test --cert "$C/mallory.pem"
        refused 'UNKNOWN_CA' --version "$version" --sni mail.example.test --cert "$C/alice.pem"
    done
}

@test "client certificates: before the first --ssl-cert they are asked for all names" {
    serve --ssl-ca "$C/clients.pem" --ssl-cert "$C/default.pem" --ssl-cert "$C/exact.pem"
    served --sni www.example.test --cert "$C/alice.pem"
    refused REQUIRED --sni www.example.test
    refused REQUIRED --sni nobody.test
    refused REQUIRED
}

@test "client certificates: of everyone who makes up a certificate: exec on every interface is no open door" {
    start_hark --port 0 --ssl-self-signed --ssl-ca "$C/clients.pem" --handler exec cat
    refute grep -q warning "$LOG"
    start_hark --port 0 --ssl-self-signed --handler exec cat
    grep -q 'warning: everyone who can reach' "$LOG"
}

# ---- what the two agree on ----

@test "agree: ALPN: the server's preference counts; a client with none in common is told so; one that does not ask is served" {
    secure --ssl-alpn h2,http/1.1
    run s_client -alpn http/1.1,h2 </dev/null
    match "$output" 'ALPN protocol: h2'
    run s_client -alpn x/1,http/1.1 -tls1_2 </dev/null
    match "$output" 'ALPN protocol: http/1.1'
    wait_for_log '^hark: close .* alpn=http/1\.1$'
    run s_client -alpn x/1 </dev/null
    match "$output" 'alert no application protocol'
    wait_for_log '^hark: reject .* error="no application protocol"$'
    run s_client </dev/null
    match "$output" 'No ALPN negotiated'
}

@test "agree: versions: 1.2 and 1.3, older ones are told so; --ssl-min-version, --ssl-max-version" {
    secure
    local version
    for version in 1.0 1.1; do
        run tls_client --version "$version" "$PORT" end count
        equal "$output" "alert: TLSV1_ALERT_PROTOCOL_VERSION"
    done
    wait_for_log '^hark: reject .* error="unsupported protocol"$' 2
    secure --ssl-min-version 1.3
    served --version 1.3
    refused PROTOCOL_VERSION --version 1.2
    secure --ssl-max-version 1.2
    served --version 1.2
    refused PROTOCOL_VERSION --version 1.3
    run s_client </dev/null
    match "$output" 'New, TLSv1.2, Cipher is '
}

@test "agree: gnutls-cli: both versions, and none of the old ones" {
    need gnutls-cli gnutls-bin
    secure
    local version
    for version in 1.2 1.3; do
        run timeout 20 gnutls-cli --priority "NORMAL:-VERS-ALL:+VERS-TLS$version" --x509cafile "$C/ca.pem" --verify-hostname default.test \
            -p "$PORT" 127.0.0.1 </dev/null
        match "$output" "Description: \(TLS$version-X.509\)"
    done
    run timeout 20 gnutls-cli --priority 'LEGACY:-VERS-ALL:+VERS-TLS1.1:%UNSAFE_RENEGOTIATION' --insecure -p "$PORT" 127.0.0.1 </dev/null
    match "$output" 'protocol version|unsupported version|no ciphers'
}

@test "agree: ciphers, ciphersuites, groups" {
    secure --ssl-ciphers ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256 --ssl-ciphersuites TLS_CHACHA20_POLY1305_SHA256 \
        --ssl-groups P-384:X25519
    run s_client -tls1_2 </dev/null
    match "$output" 'Cipher is ECDHE-ECDSA-CHACHA20-POLY1305'
    run s_client -tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384 </dev/null
    match "$output" 'alert handshake failure'
    wait_for_log '^hark: reject .* error="no shared cipher"$'
    run s_client -tls1_3 </dev/null
    match "$output" 'Cipher is TLS_CHACHA20_POLY1305_SHA256'
    run s_client -tls1_3 -ciphersuites TLS_AES_128_GCM_SHA256 </dev/null
    match "$output" 'alert handshake failure'
    run s_client -groups X25519 </dev/null
    match "$output" 'Server Temp Key: X25519'
    run s_client -groups X25519:P-384 </dev/null
    match "$output" 'Cipher is TLS_'
    run s_client -groups P-521 </dev/null
    match "$output" 'alert handshake failure'
}

@test "agree: by default neither compression nor CBC, RSA key exchange or DHE; the order is the server's" {
    secure
    run s_client -tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384 </dev/null
    match "$output" 'Cipher is ECDHE-ECDSA-AES256-GCM-SHA384'
    match "$output" 'Compression: NONE'
    match "$output" 'Secure Renegotiation IS supported'
    run s_client -tls1_2 -cipher ECDHE-ECDSA-AES128-SHA:AES128-SHA:DHE-RSA-AES128-GCM-SHA256 </dev/null
    match "$output" 'alert handshake failure'
}

@test "agree: no group of a finite field unless it is asked for: the large ones are dear" {
    secure
    local group
    for group in X25519 P-256 P-384 P-521 X448; do
        run s_client -groups "$group" </dev/null
        match "$output" 'Cipher is TLS_'
    done
    for group in ffdhe2048 ffdhe8192; do
        run s_client -groups "$group" </dev/null
        match "$output" 'alert handshake failure'
    done
    secure --ssl-groups ffdhe3072
    run s_client -groups ffdhe3072 </dev/null
    match "$output" 'Cipher is TLS_'
}

@test "agree: no renegotiation" {
    secure
    # R makes openssl's client ask for one
    converse asks R 'no renegotiation' sh -c 'openssl s_client -tls1_2 -connect "127.0.0.1:$1" -CAfile "$2" 2>&1 || true' - "$PORT" "$C/ca.pem"
    match "$(output_of asks)" RENEGOTIATING
    # the others are served
    served --version 1.2
}
