#!/usr/bin/env bats
# Many at once, and what it costs.
#
# shellcheck disable=SC2016,SC2030,SC2031,SC2034,SC2153,SC2154 # dollar signs of others; variables of lib.bash

load ../lib

@test "load: 200 parallel clients of a shell script" {
    printf '#!/bin/sh\nread -r name\necho "hello $name"\n' >"$T/script"
    chmod +x "$T/script"
    serve -v --max-connections 200 --handler exec "$T/script"
    local i
    for i in 1 2 3; do
        run crowd "$PORT" ask 200
        equal "$output" "done 200"
    done
    wait_for_log '^hark: close .* status=0( |$)' 600
    refute grep -qE 'signal=|status=[1-9]' "$LOG"
    stop_hark
    eventually none_marked script
}

@test "load: 200 at the default limit of 100" {
    serve --handler exec sh -c 'read -r name; echo "hello $name"'
    run crowd "$PORT" ask 200
    equal "$output" "done 200"
}

@test "load: two processes under load while one is killed again and again" {
    serve --processes 2 --reuse-port
    spawn load bash -c 'while [ ! -e "$1/go" ]; do "$2" -SE "$3/crowd.py" "$4" parallel 20 20000 >/dev/null 2>&1 && echo ok; done' \
        load "$T" "$PYTHON" "$TESTS" "$PORT"
    local i victim
    for i in $(seq 5); do
        victim=$(pgrep -P "$HARK_PID" | sort -n | head -n 1)
        kill -KILL "$victim"
        wait_for_log '^hark: restart ' "$i"
        eventually is_gone "$victim"
        eventually has_two
    done
    touch "$T/go"
    finish load
    run crowd "$PORT" parallel 100 50000
    equal "$output" "done 100"
    stop_hark
    eventually none_marked hark
}

has_two() {
    [ "$(pgrep -P "$HARK_PID" | wc -l)" -eq 2 ]
}

# cpu_nanoseconds PID: its own time, more exact than ticks.
cpu_nanoseconds() {
    cut -d ' ' -f 1 "/proc/$1/schedstat"
}

# cost_of_exec N: nanoseconds of hark's own CPU for N connections.
cost_of_exec() {
    local before after
    before=$(cpu_nanoseconds "$HARK_PID")
    crowd "$PORT" serial "$1" >/dev/null
    after=$(cpu_nanoseconds "$HARK_PID")
    echo $((after - before))
}

median() {
    sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

@test "load: exec costs the same with 2000 connections held" {
    without_sanitizers
    [ "$(ulimit -Hn)" -ge 8000 ] || skip "too few descriptors: $(ulimit -Hn)"
    [ -r "/proc/$$/schedstat" ] || skip "no /proc/PID/schedstat"
    # Those held are served by a shell that waits for its input: nothing runs while the others are measured. Two harks side by side,
    # measured in turn, so that whatever else the machine does strikes both.
    serve --max-connections 0 --handler exec cat
    local idle_pid=$HARK_PID idle_port=$PORT
    serve --max-connections 0 --handler exec cat
    local busy_pid=$HARK_PID busy_port=$PORT i
    spawn_crowd crowd "$busy_port" hold 2000 1 "$T/go"
    DEADLINE=120 wait_for_line crowd '^held 2000$'
    for i in $(seq 15); do
        HARK_PID=$idle_pid PORT=$idle_port
        cost_of_exec 20 >>"$T/idle"
        HARK_PID=$busy_pid PORT=$busy_port
        cost_of_exec 20 >>"$T/busy"
    done
    local idle busy
    idle=$(median <"$T/idle")
    busy=$(median <"$T/busy")
    echo "CPU of 20 connections: $((idle / 1000)) us with none held, $((busy / 1000)) us with 2000"
    at_most $((busy * 100 / idle)) 130 "percent"
    touch "$T/go"
}

@test "load: curl, fifty at a time, through forward to nginx" {
    need nginx nginx-light
    need curl curl
    mkdir "$T/www" "$T/logs"
    head -c 20000 /dev/urandom >"$T/www/file"
    cat >"$T/nginx.conf" <<-CONF
		daemon off; master_process off; pid $T/nginx.pid; error_log $T/nginx.log; user root;
		events { worker_connections 1000; }
		http {
		    access_log off;
		    client_body_temp_path $T/logs; proxy_temp_path $T/logs; fastcgi_temp_path $T/logs; uwsgi_temp_path $T/logs; scgi_temp_path $T/logs;
		    server { listen unix:$T/nginx.sock; root $T/www; }
		}
	CONF
    spawn nginx nginx -p "$T" -c "$T/nginx.conf" -e "$T/nginx.log"
    eventually test -S "$T/nginx.sock"
    serve --handler forward "unix:$T/nginx.sock"
    run curl -sS --fail --max-time 100 -Z --parallel-max 50 -o "$T/got#1" "http://127.0.0.1:$PORT/file?[1-2000]"
    equal "$status" 0 "curl's status"
    local i
    for i in $(seq 2000); do
        cmp "$T/got$i" "$T/www/file"
    done
}
