#!/usr/bin/env bats
# --warm: programs started ahead.
#
# shellcheck disable=SC2013,SC2016,SC2030,SC2031,SC2034,SC2153,SC2154 # dollar signs of programs; variables of lib.bash

load lib

children() {
    pgrep -P "$HARK_PID" | sort -n
}

has_children() { # COUNT
    [ "$(children | wc -l)" -eq "$1" ]
}

# serve_warm COUNT OPTION...: until so many wait. A child that has only just been forked is hark still.
serve_warm() {
    local count=$1
    shift
    serve -v --warm "$count" "$@"
    eventually has_children "$count"
}

DIALOGUE='read -r line; echo "$$ $line"; cat'

@test "warm: a connection gets a program that was there before it, and another one takes its place" {
    serve_warm 3 --handler exec sh -c "$DIALOGUE"
    local before after i pid
    for i in 1 2 3 4; do
        before=$(children)
        run client "$PORT" 'text:hello\nmore' end all
        match "$output" $'^[0-9]+ hello\nmore$'
        pid=${output%% *}
        grep -qx "$pid" <<<"$before" || fail "$pid was not among $(xargs <<<"$before")"
        wait_for_log "^hark: close id=$i .* reason=child in=10 out=[0-9]* .* status=0 "
        eventually has_children 3
        after=$(children)
        refute grep -qx "$pid" <<<"$after"
    done
}

@test "warm: while connections last there are N more" {
    serve_warm 2 --handler exec sh -c "$DIALOGUE"
    local i
    for i in 1 2 3; do
        spawn_client "peer$i" "$PORT" 'text:x\n' line hold:"$T/go" end all
        wait_for_line "peer$i" x
        eventually has_children $((i + 2))
    done
    touch "$T/go"
    for i in 1 2 3; do
        finish "peer$i"
    done
    eventually has_children 2
    equal "$(cat "$T"/peer? | cut -d ' ' -f 1 | sort -u | wc -l)" 3 "the number of programs that served"
}

@test "warm: the variables of the connection are absent, given ones present" {
    serve_warm 1 --setenv GIVEN=1 --handler exec sh -c 'read -r line; exec env'
    run client "$PORT" 'text:\n' all
    grep -qx GIVEN=1 <<<"$output"
    refute grep -qE '^(PROTO|TCP|REMOTE_|HARK_ID|UNIX)' <<<"$output"
}

# burst COUNT STEP...: so many connections are there at once when hark looks; output in $T/burst.N
burst() {
    local count=$1 i
    shift
    kill -STOP "$HARK_PID"
    eventually is_state "$HARK_PID" T
    for i in $(seq "$count"); do
        spawn_client "burst.$i" "$PORT" say:connected "$@"
        wait_for_line "burst.$i" connected
    done
    kill -CONT "$HARK_PID"
    for i in $(seq "$count"); do
        finish "burst.$i"
    done
}

@test "warm: when none is left, one is started as usual, with the variables" {
    serve_warm 2 --handler exec sh -c 'read -r line; echo "<$TCPREMOTEIP$HARK_ID>"'
    burst 6 'text:\n' line all
    local warm
    warm=$(cat "$T"/burst.[1-6] | grep -c '^<>$')
    [ "$warm" -ge 2 ] || fail "only $warm were warm"
    [ "$warm" -le 4 ] || fail "$warm of 6 were warm" # on a slow machine it is refilled in between
    equal "$(cat "$T"/burst.[1-6] | grep -c '^<127\.0\.0\.1[1-6]>$')" $((6 - warm)) "the number of cold ones"
    eventually has_children 2
    wait_for_log '^hark: close id=[1-6] .* reason=child .* status=0 ' 6
}

@test "warm: standard error carries the connection's id, and 0 before there is one" {
    serve_warm 1 --handler exec sh -c 'echo early >&2; read -r line; echo "$line" >&2; printf last >&2'
    wait_for_log '^hark: stderr id=0 text=early$'
    client "$PORT" 'text:one\n' count
    wait_for_log '^hark: close id=1 '
    eventually has_children 1
    wait_for_log '^hark: stderr id=0 text=early$' 2
    client "$PORT" 'text:two\n' count
    wait_for_log '^hark: close id=2 '
    equal "$(grep '^hark: stderr id=[12] ' "$LOG")" 'hark: stderr id=1 text=one
hark: stderr id=1 text=last
hark: stderr id=2 text=two
hark: stderr id=2 text=last'
}

@test "warm: ends and half-closes" {
    serve_warm 2 --max-buffer-size 64k --handler exec cat
    run client "$PORT" exchange:3000000
    equal "$output" "same 3000000 eof"
    run client "$PORT" end all
    equal "$output" ""
    run client --rcvbuf 4096 "$PORT" slow:16384:0.001 exchange:500000
    equal "$output" "same 500000 eof"
    wait_for_log ' reason=child in=3000000 out=3000000 .* status=0 '
    serve_warm 2 --handler exec sort
    run client "$PORT" 'text:b\na\n' end all
    equal "$output" $'a\nb'
    serve_warm 2 --handler exec sh -c 'read -r line; echo "$line"; exec >/dev/null; wc -c >&2'
    run client "$PORT" 'text:first\n' all say:eof send:200000 end
    equal "$output" $'first\neof'
    wait_for_log 'stderr id=1 text=200000$'
}

@test "warm: what a program says before its connection arrives, too" {
    serve_warm 1 --handler exec sh -c 'echo greeting; cat'
    local i
    for i in 1 2 3; do
        run client "$PORT" line text:x end all
        equal "$output" $'greeting\nx'
        eventually has_children 1
    done
}

@test "warm: unix sockets" {
    start_hark -v --warm 2 --unix "$T/s" --handler exec cat
    eventually has_children 2
    run client "unix:$T/s" exchange:300000
    equal "$output" "same 300000 eof"
    wait_for_log ' reason=child in=300000 out=300000 .* status=0 '
}

@test "warm: descriptors 0, 1 and 2, blocking, and nothing else; a group of its own" {
    without_valgrind "it opens its log anew in a child"
    serve_warm 3 --handler exec sh -c 'read -r line; ls /proc/$$/fd; sed -n "s/^flags:[[:space:]]*//p" /proc/$$/fdinfo/[012]; echo $$; cut -d " " -f 5 /proc/$$/stat'
    run client "$PORT" 'text:\n' all
    equal "${lines[*]:0:3}" "0 1 2" "what is open"
    local i
    for i in 3 4 5; do
        equal $((8#${lines[i]} & 8#4000)) 0 "O_NONBLOCK in ${lines[i]}"
    done
    equal "${lines[7]}" "${lines[6]}" "the process group"
}

@test "warm: those that wait are no connections: --max-connections is as without" {
    serve_warm 5 --max-connections 2 --handler exec sh -c "$DIALOGUE"
    spawn_client a "$PORT" 'text:x\n' line hold:"$T/go" end all
    spawn_client b "$PORT" 'text:x\n' line hold:"$T/go" end all
    wait_for_line a x
    wait_for_line b x
    run client --timeout 0.3 "$PORT" 'text:x\n' line
    match "$output" '^line: timeout'
    equal "$(grep -c '^hark: accept ' "$LOG")" 2 "the number of connections"
    touch "$T/go"
    finish a
    finish b
    run client "$PORT" 'text:x\n' line
    match "$output" ' x$'
}

@test "warm: programs that do not wait: one error line, no spin, and connections all the same" {
    serve -v --warm 3 --handler exec sh -c 'echo bye; echo >>"$0"' "$T/starts"
    wait_for_log '^hark: error: '
    local before
    before=$(cpu_ticks "$HARK_PID")
    sleep 1.5 # what is measured is the time in which little is to happen
    at_most $(($(cpu_ticks "$HARK_PID") - before)) $((10 * $(getconf CLK_TCK) / 100)) "ticks of CPU in 1.5 s"
    at_most "$(wc -l <"$T/starts")" 6 "starts"
    equal "$(grep -c '^hark: error: ' "$LOG")" 1 "the number of error lines"
    grep -qx 'hark: error: cannot keep "sh" warm: it ended without waiting for its input' "$LOG"
    run client "$PORT" all
    equal "$output" bye
    equal "$(zombies "$HARK_PID")" 0 zombies
    stop_hark
}


@test "warm: a program that is removed: those that wait serve, then one error line a connection, and it comes back" {
    without_valgrind "its vfork is a fork: the child cannot tell us"
    cp "$(command -v cat)" "$T/program"
    serve_warm 1 --handler exec "$T/program"
    mv "$T/program" "$T/away"
    run client "$PORT" exchange:1000
    equal "$output" "same 1000 eof"
    wait_for_log "^hark: error: cannot keep \"$T/program\" warm: No such file or directory\$"
    run client "$PORT" count
    match "$output" '^0 '
    wait_for_log "^hark: error: cannot run \"$T/program\": No such file or directory\$"
    equal "$(grep -c '^hark: error: ' "$LOG")" 2 "the number of error lines"
    mv "$T/away" "$T/program"
    run client "$PORT" exchange:1000
    equal "$output" "same 1000 eof"
    eventually has_children 1
    stop_hark
}

@test "warm: one that is killed while it waits is replaced" {
    serve_warm 2 --handler exec sh -c "$DIALOGUE"
    local victim
    victim=$(children | head -n 1)
    kill -KILL "$victim"
    eventually is_gone "$victim"
    eventually has_children 2
    run client "$PORT" 'text:x\n' end all
    match "$output" ' x$'
}

@test "warm: many connections leave no zombies, no descriptors and as many waiting as before" {
    serve_warm 4 --handler exec cat
    crowd "$PORT" serial 10
    wait_for_log '^hark: close ' 10
    eventually has_children 4
    local before
    before=$(descriptors "$HARK_PID")
    crowd "$PORT" serial 30
    crowd "$PORT" parallel 30 10000
    crowd "$PORT" reset 10
    wait_for_log '^hark: close ' 80
    eventually has_children 4
    eventually has_descriptors "$HARK_PID" "$before"
    equal "$(zombies "$HARK_PID")" 0 zombies
    equal "$(grep -c '^hark: close .* reason=child .* status=0 ' "$LOG")" 70 "those that ended in order"
}

# Some that would go at the end of their input, and some that would not.
ends_with() { # SIGNAL STATUS
    local program
    for program in cat 'trap "" TERM; sleep 1000'; do
        serve_warm 3 --handler exec sh -c "exec 3<&0; $program"
        local pids pid
        pids=$(children)
        stop_hark "$1" "$2"
        for pid in $pids; do
            eventually is_gone "$pid"
        done
        equal "$(grep -c '^hark: error: ' "$LOG" || true)" 0 "the number of error lines"
    done
    eventually none_marked cat
}

@test "warm: TERM, QUIT and INT leave none behind" {
    ends_with TERM 0
    ends_with QUIT 0
    ends_with INT 130
}

@test "warm: one that has left its process group goes, too" {
    serve_warm 1 --handler exec "$PYTHON" -SE -c 'import os, sys
os.setpgid(0, os.getpgid(os.getppid()))
open(sys.argv[1], "w").close()
sys.stdin.read()' "$T/left"
    eventually test -e "$T/left"
    stop_hark
}

@test "warm: TERM lets a connection end first" {
    serve_warm 2 --handler exec sh -c "$DIALOGUE"
    spawn_client peer "$PORT" 'text:x\n' line hold:"$T/go" text:more end all
    wait_for_line peer x
    kill -TERM "$HARK_PID"
    wait_for_log '^hark: stop '
    touch "$T/go"
    finish peer
    match "$(output_of peer)" $' x\nmore$'
    wait_for_exit
    equal "$STATUS" 0
    eventually none_marked sh
}

@test "warm: kill -9 of hark leaves none behind" {
    serve_warm 3 --handler exec cat
    local cat_pid=$HARK_PID
    serve_warm 3 --handler exec sleep 1000
    kill -KILL "$cat_pid" "$HARK_PID"
    eventually none_marked cat
    eventually none_marked sleep
}

@test "warm: --once" {
    serve_warm 2 --once --handler exec sh -c "$DIALOGUE"
    run client "$PORT" 'text:x\n' end all
    match "$output" ' x$'
    wait_for_exit
    equal "$STATUS" 0
    eventually none_marked sh
}

@test "warm: each process has its own" {
    serve -v --processes 2 --warm 2 --handler exec cat
    eventually has_children 2
    local worker
    for worker in $(children); do
        HARK_PID=$worker eventually has_children 2
    done
    crowd "$PORT" serial 10
    stop_hark
    eventually none_marked cat
}

@test "warm: contradictions and what is out of range are refused at start" {
    run_hark --port 0 --bind 127.0.0.1 --handler exec --warm 2 --exec-io socket cat
    equal "$status" 2
    match "$output" '^hark: error: options --warm and --exec-io socket contradict each other'
    run_hark --port 0 --bind 127.0.0.1 --handler exec --warm -1 cat
    equal "$status" 2
    run_hark --port 0 --bind 127.0.0.1 --handler echo --warm 1
    equal "$status" 2
    run_hark --check --port 0 --bind 127.0.0.1 --handler exec --warm 2 --exec-io pipe cat
    equal "$status" 0
    run_hark --check --port 0 --bind 127.0.0.1 --handler exec --warm 0 --exec-io socket cat
    equal "$status" 0
}
