#!/usr/bin/env bats
# forward to several targets: which one a connection goes to, and what happens when one is down.
#
# shellcheck disable=SC2034,SC2154 # WRAPPER is for lib.bash, status and output come from it

load lib

# Three targets, each of which says its letter: sets A, B, C to where they are, and PID_A, PID_B, PID_C.
three_targets() {
    local letter
    for letter in A B C; do
        serve_target --handler exec printf %s "$letter"
        declare -g "$letter=127.0.0.1:$TARGET_PORT" "PID_$letter=$HARK_PID"
    done
}

# The answers that so many clients get, one after the other.
answers() { # COUNT
    local i
    for ((i = 0; i < $1; i++)); do
        client "$PORT" all
    done
}

end_target() { # PID
    kill -KILL "$1"
    wait_for_exit "$1"
}

# A target that is back, where it was.
restart_target() { # ADDRESS LETTER
    start_hark --bind 127.0.0.1 --port "${1##*:}" --handler exec printf %s "$2"
}

# The front keeps its LOG, PORT and HARK_PID, whatever is started after it.
serve_front() {
    serve "$@"
    FRONT=$PORT FRONT_PID=$HARK_PID FRONT_LOG=$LOG
}

to_front() {
    PORT=$FRONT HARK_PID=$FRONT_PID LOG=$FRONT_LOG
}

count_log() { # REGEX
    grep -cE "$1" "$LOG" || true
}

answers_are() { # EXPECTED
    [ "$(answers "${#1}")" = "$1" ]
}

# ---- which one ----

@test "targets: each in turn" {
    three_targets
    serve --handler forward "$A" "$B" "$C"
    equal "$(answers 7)" ABCABCA
    # and so when it is said
    serve_front --balance round-robin --handler forward "$A" "$B" "$C"
    equal "$(answers 4)" ABCA
}

@test "targets: the first that can be reached" {
    three_targets
    serve_front --balance first --handler forward "$A" "$B"
    equal "$(answers 3)" AAA
    end_target "$PID_A"
    equal "$(answers 3)" BBB
}

@test "targets: the one with the fewest connections" {
    serve_target --handler shell 'echo A; exec cat'
    A=127.0.0.1:$TARGET_PORT
    serve_target --handler shell 'echo B; exec cat'
    serve -v --balance least --handler forward "$A" "127.0.0.1:$TARGET_PORT"
    spawn_client one "$PORT" line hold:"$T/end-one"
    wait_for_line one A
    spawn_client two "$PORT" line hold:"$T/end-two"
    wait_for_line two B
    touch "$T/end-two"
    wait_for_log '^hark: close id=2 '
    # one has A still
    local i
    for i in 3 4 5; do
        equal "$(client "$PORT" line end all)" B
        wait_for_log "^hark: close id=$i "
    done
    touch "$T/end-one"
    finish one
    wait_for_log '^hark: close id=1 '
    # none has any: they take turns
    equal "$(client "$PORT" line end all)" A
    wait_for_log '^hark: close id=6 '
    equal "$(client "$PORT" line end all)" B
}

@test "targets: an address stays with its target, and comes back to it" {
    need socat socat
    three_targets
    serve_front -vv --balance source --handler forward "$A" "$B" "$C"
    local i before after
    choices() {
        for i in $(seq 24); do
            timeout 20 socat -u "TCP:127.0.0.1:$FRONT,bind=127.0.1.$i" -
        done
    }
    before=$(choices)
    for i in A B C; do
        match "$before" "$i"
    done
    equal "$(choices)" "$before"
    end_target "$PID_B"
    after=$(choices)
    for ((i = 0; i < 24; i++)); do
        if [ "${before:i:1}" = B ]; then
            match "${after:i:1}" '[AC]'
        else
            equal "${after:i:1}" "${before:i:1}" "the target of client $i"
        fi
    done
    restart_target "$B" B
    to_front
    chosen_as_before() { [ "$(choices)" = "$before" ]; }
    eventually chosen_as_before
}

@test "targets: ports, names, unix sockets and abstract ones, mixed" {
    start_hark --unix "$T/s" --handler exec printf U
    start_hark --unix "@hark.$$.targets" --handler exec printf @
    serve_target --handler exec printf N
    serve --handler forward "unix:$T/s" "unix:@hark.$$.targets" "localhost:$TARGET_PORT"
    equal "$(answers 6)" U@NU@N
}

# ---- down and up ----

@test "targets: a client does not notice that it was passed on" {
    serve_target
    A=127.0.0.1:$TARGET_PORT
    serve_target --handler exec printf X
    end_target "$HARK_PID"
    serve -v --balance first --handler forward "127.0.0.1:$TARGET_PORT" "unix:$T/nothing" "$A"
    run client "$PORT" exchange:3000000
    equal "$output" "same 3000000 eof"
    wait_for_log '^hark: close id=1 .* reason=eof in=3000000 out=3000000 '
}

@test "targets: one that refuses is passed over, left alone, and used again when it is back" {
    three_targets
    end_target "$PID_A"
    serve_front -vv --handler forward "$A" "$B"
    equal "$(answers 5)" BBBBB
    wait_for_log "^hark: target name=$A state=down retry=1\.000 error=\"connect to $A: Connection refused\"\$"
    equal "$(count_log '^hark: error')" 0 "lines of errors"
    # a trial a while later, and the next one later still
    left_alone_longer() {
        answers 1
        has_line "$LOG" "^hark: target name=$A state=down retry=2\.000 "
    }
    eventually left_alone_longer
    restart_target "$A" A
    to_front
    is_used() { match "$(answers 2)" A; }
    eventually is_used
    wait_for_log "^hark: target name=$A state=up\$"
    equal "$(answers 4 | grep -o . | sort | tr -d '\n')" AABB
}

@test "targets: one that does not answer holds up only who comes first" {
    three_targets
    spawn_client silent --never-accept --backlog 0 listen
    wait_for_line silent '^port '
    local hole seconds
    hole=127.0.0.1:$(sed -n 's/^port //p' "$T/silent")
    serve -vv --balance first --connect-timeout 5s --handler forward "$hole" "$A"
    equal "$(answers 1)" A
    wait_for_log "^hark: target name=$hole state=down retry=1\.000 error=\"connect to $hole: timed out after 5 s\"\$"
    # trials go on all the time; no client waits for one
    seconds=$SECONDS
    while [ "$(count_log "target name=$hole state=down")" -lt 2 ]; do
        SECONDS=0
        equal "$(answers 1)" A
        at_most "$SECONDS" 4 "seconds that a client had to wait"
        ((seconds++ < 500)) || fail "no second trial"
    done
    # and one that is under way does not hold up the end
    SECONDS=0
    stop_hark
    at_most "$SECONDS" 4 "seconds that the end took"
}

@test "targets: one that is down does not hide another one's failure, and each is tried once" {
    three_targets
    end_target "$PID_A"
    end_target "$PID_B"
    serve -vv --handler forward "$A" "unix:$T/nothing" "$B"
    run client "$PORT" count
    equal "$output" "0 reset"
    wait_for_log "^hark: error: forward: no target could be reached, at last: connect to $B: Connection refused\$"
    wait_for_log '^hark: close id=1 .* reason=error '
    equal "$(count_log '^hark: target .* state=down')" 3
    equal "$(count_log '^hark: error')" 1
}

@test "targets: one that cannot show a certificate is passed over, and tried by a handshake" {
    serve_target --ssl-self-signed --ssl-save-cert "$T/A.pem" --handler exec printf A
    A=127.0.0.1:$TARGET_PORT
    serve_target --ssl-self-signed --ssl-save-cert "$T/B.pem" --handler exec printf B
    serve -vv --balance first --forward-ssl --forward-ssl-ca "$T/B.pem" --handler forward "$A" "127.0.0.1:$TARGET_PORT"
    equal "$(answers 3)" BBB
    wait_for_log "^hark: target name=$A state=down retry=1\.000 error=\"connect to 127\.0\.0\.1: TLS: "
    still_bad() {
        equal "$(answers 1)" B
        has_line "$LOG" "^hark: target name=$A state=down retry=2\.000 "
    }
    eventually still_bad
    equal "$(count_log '^hark: target .*state=up')" 0
}

@test "targets: when all are down, all are tried" {
    three_targets
    end_target "$PID_A"
    end_target "$PID_B"
    serve_front -vv --handler forward "$A" "$B"
    client "$PORT" count
    client "$PORT" count
    client "$PORT" count
    equal "$(count_log '^hark: target .* state=down')" 2
    restart_target "$B" B
    to_front
    # the very next client is served, whatever the delays
    equal "$(answers 1)" B
    wait_for_log "^hark: target name=$B state=up\$"
}

@test "targets: our own lack of descriptors is nobody's fault" {
    three_targets
    serve_front -vv --handler forward "$A" "$B"
    prlimit --pid "$HARK_PID" --nofile=40:40
    spawn_crowd many "$PORT" burst 60 1 "$T/go"
    wait_for_log '^hark: error: .*Too many open files'
    equal "$(count_log '^hark: target ')" 0
    touch "$T/go"
    answers_two() { match "$(answers 2)" '^(AB|BA)$'; }
    eventually answers_two
}

@test "targets: a name that comes to mean another address" {
    three_targets
    printf '127.0.0.1 moving.test\n' >"$T/hosts"
    permitted unshare -m mount --bind "$T/hosts" /etc/hosts
    start_hark --bind 127.0.0.2 --port "${A##*:}" --handler exec printf moved
    WRAPPER=(unshare -m sh -c "mount --bind '$T/hosts' /etc/hosts && exec \"\$@\"" sh)
    serve --handler forward "moving.test:${A##*:}"
    equal "$(answers 2)" AA
    printf '127.0.0.2 moving.test\n' >"$T/hosts"
    has_moved() { [ "$(answers 1)" = moved ]; }
    eventually has_moved
    # a name that is lost does not lose its address
    : >"$T/hosts"
    equal "$(answers 1)" moved
    local end=$((SECONDS + 2))
    while ((SECONDS < end)); do
        equal "$(answers 1)" moved
    done
}

@test "targets: nothing is left of connections and trials" {
    three_targets
    end_target "$PID_B"
    serve -v --handler forward "$A" "$B" "$C"
    equal "$(answers 2)" AC
    wait_for_log '^hark: close ' 2
    local before
    before=$(descriptors "$HARK_PID")
    run crowd "$PORT" gather 60 1
    equal "$output" "done 60"
    crowd "$PORT" reset 30
    wait_for_log '^hark: close ' 92
    eventually has_descriptors "$HARK_PID" "$before"
    stop_hark
}

# One nginx of several, in one process: all of them serve $T/www.
start_nginx() { # NAME PORT
    cat >"$T/$1.conf" <<-CONF
		daemon off; master_process off; pid $T/$1.pid; error_log $T/$1.log; user root;
		events { worker_connections 200; }
		http {
		    access_log $T/$1.access; client_body_temp_path $T/www; proxy_temp_path $T/www;
		    fastcgi_temp_path $T/www; uwsgi_temp_path $T/www; scgi_temp_path $T/www;
		    server { listen 127.0.0.1:$2; root $T/www; }
		}
	CONF
    spawn "$1" nginx -p "$T" -c "$T/$1.conf" -e "$T/$1.log"
    eventually client "$2" close
}

@test "targets: one of three is killed under load, and comes back: only what it was at work on fails" {
    need nginx nginx-light
    local name clients=8
    mkdir "$T/www"
    printf %s "the same page" >"$T/www/index.html"
    # free ports, which nginx cannot find by itself
    three_targets
    for name in A B C; do
        declare -n address=$name pid=PID_$name
        end_target "$pid"
        start_nginx "$name" "${address##*:}"
    done
    serve_front -vv --handler forward "$A" "$B" "$C"
    spawn_crowd load "$FRONT" load "$clients" 'GET / HTTP/1.0\r\n\r\n' 'the same page' "$T/killed" "$T/stop"
    eventually has_lines "$T/B.access" GET 50
    # shellcheck disable=SC2016
    pkill -KILL -P "${background[B]}"
    eventually refute client "${B##*:}" close
    touch "$T/killed"
    wait_for_log "^hark: target name=$B state=down "
    wait_for_log "^hark: target name=$B state=down retry=2\.000 "
    rm "$T/B.access"
    start_nginx B "${B##*:}"
    eventually has_lines "$T/B.access" GET 50
    touch "$T/stop"
    finish load
    match "$(output_of load)" '^well [0-9]{3,} failed [0-9]+ after 0$'
    at_most "$(sed 's/.*failed \([0-9]*\) .*/\1/' "$T/load")" "$clients" "failed requests"
    equal "$(count_log '^hark: error')" 0
    equal "$(count_log '^hark: target .*state=up')" 1
}

@test "targets: socat behind" {
    need socat socat
    local name
    for name in one two; do
        spawn "$name" socat -U "UNIX-LISTEN:$T/$name.sock,fork" SYSTEM:"printf $name"
        eventually test -S "$T/$name.sock"
    done
    serve --handler forward "unix:$T/one.sock" "unix:$T/two.sock"
    equal "$(answers 4)" onetwoonetwo
}

# ---- what is wrong is said at start ----

@test "targets: bad ones, and options that mean nothing" {
    local row
    while IFS='|' read -r options message; do
        # shellcheck disable=SC2086
        run_hark --port 0 $options
        equal "$status" 2 "the status of $options"
        equal "$output" "hark: error: $message"
    done <<-'ROWS'
		--handler forward 127.0.0.1:1 127.0.0.1:2 127.0.0.1:1|target "127.0.0.1:1" is given twice
		--handler forward 127.0.0.1:1 127.0.0.1|target "127.0.0.1": no port (write HOST:PORT, [IPV6]:PORT or unix:PATH)
		--balance least --handler forward 127.0.0.1:1|option --balance has no effect with one target
		--balance fair --handler forward a:1 b:1|option --balance: "fair" is not one of round-robin|least|source|first
		--balance first|option --balance is for --handler forward, not for echo
		--connect-timeout 5s|option --connect-timeout is for --handler forward, not for echo
		--connect-timeout soon --handler forward a:1|option --connect-timeout: "soon" is not a time, such as 500ms, 1.5s, 10s, 5m or 1h
	ROWS
    run_hark --check --port 0 --handler forward 127.0.0.1:1 no-such-host.invalid:1
    equal "$status" 2
    match "$output" 'no-such-host\.invalid'
}
