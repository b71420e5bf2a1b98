#!/usr/bin/env bats
# forward: joins a connection with one to a target.
#
# shellcheck disable=SC2034 # WRAPPER is for lib.bash

load lib

@test "forward: to a port" {
    serve_target
    serve -v --handler forward "127.0.0.1:$TARGET_PORT"
    run client "$PORT" exchange:3000000
    equal "$output" "same 3000000 eof"
    wait_for_log '^hark: close id=1 peer=127\.0\.0\.1:[0-9]+ reason=eof in=3000000 out=3000000 '
    stop_hark
}

@test "forward: to an IPv6 address" {
    [ -e /proc/net/if_inet6 ] || skip "no IPv6 here"
    start_hark --bind ::1 --port 0
    serve --handler forward "[::1]:$PORT"
    run client "$PORT" exchange:1000
    equal "$output" "same 1000 eof"
}

@test "forward: to a unix socket, and to an abstract one" {
    start_hark --unix "$T/s" --unix "@hark.$$.forward"
    serve --handler forward "unix:$T/s"
    run client "$PORT" exchange:1000000
    equal "$output" "same 1000000 eof"
    serve --handler forward "unix:@hark.$$.forward"
    run client "$PORT" exchange:1000
    equal "$output" "same 1000 eof"
}

@test "forward: from a unix socket" {
    serve_target
    start_hark --unix "$T/s" --handler forward "127.0.0.1:$TARGET_PORT"
    run client "unix:$T/s" exchange:1000000
    equal "$output" "same 1000000 eof"
}

@test "forward: to a host name" {
    serve_target
    serve --handler forward "localhost:$TARGET_PORT"
    run client "$PORT" exchange:1000
    equal "$output" "same 1000 eof"
}

@test "forward: every address of a name is tried" {
    printf '127.0.0.3 several.test\n127.0.0.2 several.test\n127.0.0.1 several.test\n' >"$T/hosts"
    permitted unshare -m mount --bind "$T/hosts" /etc/hosts
    serve_target
    WRAPPER=(unshare -m sh -c "mount --bind '$T/hosts' /etc/hosts && exec \"\$@\"" sh)
    serve --handler forward "several.test:$TARGET_PORT"
    run client "$PORT" exchange:1000
    equal "$output" "same 1000 eof"
}

@test "forward: a target that refuses: the client is reset and the reason logged, each time" {
    serve_target
    stop_hark
    serve -v --handler forward "127.0.0.1:$TARGET_PORT"
    run client "$PORT" count
    equal "$output" "0 reset"
    wait_for_log "^hark: error: forward: connect to 127\.0\.0\.1:$TARGET_PORT: Connection refused\$"
    wait_for_log '^hark: close id=1 .* reason=error '
    client "$PORT" count
    wait_for_log '^hark: error: ' 2
    stop_hark
}

@test "forward: a target that does not exist, as a name and as a path" {
    serve -v --handler forward no-such-host.invalid:80
    run client "$PORT" count
    equal "$output" "0 reset"
    wait_for_log '^hark: error: forward: .*no-such-host\.invalid'
    serve -v --handler forward "unix:$T/nothing"
    run client "$PORT" count
    equal "$output" "0 reset"
    wait_for_log "^hark: error: forward: connect to unix:$T/nothing: No such file or directory\$"
}

@test "forward: other clients do not wait for a target that does not answer" {
    spawn_client silent --never-accept --backlog 0 listen
    wait_for_line silent '^port '
    serve -v --handler forward "127.0.0.1:$(sed -n 's/^port //p' "$T/silent")"
    spawn_client first "$PORT" say:connected hold:"$T/go" reset
    wait_for_line first connected
    wait_for_log '^hark: accept ' 1
    spawn_client second "$PORT" say:connected hold:"$T/go"
    wait_for_log '^hark: accept ' 2
    # who gives up meanwhile is let go at once
    touch "$T/go"
    wait_for_log '^hark: close id=1 .* reason=reset '
    stop_hark QUIT
}

@test "forward: what the client sends before the target is there arrives" {
    serve_target
    serve --handler forward "127.0.0.1:$TARGET_PORT"
    kill -STOP "$HARK_PID"
    spawn_client early "$PORT" send:50000 end say:sent same
    wait_for_line early sent
    kill -CONT "$HARK_PID"
    finish early
    has_line "$T/early" '^same 50000 eof$'
}

@test "forward: curl and nginx" {
    need nginx nginx-light
    need curl curl
    mkdir "$T/www" "$T/logs"
    head -c 3000000 /dev/urandom >"$T/www/file"
    cat >"$T/nginx.conf" <<-CONF
		daemon off; master_process off; pid $T/nginx.pid; error_log $T/nginx.log; user root;
		events { worker_connections 200; }
		http {
		    access_log off;
		    client_body_temp_path $T/logs; proxy_temp_path $T/logs; fastcgi_temp_path $T/logs; uwsgi_temp_path $T/logs; scgi_temp_path $T/logs;
		    server { listen unix:$T/nginx.sock; root $T/www; }
		}
	CONF
    spawn nginx nginx -p "$T" -c "$T/nginx.conf" -e "$T/nginx.log"
    eventually test -S "$T/nginx.sock"
    serve --handler forward "unix:$T/nginx.sock"
    curl -sS --fail --max-time 30 "http://127.0.0.1:$PORT/file" | cmp - "$T/www/file"
    # a browser's worth: twenty at a time, kept alive
    run curl -sS --fail --max-time 50 -Z --parallel-max 20 -o "$T/got#1" "http://127.0.0.1:$PORT/file?[1-40]"
    equal "$status" 0 "curl's status"
    local i
    for i in $(seq 40); do
        cmp "$T/got$i" "$T/www/file"
    done
}

@test "forward: many at once, and nothing is left of them" {
    serve_target
    serve -v --handler forward "127.0.0.1:$TARGET_PORT"
    client "$PORT" exchange:100
    wait_for_log '^hark: close ' 1
    local before
    before=$(descriptors "$HARK_PID")
    run crowd "$PORT" parallel 50 100000
    equal "$output" "done 50"
    crowd "$PORT" reset 50
    wait_for_log '^hark: close ' 101
    eventually has_descriptors "$HARK_PID" "$before"
}
