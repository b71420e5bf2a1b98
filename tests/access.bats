#!/usr/bin/env bats
# --allow and --deny: who is let in, who is not, and files that are read again.
#
# Clients come from 127.0.0.1, 127.0.0.2 and so on: all of 127.0.0.0/8 is this machine.

load lib

# admitted SOURCE [PORT], refused SOURCE [PORT]
admitted() {
    client --source "$1" "${2:-$PORT}" exchange:1000
}

refused() {
    local said
    said=$(client --source "$1" "${2:-$PORT}" count)
    match "$said" '^0 (eof|reset)$'
}

# by_all WHAT SOURCE: often enough for every process
by_all() {
    for _ in 1 2 3 4 5 6; do
        "$@" || return
    done
}

# bad REGEX ARGUMENT...
bad() {
    local regex=$1
    shift
    run_hark --port 0 --bind 127.0.0.1 "$@"
    equal "$status" 2 "the exit status of: $*" &&
        match "$output" "^hark: error: .*$regex" &&
        equal "$(wc -l <"$T/err")" 1 "the number of lines"
}

@test "access: with --allow everybody else is refused" {
    serve -v --allow 127.0.0.2 --allow 127.0.1.0/24
    admitted 127.0.0.2
    admitted 127.0.1.7
    refused 127.0.0.1
    refused 127.0.0.3
    wait_for_log '^hark: reject peer=127\.0\.0\.3:[0-9]+ reason=denied$'
    equal "$(grep -c '^hark: accept ' "$LOG")" 2 "the number of accept lines"
    stop_hark
}

@test "access: --deny alone refuses some, and wins over --allow" {
    serve --deny 127.0.0.2
    admitted 127.0.0.1
    refused 127.0.0.2
    stop_hark
    refute grep -q reject "$LOG"
    serve --allow 127.0.0.0/8 --deny 127.0.0.2 --deny 127.0.3.0/24
    admitted 127.0.0.1
    refused 127.0.0.2
    refused 127.0.3.1
    stop_hark
}

@test "access: IPv6, and IPv4-mapped rules for IPv4 clients" {
    start_hark --bind ::1 --bind 127.0.0.1 --port 0 --allow ::1 --allow ::ffff:127.0.0.2
    client "[::1]:$PORT" exchange:1000
    admitted 127.0.0.2
    refused 127.0.0.1
    stop_hark
    start_hark --bind ::1 --bind 127.0.0.1 --port 0 --deny ::/0
    equal "$(client "[::1]:$PORT" count | sed 's/reset/eof/')" "0 eof"
    admitted 127.0.0.1
    stop_hark
}

@test "access: unix sockets have their mode instead" {
    start_hark --unix "$T/s" --bind 127.0.0.1 --port 0 --allow 10.0.0.0/8
    client "unix:$T/s" exchange:1000
    refused 127.0.0.1
    stop_hark
}

@test "access: who is refused starts no program, and takes no --once" {
    serve -v --once --allow 127.0.0.2 --handler exec sh -c 'echo started >&2; cat'
    refused 127.0.0.1
    refused 127.0.0.1
    refute grep -q started "$LOG"
    admitted 127.0.0.2
    wait_for_exit
    equal "$STATUS" 0 "the exit status"
    has_line "$LOG" '^hark: accept id=1 '
}

@test "access: who is refused gets no handshake" {
    serve -v --ssl-self-signed --deny 127.0.0.2
    refute client --tls --source 127.0.0.2 "$PORT" exchange:1000
    wait_for_log '^hark: reject peer=127\.0\.0\.2:[0-9]+ reason=denied$'
    client --tls --source 127.0.0.3 "$PORT" exchange:1000
    equal "$(grep -c '^hark: reject ' "$LOG")" 1 "lines of rejects"
    kill -USR2 "$HARK_PID"
    wait_for_log '^hark: status .* accepts=1 rejects=1 '
}

@test "access: a process that is started anew has the rules of the last reload" {
    echo 127.0.0.2 >"$T/rules"
    serve --processes 2 --deny "@$T/rules"
    echo 127.0.0.3 >"$T/rules"
    kill -HUP "$HARK_PID"
    wait_for_log '^hark: reload deny=1$'
    echo 127.0.0.1 >"$T/rules" # nobody has said that this is to hold
    pkill -KILL -P "$HARK_PID"
    wait_for_log '^hark: restart ' 2
    eventually by_all admitted 127.0.0.2
    by_all refused 127.0.0.3
    by_all admitted 127.0.0.1
    stop_hark
}

@test "access: refused clients leave no descriptor behind" {
    serve -v --deny 127.0.0.2
    admitted 127.0.0.1
    wait_for_log '^hark: close '
    local before
    before=$(descriptors "$HARK_PID")
    for _ in 1 2 3 4 5; do
        refused 127.0.0.2
    done
    has_descriptors "$HARK_PID" "$before"
    admitted 127.0.0.1
}

@test "access: files, read again on HUP; who is connected stays" {
    printf '# these\n127.0.0.2 # and no others\n' >"$T/rules"
    serve --allow "@$T/rules" --allow 127.0.0.3
    spawn_client stays --source 127.0.0.2 "$PORT" echo:10 say:served hold:"$T/go" echo:10 say:well
    wait_for_line stays served
    refused 127.0.0.1
    printf '127.0.0.0/30\n127.0.0.1\n' >"$T/rules"
    refused 127.0.0.1
    kill -HUP "$HARK_PID"
    wait_for_log '^hark: reload allow=3$'
    admitted 127.0.0.1
    : >"$T/rules"
    kill -HUP "$HARK_PID"
    wait_for_log '^hark: reload allow=1$'
    refused 127.0.0.1
    refused 127.0.0.2
    admitted 127.0.0.3
    touch "$T/go"
    finish stays
    has_line "$T/stays" well
    stop_hark
}

@test "access: a reload is all or nothing" {
    echo 127.0.0.0/8 >"$T/allow"
    echo 127.0.0.2 >"$T/deny"
    serve --allow "@$T/allow" --deny "@$T/deny"
    echo 127.0.0.1 >"$T/allow"
    printf '\n127.0.0.3/8\n' >"$T/deny"
    kill -HUP "$HARK_PID"
    wait_for_log "^hark: error: reload: option --deny: $T/deny:2: \"127\.0\.0\.3/8\" .*127\.0\.0\.0/8 for the network; everything stays as it was$"
    admitted 127.0.0.1
    admitted 127.0.0.3
    refused 127.0.0.2
    rm "$T/deny"
    kill -HUP "$HARK_PID"
    wait_for_log "^hark: error: reload: option --deny: cannot read \"$T/deny\": No such file"
    admitted 127.0.0.3
    refused 127.0.0.2
    echo 127.0.0.4 >"$T/deny"
    kill -HUP "$HARK_PID"
    wait_for_log '^hark: reload allow=1 deny=1$'
    admitted 127.0.0.1
    refused 127.0.0.2
    stop_hark
}

@test "access: with several processes each one reads again" {
    echo 127.0.0.2 >"$T/rules"
    serve --processes 2 --deny "@$T/rules"
    refused 127.0.0.2
    echo 127.0.0.3 >"$T/rules"
    kill -HUP "$HARK_PID"
    wait_for_log '^hark: reload deny=1$'
    eventually by_all admitted 127.0.0.2
    eventually by_all refused 127.0.0.3
    equal "$(grep -c reload "$LOG")" 1 "the number of reload lines"
    # a mistake is found once, and none of them is told
    echo 127.0.0.300 >"$T/rules"
    kill -HUP "$HARK_PID"
    wait_for_log '^hark: error: reload: '
    by_all refused 127.0.0.3
    stop_hark
    equal "$(grep -c '^hark: error' "$LOG")" 1 "the number of errors"
}

@test "access: a fifo in place of the file does not stop the server" {
    echo 127.0.0.2 >"$T/rules"
    serve --deny "@$T/rules"
    rm "$T/rules"
    mkfifo "$T/rules"
    kill -HUP "$HARK_PID"
    wait_for_log '^hark: error: reload: .*is not a regular file'
    admitted 127.0.0.1
    refused 127.0.0.2
    stop_hark
}

@test "access: what is no rule, and bad files, end hark before anything is bound" {
    bad 'option --allow: "10\.0\.0" is not an IP address or a network, such as ' --allow 10.0.0
    bad 'option --deny: "localhost" is not an IP address' --deny localhost
    bad 'option --allow: "10\.0\.0\.0/08": .* without leading zeros, which elsewhere mean octal$' --allow 10.0.0.0/08
    bad 'option --deny: "010\.0\.0\.1" is not an IP address' --deny 010.0.0.1
    bad 'option --allow: "10\.0\.0\.0/33": .* 0 to 32$' --allow 10.0.0.0/33
    bad 'option --allow: "10\.0\.0\.1/8" .*write 10\.0\.0\.0/8' --allow 10.0.0.1/8
    bad 'option --allow: "" is not' --allow ''
    bad 'option --allow: "@" is not' --allow @
    bad "option --deny: cannot read \"$T/none\": No such file or directory\$" --deny "@$T/none"
    bad "option --deny: cannot read \"$T\": it is not a regular file\$" --deny "@$T"
    printf '10.0.0.1\n\n10.0.0.2 10.0.0.3\n' >"$T/rules"
    bad "option --allow: $T/rules:3: \"10\.0\.0\.2 10\.0\.0\.3\" is not" --allow "@$T/rules"
    bad "option --allow: $T/rules:3: " --allow "@$T/rules" --check
    bad 'option --proxy-protocol: "x" is not' --proxy-protocol x
    bad 'option --allow needs a value' --allow
    run_hark --unix "$T/s" --allow 127.0.0.1
    equal "$status" 2
    match "$output" 'option --allow has no effect without --port'
    refute test -e "$T/s"
}

@test "access: --allow says that exec is meant to be open" {
    start_hark --port 0 --handler exec cat
    has_line "$LOG" '^hark: warning: everyone .*--allow CIDR'
    stop_hark
    start_hark --port 0 --allow 127.0.0.0/8 --handler exec cat
    refute grep -q warning "$LOG"
    stop_hark
}

@test "access: ten thousand rules" {
    seq 10000 | awk '{ print "10." int($1 / 256) "." $1 % 256 ".0/25" }' >"$T/rules"
    echo 127.0.0.2 >>"$T/rules"
    serve --deny "@$T/rules"
    admitted 127.0.0.1
    refused 127.0.0.2
    kill -HUP "$HARK_PID"
    wait_for_log '^hark: reload deny=10001$'
    stop_hark
}
