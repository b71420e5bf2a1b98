#!/usr/bin/env bats
# PROXY headers: from balancers that announce their clients, and to targets that want to know them.
#
# shellcheck disable=SC2034,SC2154 # variables of lib.bash

load lib

FROM=$'PROXY TCP4 192.0.2.7 198.51.100.1 4321 80\r\n'
SAYS='PROXY TCP4 192.0.2.7 198.51.100.1 4321 80\r\n'
V2='\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\x10\xe1\x00\x50'
V2_LOCAL='\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00'
SHOW='echo "$TCPREMOTEIP $TCPREMOTEPORT $REMOTE_ADDR $TCPCONNNUM"; cat'

# spawn_haproxy LINE...: those of its `listen` sections
spawn_haproxy() {
    cat >"$T/haproxy.cfg" <<-CONF
		defaults
		    mode tcp
		    timeout connect 10s
		    timeout client 60s
		    timeout server 60s
		$(printf '%s\n' "$@")
	CONF
    spawn haproxy haproxy -db -q -f "$T/haproxy.cfg"
}

# ---- in ----

@test "proxy: the announced client is the peer" {
    serve -v --proxy-protocol 127.0.0.1 --handler shell "$SHOW"
    run client "$PORT" "text:${SAYS}hello" end all
    equal "$output" "192.0.2.7 4321 192.0.2.7 1"$'\n'hello
    run client "$PORT" "text:${V2}hello" end all
    equal "$output" "192.0.2.7 4321 192.0.2.7 1"$'\n'hello
    run client "$PORT" 'text:PROXY TCP6 2001:db8::7 2001:db8::1 5 6\r\nhello' end all
    equal "$output" "2001:db8::7 5 2001:db8::7 1"$'\n'hello
    wait_for_log '^hark: close id=1 peer=192\.0\.2\.7:4321 reason=child in=5 '
    wait_for_log '^hark: accept id=2 peer=192\.0\.2\.7:4321 local=127\.0\.0\.1:'
    wait_for_log '^hark: close id=3 peer=\[2001:db8::7\]:5 reason=child in=5 '
    stop_hark
}

@test "proxy: LOCAL and UNKNOWN pass as the balancer, which is neither checked nor counted" {
    serve -v --proxy-protocol 127.0.0.1 --allow 192.0.2.0/24 --deny 127.0.0.0/8 --handler shell "$SHOW"
    run client "$PORT" "text:${V2_LOCAL}hello" end all
    match "$output" '^127\.0\.0\.1 [0-9]+ 127\.0\.0\.1 0'
    run client "$PORT" 'text:PROXY UNKNOWN\r\nhello' end all
    match "$output" '^127\.0\.0\.1 [0-9]+ 127\.0\.0\.1 0'
    stop_hark
}

@test "proxy: access rules go by the announced client" {
    serve -v --proxy-protocol 127.0.0.1 --allow 192.0.2.0/24 --deny 192.0.2.9
    run client "$PORT" "text:${SAYS}hello" end all
    equal "$output" hello
    run client "$PORT" 'text:PROXY TCP4 192.0.2.9 198.51.100.1 4321 80\r\n' count
    match "$output" '^0 (eof|reset)$'
    run client "$PORT" 'text:PROXY TCP6 ::ffff:192.0.2.9 ::1 4321 80\r\n' count
    match "$output" '^0 (eof|reset)$'
    run client "$PORT" 'text:PROXY TCP4 203.0.113.1 198.51.100.1 4321 80\r\n' count
    match "$output" '^0 (eof|reset)$'
    wait_for_log '^hark: reject peer=192\.0\.2\.9:4321 reason=denied$' 2
    wait_for_log '^hark: reject peer=203\.0\.113\.1:4321 reason=denied$'
    # from elsewhere: no header is looked for, and the rules are for the peer itself
    run client --source 127.0.0.2 "$PORT" "text:${SAYS}hello" count
    match "$output" '^0 (eof|reset)$'
    wait_for_log '^hark: reject peer=127\.0\.0\.2:[0-9]+ reason=denied$'
    stop_hark
}

@test "proxy: limits for each address go by the announced client, however it is written" {
    serve -v --processes 2 --proxy-protocol 127.0.0.1 --max-per-ip 2
    local name
    for name in one two; do
        spawn_client $name "$PORT" "text:$SAYS" echo:5 say:held hold:"$T/go" end same
        wait_for_line $name held
    done
    for name in "$SAYS" "$V2" 'PROXY TCP6 ::ffff:192.0.2.7 ::1 1 1\r\n'; do
        run client "$PORT" "text:$name" count
        match "$output" '^0 (eof|reset)$'
    done
    wait_for_log '^hark: reject peer=192\.0\.2\.7:[0-9]+ reason=limit$' 3
    # another client; and the balancer itself, which is not counted
    for name in 'PROXY TCP4 192.0.2.8 198.51.100.1 4321 80\r\n' "$V2_LOCAL" "$V2_LOCAL" "$V2_LOCAL"; do
        run client "$PORT" "text:${name}hello" end all
        equal "$output" hello
    done
    touch "$T/go"
    finish one
    finish two
    one_more() { [ "$(client "$PORT" "text:${SAYS}hello" end all)" = hello ]; }
    eventually one_more
    stop_hark
}

@test "proxy: a header that does not come ends the connection" {
    serve -v --proxy-protocol 127.0.0.1
    run client "$PORT" 'text:PROXY TCP4 192.0.2.7 ' count
    match "$output" '^0 (eof|reset)$'
    wait_for_log '^hark: reject id=1 peer=127\.0\.0\.1:[0-9]+ reason=proxy$'
    refute grep -q '^hark: accept ' "$LOG"
    stop_hark
}

@test "proxy: from elsewhere a header is data" {
    serve --proxy-protocol 10.0.0.0/8
    run client "$PORT" "text:$SAYS" end all
    equal "$output" "${FROM%$'\n'}"
    stop_hark
}

@test "proxy: what is wrong, or missing, is closed and never data" {
    serve -v --proxy-protocol 127.0.0.0/8
    local header count=0
    for header in hello 'GET / HTTP/1.1\r\n' '\x16\x03\x01\x00' '\r\n\r\n\x00\r\nQUIT\n\x11' 'PROXY TCP4 1.2.3 1.2.3.4 1 1\r\n' \
        'PROXY TCP4 192.0.2.7 198.51.100.1 4321 80\n' '\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x02zz'; do
        run client "$PORT" "text:$header" count
        match "$output" '^0 (eof|reset)$'
        count=$((count + 1))
        wait_for_log '^hark: reject id=[0-9]+ peer=127\.0\.0\.1:[0-9]+ reason=proxy$' "$count"
    done
    run client "$PORT" 'text:PROXY TCP4 192.0.2.7 ' end count
    match "$output" '^0 (eof|reset)$'
    wait_for_log ' reason=proxy$' $((count + 1))
    refute grep -qE '^hark: (accept|close) ' "$LOG"
    stop_hark
}

@test "proxy: half a header in the queue does not keep hark busy" {
    serve -v --proxy-protocol 127.0.0.1
    local before
    spawn_client half "$PORT" 'text:PROXY TCP4 192.0' say:sent hold:"$T/go" 'text:.2.7 198.51.100.1 4321 80\r\nhello' end all
    wait_for_line half sent
    before=$(cpu_ticks "$HARK_PID")
    run client --timeout 0.5 "$PORT" "text:$SAYS" recv:1
    match "$output" timeout
    at_most $(($(cpu_ticks "$HARK_PID") - before)) 15 "ticks in half a second"
    touch "$T/go"
    finish half
    equal "$(output_of half | tail -n 1)" hello
    stop_hark
}

@test "proxy: the child is given the socket, or pipes, with the client's bytes alone" {
    local io
    for io in socket pipe; do
        serve -v --proxy-protocol 127.0.0.1 --handler exec --exec-io "$io" cat
        run client "$PORT" "text:$SAYS" echo:100000 say:well end count
        equal "$output" $'well\n0 eof'
        run client "$PORT" 'text:PROXY TCP4 192.0' say:half 'text:.2.7 198.51.100.1 4321 80\r\n' exchange:1000
        equal "$output" $'half\nsame 1000 eof'
        wait_for_log '^hark: close .* in=100000 out=100000 .* status=0 '
        stop_hark
    done 2>&1
}

@test "proxy: a bad header takes no --once" {
    serve -v --once --proxy-protocol 127.0.0.1
    spawn_client late "$PORT" text:PROXY say:sent count
    wait_for_line late sent
    run client "$PORT" text:hello count
    run client "$PORT" "text:${SAYS}hello" end all
    equal "$output" hello
    wait_for_exit
    equal "$STATUS" 0
    finish late
    equal "$(grep -c '^hark: accept ' "$LOG")" 1
}

@test "proxy: several processes, many clients" {
    need haproxy haproxy
    serve -v --processes 2 --proxy-protocol 127.0.0.1
    spawn_haproxy 'listen front' "    bind unix@$T/front.sock" "    server one 127.0.0.1:$PORT send-proxy-v2"
    eventually test -S "$T/front.sock"
    run crowd "unix:$T/front.sock" parallel 50 100000
    equal "$output" "done 50"
    stop_hark
}

@test "proxy: HAProxy in front, both versions, with health checks and every TLV it has" {
    need haproxy haproxy
    serve -v --proxy-protocol 127.0.0.1 --deny 127.0.0.0/8 --allow 127.0.0.5 --handler shell "$SHOW"
    spawn_haproxy 'listen one' "    bind unix@$T/one.sock accept-proxy" "    server one 127.0.0.1:$PORT send-proxy" \
        'listen two' "    bind unix@$T/two.sock accept-proxy" '    unique-id-format %[uuid()]' \
        "    server two 127.0.0.1:$PORT send-proxy-v2 proxy-v2-options crc32c,unique-id,authority check inter 100 check-send-proxy"
    eventually test -S "$T/two.sock"
    # the checks are LOCAL: served, whatever the rules say of the balancer
    wait_for_log '^hark: accept id=[0-9]+ peer=127\.0\.0\.1:' 3
    refute grep -q reason=proxy "$LOG"
    stop_hark
    serve -v --proxy-protocol 127.0.0.1 --allow 192.0.2.0/24 --handler shell "$SHOW"
    kill -TERM "${background[haproxy]}"
    spawn_haproxy 'listen one' "    bind unix@$T/one.sock accept-proxy" "    server one 127.0.0.1:$PORT send-proxy" \
        'listen two' "    bind unix@$T/three.sock accept-proxy" '    unique-id-format %[uuid()]' \
        "    server two 127.0.0.1:$PORT send-proxy-v2 proxy-v2-options crc32c,unique-id,authority"
    eventually test -S "$T/three.sock"
    local socket
    for socket in one three; do
        run client "unix:$T/$socket.sock" "text:${SAYS}hello" end all
        equal "$output" "192.0.2.7 4321 192.0.2.7 1"$'\n'hello
        run client "unix:$T/$socket.sock" 'text:PROXY TCP4 203.0.113.7 198.51.100.1 4321 80\r\nhello' count
        match "$output" '^0 (eof|reset)$'
    done
    wait_for_log '^hark: reject peer=203\.0\.113\.7:4321 reason=denied$' 2
    refute grep -q reason=proxy "$LOG"
}

@test "proxy: nginx in front, and behind" {
    need nginx nginx-light
    local module=/usr/lib/nginx/modules/ngx_stream_module.so
    [ -e "$module" ] || need nginx-stream libnginx-mod-stream
    serve # nginx takes no port 0: this one is free a moment later
    local front=$PORT
    stop_hark
    serve -v --proxy-protocol 127.0.0.1 --handler shell "$SHOW"
    cat >"$T/nginx.conf" <<-CONF
		load_module $module;
		daemon off; master_process off; pid $T/nginx.pid; error_log $T/nginx.log; user root;
		events { worker_connections 200; }
		stream {
		    server { listen 127.0.0.1:$front; proxy_pass 127.0.0.1:$PORT; proxy_protocol on; }
		}
		http {
		    access_log off;
		    client_body_temp_path $T/logs; proxy_temp_path $T/logs; fastcgi_temp_path $T/logs; uwsgi_temp_path $T/logs; scgi_temp_path $T/logs;
		    server { listen unix:$T/http.sock proxy_protocol;
		             location / { return 200 "\$proxy_protocol_addr \$proxy_protocol_port\n"; } }
		}
	CONF
    mkdir "$T/logs"
    spawn nginx nginx -p "$T" -c "$T/nginx.conf" -e "$T/nginx.log"
    eventually test -S "$T/http.sock"
    # no end: nginx would take it for that of both directions
    run client --source 127.0.0.9 "$front" text:hello line recv:0
    match "$output" '^127\.0\.0\.9 [0-9]+ 127\.0\.0\.9 1$'
    local version
    for version in 1 2; do
        serve --proxy-protocol 127.0.0.1 --handler forward --send-proxy "$version" "unix:$T/http.sock"
        run client "$PORT" "text:${SAYS}GET / HTTP/1.0\r\n\r\n" all
        equal "${lines[-1]}" "192.0.2.7 4321"
        stop_hark
    done
}

@test "proxy: curl announces itself" {
    need curl curl
    serve -v --proxy-protocol 127.0.0.1 --handler shell 'printf "HTTP/1.0 200 OK\r\n\r\n%s\n" "$TCPREMOTEIP $TCPREMOTEPORT"'
    run curl -sS --max-time 20 --haproxy-protocol "http://127.0.0.1:$PORT/"
    match "$output" '^127\.0\.0\.1 [0-9]+$'
    has_line "$LOG" '^hark: accept id=1 peer=127\.0\.0\.1:'
    run curl -sS --max-time 20 "http://127.0.0.1:$PORT/"
    refute equal "$status" 0
    wait_for_log ' reason=proxy$'
}

# ---- out ----

@test "proxy: forward announces the client" {
    serve -v --proxy-protocol 127.0.0.1 --handler shell "$SHOW"
    local target=$PORT version
    for version in 1 2; do
        start_hark --bind 127.0.0.1 --bind ::1 --port 0 --handler forward --send-proxy "$version" "127.0.0.1:$target"
        run client --source 127.0.0.9 "$PORT" text:hello end all
        match "$output" $'^127\.0\.0\.9 [0-9]+ 127\.0\.0\.9 1\nhello$'
        run client "[::1]:$PORT" text:hello end all
        match "$output" $'^::1 [0-9]+ ::1 1\nhello$'
        stop_hark
        # and whom it was told of itself
        serve --proxy-protocol 127.0.0.1 --handler forward --send-proxy "$version" "127.0.0.1:$target"
        run client "$PORT" "text:${V2}hello" end all
        equal "$output" "192.0.2.7 4321 192.0.2.7 1"$'\n'hello
        stop_hark
    done
}

@test "proxy: the header goes first, whoever speaks first, and is exact" {
    spawn_client target listen line say:read echo:1000 end count
    wait_for_line target '^port '
    TARGET_PORT=$(sed -n 's/^port //p' "$T/target")
    serve --handler forward --send-proxy 1 "127.0.0.1:$TARGET_PORT"
    spawn_client caller --source 127.0.0.9 "$PORT" say:connected hold:"$T/go" echo:1000 end count
    wait_for_line target '^read$' # before the client has sent a byte
    local line
    line=$(sed -n '/^PROXY/p' "$T/target")
    match "$line" "^PROXY TCP4 127\.0\.0\.9 127\.0\.0\.1 [0-9]+ $PORT"$'\r$'
    touch "$T/go"
    finish caller
    finish target
}

@test "proxy: clients of unix sockets are unknown to the target" {
    serve -v --proxy-protocol 127.0.0.1
    local target=$PORT version
    for version in 1 2; do
        start_hark --unix "$T/s" --handler forward --send-proxy "$version" "127.0.0.1:$target"
        client "unix:$T/s" exchange:100000
        stop_hark
    done
}

@test "proxy: HAProxy takes what forward sends" {
    need haproxy haproxy
    serve -v --proxy-protocol 127.0.0.1 --handler shell "$SHOW"
    local target=$PORT version
    spawn_haproxy 'listen front' "    bind unix@$T/front.sock accept-proxy" "    server one 127.0.0.1:$target send-proxy-v2"
    eventually test -S "$T/front.sock"
    for version in 1 2; do
        start_hark --bind 127.0.0.1 --bind ::1 --port 0 --handler forward --send-proxy "$version" "unix:$T/front.sock"
        run client --source 127.0.0.9 "$PORT" text:hello end all
        match "$output" $'^127\.0\.0\.9 [0-9]+ 127\.0\.0\.9 1\nhello$'
        run client "[::1]:$PORT" text:hello end all
        match "$output" $'^::1 [0-9]+ ::1 1\nhello$'
        run crowd "$PORT" parallel 20 1000
        stop_hark
    done
}

@test "proxy: --send-proxy is for forward, and 1 or 2" {
    run_hark --port 0 --send-proxy 2
    equal "$status" 2
    match "$output" '--send-proxy is for --handler forward'
    run_hark --port 0 --handler forward --send-proxy 3 127.0.0.1:1
    equal "$status" 2
    match "$output" 'option --send-proxy: "3" is not a number from 1 to 2'
}

# ---- and TLS ----

HTTP='printf "HTTP/1.0 200 OK\r\n\r\n%s\n" "$PROTO $TCPREMOTEIP $SSLREMOTEIP $SSL_PROTOCOL"'

# Says its PROXY header and the first of its handshake in one piece, and then GET; prints the answer.
tls_client() { # HEADER
    PORT=$PORT CERT=$T/cert.pem python - "$1" <<'END'
import os, socket, ssl, sys
header = sys.argv[1].encode().decode("unicode_escape").encode("latin-1")
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = ssl.create_default_context(cafile=os.environ["CERT"]).wrap_bio(incoming, outgoing, server_hostname="localhost")
s = socket.create_connection(("127.0.0.1", int(os.environ["PORT"])))
s.settimeout(20)

def exchange(what, *arguments):
    global header
    while True:
        try:
            return what(*arguments)
        except ssl.SSLWantReadError:
            s.sendall(header + outgoing.read())
            header = b""
            incoming.write(s.recv(65536))

exchange(tls.do_handshake)
exchange(tls.write, b"GET / HTTP/1.0\r\n\r\n")
print(exchange(tls.read, 4096).decode(), end="")
END
}

@test "proxy: the header comes before TLS" {
    serve -v --proxy-protocol 127.0.0.1 --deny 203.0.113.0/24 --ssl-self-signed --ssl-save-cert "$T/cert.pem" --handler shell "$HTTP"
    run tls_client "$SAYS"
    equal "${lines[-1]}" 'SSL 192.0.2.7 192.0.2.7 TLSv1.3'
    run tls_client "$V2"
    equal "${lines[-1]}" 'SSL 192.0.2.7 192.0.2.7 TLSv1.3'
    need curl curl
    run curl -sS --max-time 20 --haproxy-protocol --cacert "$T/cert.pem" "https://localhost:$PORT/" --resolve "localhost:$PORT:127.0.0.1"
    equal "${lines[-1]}" 'SSL 127.0.0.1 127.0.0.1 TLSv1.3'
    # one who is denied comes to no handshake
    run tls_client 'PROXY TCP4 203.0.113.7 198.51.100.1 4321 80\r\n'
    refute equal "$status" 0
    wait_for_log '^hark: reject peer=203\.0\.113\.7:4321 reason=denied$'
    # and a handshake without a header is none
    run curl -sS --max-time 20 -k "https://127.0.0.1:$PORT/"
    refute equal "$status" 0
    wait_for_log ' reason=proxy$'
    refute grep -q reason=handshake "$LOG"
    stop_hark
}

@test "proxy: forward sends the header before its own TLS" {
    serve -v --proxy-protocol 127.0.0.1 --ssl-self-signed --ssl-save-cert "$T/cert.pem" --handler shell "$SHOW"
    local target=$PORT version
    for version in 1 2; do
        serve --handler forward --send-proxy "$version" --forward-ssl --forward-ssl-ca "$T/cert.pem" "localhost:$target"
        run client --source 127.0.0.9 "$PORT" text:hello end all
        match "$output" $'^127\.0\.0\.9 [0-9]+ 127\.0\.0\.9 1\nhello$'
        stop_hark
    done
}

@test "proxy: whether a target is up again is asked with a header, too" {
    local version first second front log
    for version in 1 2; do
        serve --handler discard # its port is free a moment later
        first=$PORT
        stop_hark
        serve --proxy-protocol 127.0.0.1 --ssl-self-signed
        second=$PORT
        serve -vv --handler forward --balance first --send-proxy "$version" --forward-ssl --forward-ssl-insecure \
            "127.0.0.1:$first" "127.0.0.1:$second"
        front=$PORT log=$LOG
        client "$front" exchange:10
        wait_for_log "^hark: target name=127.0.0.1:$first state=down "
        start_hark --bind 127.0.0.1 --port "$first" -v --proxy-protocol 127.0.0.1 --ssl-self-signed
        come_back() { client "$front" exchange:10 && has_line "$log" "^hark: target name=127.0.0.1:$first state=up"; }
        eventually come_back
        refute grep -q 'reason=proxy' "$LOG"
    done
}

@test "proxy: version 2 tells of the client's TLS" {
    need openssl openssl
    need curl curl
    openssl req -x509 -newkey rsa:2048 -nodes -subj "/O=hark/CN=Ann" -keyout "$T/ann.key" -out "$T/ann.pem" -days 2 2>"$T/openssl.log"
    printf 'HTTP/1.0 200 OK\r\n\r\n' >"$T/answer"
    serve --handler stdio --once <"$T/answer" >"$T/header"
    local target=$PORT
    serve --ssl-self-signed --ssl-save-cert "$T/cert.pem" --ssl-ca "$T/ann.pem" --ssl-alpn http/1.1 \
        --handler forward --send-proxy 2 "127.0.0.1:$target"
    run curl -s --max-time 20 --cert "$T/ann.pem" --key "$T/ann.key" --cacert "$T/cert.pem" "https://localhost:$PORT/" \
        --resolve "localhost:$PORT:127.0.0.1"
    wait_for_exit "${harks[0]}"
    python - "$T/header" <<'END'
import re, sys
tls = rb"\x01\0\x08http/1\.1\x02\0\x09localhost\x20\0.\x07\0\0\0\0\x21\0\x07TLSv1\.3\x23\0.TLS_\w+\x22\0\x03Ann\x03\0\x04....GET / HTTP/1\.1"
sys.exit(not re.search(tls, open(sys.argv[1], "rb").read(), re.S))
END
}

@test "proxy: HAProxy takes what version 2 tells of TLS" {
    need haproxy haproxy
    need curl curl
    spawn_haproxy 'listen front' '    mode http' "    bind unix@$T/front.sock accept-proxy" \
        '    http-request return status 200 content-type text/plain lf-string "%[fc_pp_authority] %[src]\n"'
    eventually test -S "$T/front.sock"
    serve --ssl-self-signed --ssl-save-cert "$T/cert.pem" --handler forward --send-proxy 2 "unix:$T/front.sock"
    run curl -sS --max-time 20 --cacert "$T/cert.pem" "https://localhost:$PORT/" --resolve "localhost:$PORT:127.0.0.1"
    equal "$output" 'localhost 127.0.0.1'
}
