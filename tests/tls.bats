#!/usr/bin/env bats
# Over TLS everything works as over plain connections, and each end is told apart.
#
# shellcheck disable=SC2016,SC2034,SC2153,SC2154 # dollar signs of others; variables of lib.bash

load lib
load certs

setup_file() {
    make_ca ca
    make_ca other
    make_cert server ca DNS:localhost,DNS:server.test,IP:127.0.0.1
    make_cert named ca DNS:named.test
    make_cert client ca email:someone@example.org
}

secure() {
    serve -v --ssl-cert "$C/server.pem" "$@"
}

# A TLS server of one connection that takes these steps, and hark before it. OPTIONS are of client.py.
forward_to() { # OPTIONS STEP...
    local options
    read -ra options <<<"$1"
    shift
    spawn_target --seed 2 --tls --cert "$C/server.pem" "${options[@]}" listen "$@"
    secure --handler forward --forward-ssl --forward-ssl-ca "$C/ca.pem" "127.0.0.1:$TARGET_PORT"
}

# ---- echo, and the clients there are ----

@test "tls: echo: large, both ways at once, in both versions, and what the log says" {
    secure
    run tls_client "$PORT" exchange:3000000
    equal "$output" "same 3000000 eof"
    wait_for_log '^hark: accept id=1 peer=127\.0\.0\.1:[0-9]+ local=127\.0\.0\.1:[0-9]+$'
    wait_for_log '^hark: close id=1 peer=127\.0\.0\.1:[0-9]+ reason=eof in=3000000 out=3000000 seconds=[0-9]+\.[0-9]{3} tls=TLSv1\.3 cipher=TLS_[A-Z0-9_]+$'
    run tls_client --version 1.2 --sni server.test "$PORT" exchange:3000000
    equal "$output" "same 3000000 eof"
    wait_for_log '^hark: close id=2 .* reason=eof in=3000000 out=3000000 .* tls=TLSv1\.2 cipher=ECDHE-ECDSA-[A-Z0-9-]+ sni=server\.test$'
    stop_hark
}

@test "tls: echo: a slow reader, the smallest buffer, single bytes" {
    secure --max-buffer-size 1k
    run tls_client --rcvbuf 4096 "$PORT" slow:20000:0.005 exchange:300000
    equal "$output" "same 300000 eof"
    run tls_client "$PORT" rounds:50:1 end same
    equal "$output" "same 50 eof"
}

@test "tls: echo: openssl, gnutls-cli, ncat, socat" {
    need gnutls-cli gnutls-bin
    need ncat ncat
    need socat socat
    secure
    converse openssl 'from openssl' '^from openssl' openssl s_client -connect "127.0.0.1:$PORT" -CAfile "$C/ca.pem" -verify_return_error -quiet -no_ign_eof
    equal "$(output_of openssl)" "from openssl"
    run bash -c "echo from gnutls | timeout 20 gnutls-cli --x509cafile $C/ca.pem -p $PORT localhost"
    match "$output" $'\nfrom gnutls\n- Peer has closed the GnuTLS connection'
    converse ncat 'from ncat' '^from ncat' ncat --ssl-verify --ssl-trustfile "$C/ca.pem" localhost "$PORT"
    equal "$(output_of ncat)" "from ncat"
    run bash -c "echo from socat | timeout 20 socat -t 15 - OPENSSL:localhost:$PORT,cafile=$C/ca.pem"
    equal "$output" "from socat"
    wait_for_log ' reason=eof ' 3
}

@test "tls: echo: large through gnutls-cli and socat, compared" {
    need socat socat
    head -c 5000000 /dev/urandom >"$T/in"
    secure
    timeout 30 socat -t 20 - "OPENSSL:localhost:$PORT,cafile=$C/ca.pem" <"$T/in" >"$T/out"
    equal "$(sha256sum <"$T/out")" "$(sha256sum <"$T/in")"
}

@test "tls: exec: curl, verified" {
    need curl curl
    secure --handler exec sh -c 'printf "HTTP/1.0 200 OK\r\nContent-Length: 300000\r\n\r\n"; head -c 300000 /dev/zero'
    run curl --silent --show-error --max-time 20 --cacert "$C/ca.pem" -o "$T/got" -w '%{http_code} %{size_download}' "https://localhost:$PORT/"
    equal "$output" "200 300000"
    # curl may have closed before it got our close_notify, which then is answered by a reset
    wait_for_log ' reason=(child|reset) .* status=0 '
}

@test "tls: discard" {
    secure --handler discard
    run tls_client "$PORT" send:1000000 end count
    equal "$output" "0 eof"
    wait_for_log ' reason=eof in=1000000 out=0 '
}

@test "tls: unix sockets, peers named by their credentials" {
    start_hark -v --unix "$T/s" --ssl-cert "$C/server.pem"
    run tls_client "unix:$T/s" exchange:500000
    equal "$output" "same 500000 eof"
    wait_for_log "^hark: close id=1 peer=unix: pid=[0-9]+ uid=$(id -u) gid=$(id -g) reason=eof .* tls=TLSv1\.3 "
}

@test "tls: several processes" {
    secure --processes 4
    local i
    for i in 1 2 3 4 5 6 7 8; do
        spawn_tls_client "c$i" "$PORT" exchange:100000
    done
    for i in 1 2 3 4 5 6 7 8; do
        finish "c$i"
        equal "$(output_of "c$i")" "same 100000 eof"
    done
    stop_hark
}

@test "tls: several processes, each with its own listening socket" {
    secure --processes 3 --reuse-port
    local i
    for i in 1 2 3 4 5 6; do
        run tls_client "$PORT" exchange:1000
        equal "$output" "same 1000 eof"
    done
}

# ---- programs ----

@test "tls: exec: large, both ways at once" {
    secure --handler exec cat
    run tls_client "$PORT" exchange:2000000
    equal "$output" "same 2000000 eof"
    wait_for_log ' reason=child in=2000000 out=2000000 .* tls=TLSv1\.3 .* status=0 '
}

@test "tls: exec: an answer without reading the request arrives whole" {
    secure --handler exec sh -c 'head -c 300000 /dev/zero'
    run tls_client --rcvbuf 4096 "$PORT" send:100000 end count
    equal "$output" "300000 eof"
}

@test "tls: exec: what the program writes to stderr goes to the log, and its exit status" {
    secure --handler exec sh -c 'echo trouble >&2; exit 3'
    run tls_client "$PORT" end count
    equal "$output" "0 eof"
    wait_for_log '^hark: stderr id=1 text=trouble$'
    wait_for_log '^hark: close id=1 .* reason=child .* tls=.* status=3 '
}

@test "tls: shell, a warm pool, a service that asks and answers" {
    secure --handler shell 'read -r name; echo "hello $name"'
    run tls_client "$PORT" 'text:you\n' all
    equal "$output" "hello you"
    secure --warm 2 --handler exec cat
    run tls_client "$PORT" exchange:1000
    equal "$output" "same 1000 eof"
}

@test "tls: exec: the environment" {
    secure --ssl-ca "$C/ca.pem" --ssl-alpn h2,x/1 --handler exec env
    SSL_CLIENT_VERIFY=stale s_client -cert "$C/client.pem" -servername Server.Test -alpn x/1 -quiet <"/dev/null" >"$T/env" 2>/dev/null
    local line
    for line in PROTO=SSL SSL_PROTOCOL=TLSv1.3 SSL_TLS_SNI=Server.Test SSL_ALPN=x/1 SSL_CLIENT_VERIFY=SUCCESS SSL_CLIENT_S_DN=CN=client \
        SSL_CLIENT_I_DN=CN=ca SSLLOCALIP=127.0.0.1 "SSLLOCALPORT=$PORT" SSLREMOTEIP=127.0.0.1 TCPREMOTEIP=127.0.0.1 \
        "SSL_CLIENT_M_SERIAL=$(openssl x509 -in "$C/client.crt" -noout -serial | sed 's/.*=//')"; do
        grep -qxF "$line" "$T/env" || fail "no $line in $(cat "$T/env")"
    done
    grep -q '^SSL_CIPHER=TLS_' "$T/env"
    grep -qE '^SSLREMOTEPORT=[0-9]+$' "$T/env"
    equal "$(sed -n '/^SSL_CLIENT_CERT=/,/END CERT/p' "$T/env" | sed 's/^SSL_CLIENT_CERT=//')" "$(openssl x509 -in "$C/client.crt")"
    wait_for_log ' reason=child .* alpn=x/1 client="CN=client" '
}

@test "tls: exec: without name, protocol and certificate; hark's own variables of that kind are not passed on" {
    export SSL_CLIENT_S_DN=CN=root SSL_CLIENT_CERT=stale SSL_CLIENT_VERIFY=SUCCESS SSL_TLS_SNI=stale
    secure --handler exec env
    s_client -noservername -tls1_2 -quiet <"/dev/null" >"$T/env" 2>/dev/null
    grep -qx SSL_PROTOCOL=TLSv1.2 "$T/env"
    grep -qx SSL_TLS_SNI= "$T/env"
    grep -qx SSL_ALPN= "$T/env"
    grep -qx SSL_CLIENT_VERIFY=NONE "$T/env"
    refute grep -qE '^SSL_CLIENT_(S_DN|I_DN|CERT|M_SERIAL)' "$T/env"
}

@test "plain: exec: no variables of TLS, inherited or not" {
    export SSL_CLIENT_VERIFY=SUCCESS SSL_PROTOCOL=stale SSL_CLIENT_S_DN=stale SSL_TLS_SNI=stale SSLREMOTEIP=stale
    serve --handler exec env
    client "$PORT" all >"$T/env"
    grep -qx PROTO=TCP "$T/env"
    refute grep -qE '^SSL_(CLIENT|PROTOCOL|TLS)|=stale' "$T/env"
}

@test "tls: exec: the child has its three descriptors and nothing of TLS" {
    without_valgrind "it opens its log anew in a child"
    secure --ssl-keylog "$T/keys" --handler exec sh -c 'ls -l /proc/self/fd'
    tls_client "$PORT" all >"$T/got"
    # 0, 1, 2, and the directory that ls reads
    equal "$(grep -c -- '->' "$T/got")" 4
    refute grep -qE 'socket:|keys|\.pem' <(grep -vE ' [012] -> ' "$T/got")
}

# ---- forward ----

@test "tls: forward: to a plain target" {
    serve_target
    secure --handler forward "127.0.0.1:$TARGET_PORT"
    run tls_client "$PORT" exchange:2000000
    equal "$output" "same 2000000 eof"
    wait_for_log ' reason=eof in=2000000 out=2000000 .* tls=TLSv1\.3 '
}

@test "tls: forward: from plain to TLS, an address verified" {
    secure
    local target=$PORT
    serve -v --handler forward --forward-ssl --forward-ssl-ca "$C/ca.pem" "127.0.0.1:$target"
    run client "$PORT" exchange:2000000
    equal "$output" "same 2000000 eof"
    wait_for_log ' reason=eof in=2000000 out=2000000 '
}

@test "tls: forward: TLS on both sides, and the name is sent" {
    secure
    local target=$PORT target_log=$LOG
    secure --handler forward --forward-ssl --forward-ssl-ca "$C/ca.pem" "localhost:$target"
    run tls_client "$PORT" exchange:2000000
    equal "$output" "same 2000000 eof"
    eventually grep -qE ' in=2000000 out=2000000 .* sni=localhost$' "$target_log"
}

# refuses_target REASON OPTION...: the client is told by a reset, and the log says why.
refuses_target() {
    local reason=$1
    shift
    serve -v --handler forward --forward-ssl "$@"
    run client "$PORT" count
    equal "$output" "0 reset"
    wait_for_log "error.*$reason"
    stop_hark
}

@test "tls: forward: a target whose certificate is another's, or of nobody known, is not talked to" {
    serve -v --ssl-cert "$C/named.pem"
    local target=$PORT
    refuses_target "(hostname|host name) mismatch" --forward-ssl-ca "$C/ca.pem" "localhost:$target"
    refuses_target "IP address mismatch" --forward-ssl-ca "$C/ca.pem" "127.0.0.1:$target"
    refuses_target "unable to get local issuer certificate" --forward-ssl-ca "$C/other.pem" --forward-ssl-name named.test "localhost:$target"
    refuses_target "unable to get local issuer certificate" "localhost:$target"
}

@test "tls: forward: --forward-ssl-name, --forward-ssl-insecure, a hashed directory" {
    serve -v --ssl-cert "$C/named.pem"
    local target=$PORT target_log=$LOG
    serve --handler forward --forward-ssl --forward-ssl-ca "$C/ca.pem" --forward-ssl-name named.test "127.0.0.1:$target"
    run client "$PORT" exchange:1000
    equal "$output" "same 1000 eof"
    eventually has_line "$target_log" ' sni=named\.test$'
    serve --handler forward --forward-ssl --forward-ssl-insecure "127.0.0.1:$target"
    run client "$PORT" exchange:1000
    equal "$output" "same 1000 eof"
    mkdir "$T/authorities"
    cp "$C/ca.pem" "$T/authorities/"
    openssl rehash "$T/authorities"
    serve --handler forward --forward-ssl --forward-ssl-ca "$T/authorities" --forward-ssl-name named.test "127.0.0.1:$target"
    run client "$PORT" exchange:1000
    equal "$output" "same 1000 eof"
}

@test "tls: forward: to a unix socket" {
    start_hark -v --unix "$T/s" --ssl-cert "$C/named.pem"
    serve --handler forward --forward-ssl --forward-ssl-ca "$C/ca.pem" --forward-ssl-name named.test "unix:$T/s"
    run client "$PORT" exchange:100000
    equal "$output" "same 100000 eof"
    run_hark --port 0 --handler forward --forward-ssl "unix:$T/s"
    equal "$status" 2
    match "$output" "no name that its certificate could be for"
}

@test "tls: forward: to openssl s_server and gnutls-serv" {
    need gnutls-serv gnutls-bin
    spawn openssl openssl s_server -accept 127.0.0.1:0 -cert "$C/server.pem" -CAfile "$C/ca.pem" -rev -naccept 1
    wait_for_line openssl '^ACCEPT '
    serve --handler forward --forward-ssl --forward-ssl-ca "$C/ca.pem" "$(sed -n 's/^ACCEPT //p' "$T/openssl")"
    run client "$PORT" 'text:abc\n' line end
    equal "$output" cba
}

@test "tls: forward: a target that is no TLS server" {
    serve_target # it sends back our ClientHello
    refuses_target "TLS: unexpected message" --forward-ssl-insecure "127.0.0.1:$TARGET_PORT"
}

# ---- stdio ----

@test "tls: stdio: both ways, each with its own end" {
    head -c 2000000 /dev/urandom >"$T/in"
    secure --handler stdio --once <"$T/in" >"$T/out"
    spawn_tls_client peer --seed 5 "$PORT" send:1000000 end all
    finish peer
    cmp "$T/in" "$T/peer"
    wait_for_exit
    equal "$STATUS" 0
    equal "$(stat -c %s "$T/out")" 1000000
}

@test "tls: stdio: the end of stdin is a close_notify, and reading goes on" {
    secure --handler stdio --once < <(echo hello) >"$T/out"
    run tls_client "$PORT" count send:100000 end
    equal "$output" "6 eof"
    wait_for_exit
    equal "$STATUS" 0
    equal "$(stat -c %s "$T/out")" 100000
}

@test "tls: stdio: --once: a client that ends without close_notify is not served in order; a failed handshake is no connection" {
    secure --handler stdio --once </dev/null >"$T/out"
    client "$PORT" 'text:GET / HTTP/1.0\r\n\r\n' count
    tls_client "$PORT" send:100 close
    wait_for_exit
    equal "$STATUS" 1
    equal "$(grep -cE '^hark: (accept|reject) ' "$LOG")" 2
}

# ---- ends ----

@test "tls: half-close: echo, exec and forward answer after the client's close_notify, late and whole" {
    local version
    secure --handler exec sh -c 'cat >"$1/request.$$"; sleep 0.2; cat "$1/request.$$"' sh "$T"
    for version in 1.2 1.3; do
        run tls_client --version "$version" --rcvbuf 4096 "$PORT" send:200000 end slow:16384:0.001 same
        equal "$output" "same 200000 eof"
    done
    local target=$PORT
    secure --handler forward --forward-ssl --forward-ssl-ca "$C/ca.pem" "127.0.0.1:$target"
    for version in 1.2 1.3; do
        run tls_client --version "$version" "$PORT" send:200000 end same
        equal "$output" "same 200000 eof"
    done
    wait_for_log ' reason=eof in=200000 out=200000 ' 2
}

@test "tls: half-close: the clients of GnuTLS and OpenSSL get a late answer" {
    need gnutls-cli gnutls-bin
    need socat socat
    secure --handler exec sh -c 'wc -c; sleep 0.2; echo late'
    local priority
    for priority in NORMAL:-VERS-TLS1.3 NORMAL; do
        run bash -c "echo hello | timeout 20 gnutls-cli --priority $priority --x509cafile $C/ca.pem -p $PORT localhost"
        match "$output" $'\n6\nlate\n- Peer has closed the GnuTLS connection'
    done
    # socat ends with SSL_shutdown, and reads on
    run bash -c "echo hello | timeout 20 socat -t 15 - OPENSSL:localhost:$PORT,cafile=$C/ca.pem"
    equal "$output" $'6\nlate'
    wait_for_log ' reason=child in=6 out=7 .* status=0 ' 3
}

@test "tls: half-close: the target ends first, by close_notify or FIN, and the client goes on" {
    local version
    for version in 1.2 1.3; do
        forward_to "--version $version" text:hello end count
        run tls_client --version "$version" "$PORT" count send:200000 end
        equal "$output" "5 eof"
        finish target
        equal "$(tail -n 1 "$T/target")" "200000 eof"
        wait_for_log ' in=200000 out=5 '
    done
    spawn_target listen text:hello end count
    secure --handler forward "127.0.0.1:$TARGET_PORT"
    run tls_client "$PORT" count send:200000 end
    equal "$output" "5 eof"
    finish target
    equal "$(tail -n 1 "$T/target")" "200000 eof"
}

@test "tls: half-close: large in both directions, the ends in the middle" {
    spawn_target --seed 2 --other 1 --tls --cert "$C/server.pem" listen both:2000000
    secure --max-buffer-size 64k --handler forward --forward-ssl --forward-ssl-ca "$C/ca.pem" "127.0.0.1:$TARGET_PORT"
    spawn_tls_client peer --seed 1 "$PORT" both:2000000
    finish peer
    finish target
    equal "$(output_of peer)" "same 2000000 eof"
    equal "$(tail -n 1 "$T/target")" "same 2000000 eof"
}

@test "tls: ends: with close_notify it is eof, without tls, by reset reset; in both versions" {
    local version
    for version in 1.2 1.3; do
        secure
        # the bytes come back first, so that nothing is unread and a close is no reset
        tls_client --version "$version" "$PORT" echo:10 end count close
        wait_for_log '^hark: close id=1 .* reason=eof in=10 out=10 '
        tls_client --version "$version" "$PORT" echo:10 close
        wait_for_log '^hark: close id=2 .* reason=tls in=10 out=10 .* error="ended without close_notify"$'
        tls_client --version "$version" "$PORT" echo:10 reset
        wait_for_log '^hark: close id=3 .* reason=reset in=10 out=10 '
        stop_hark
    done
}

@test "tls: ends: forward: an end without close_notify is passed on as a reset" {
    spawn_target listen recv:10 'text:got\n' hangup
    secure --handler forward "127.0.0.1:$TARGET_PORT"
    tls_client "$PORT" send:10 line close
    finish target
    equal "$(tail -n 1 "$T/target")" reset
    wait_for_log ' reason=tls '
}

@test "tls: ends: forward: a target that ends without close_notify is passed on as one that did not end in order" {
    forward_to "" text:hello close
    run tls_client "$PORT" count
    match "$output" '^[05] (reset|truncated)$'
    wait_for_log 'close .* reason=reset '
}

@test "tls: ends: every end of ours is a close_notify: exec, shutdown by TERM, a client that waits for it" {
    secure --handler exec sh -c 'echo bye'
    local version
    for version in 1.2 1.3; do
        run tls_client --version "$version" "$PORT" count
        equal "$output" "4 eof"
    done
    stop_hark
    secure
    spawn_tls_client peer "$PORT" echo:10 say:here hold:"$T/go" end count
    wait_for_line peer here
    kill "$HARK_PID"
    touch "$T/go"
    finish peer
    equal "$(tail -n 1 "$T/peer")" "0 eof"
    wait_for_exit
    equal "$STATUS" 0
}

@test "tls: json: the same keys" {
    secure --log-format json
    tls_client --sni 'server.test' "$PORT" exchange:10
    client "$PORT" 'text:junk, and no hello' count
    eventually grep -q '"event":"reject"' "$LOG"
    python -c 'import json, sys
events = [json.loads(line) for line in open(sys.argv[1])]
close = next(e for e in events if e["event"] == "close")
assert (close["tls"], close["sni"], close["reason"]) == ("TLSv1.3", "server.test", "eof"), close
reject = next(e for e in events if e["event"] == "reject")
assert reject["reason"] == "handshake" and reject["error"] and reject["peer"], reject' "$LOG"
}
