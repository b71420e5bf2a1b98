#!/usr/bin/env bats
# Signals: what each does, to whom, and with which exit status.
#
# shellcheck disable=SC2016,SC2030,SC2031,SC2034,SC2153,SC2154 # dollar signs of others; variables of lib.bash

load lib

# An echo connection that lives until $T/go: prints "held", and at the end "same N eof".
hold_one() { # NAME
    spawn_client "$1" "$PORT" echo:1000 say:held hold:"$T/go" echo:1000 end same
    wait_for_line "$1" held
}

# From now on fate.py runs hark; its pid is in $T/fate.
with_fate() { # [--terminal]
    WRAPPER=("$PYTHON" -SE "$TESTS/fate.py" "$@" "$T/fate")
}

real_pid() {
    sed -n 's/^pid //p' "$T/fate"
}

ended_with() { # "exited N" or "killed N"
    eventually has_line "$T/fate" '^(exited|killed) '
    equal "$(tail -n 1 "$T/fate")" "$1" "the end"
}

@test "signals: TERM stops accepting, lets connections end, and exits 0" {
    serve -v
    hold_one peer
    kill -TERM "$HARK_PID"
    wait_for_log '^hark: stop signal=TERM connections=1$'
    run client "$PORT" count
    equal "$output" refused
    touch "$T/go"
    finish peer
    has_line "$T/peer" '^same 2000 eof$'
    wait_for_exit
    equal "$STATUS" 0
    grep -qE ' reason=eof in=2000 out=2000 ' "$LOG"
}

@test "signals: TERM without connections ends at once" {
    serve
    stop_hark TERM 0
    serve --handler exec cat
    stop_hark TERM 0
    serve --handler stdio </dev/null
    stop_hark TERM 0
    serve --handler forward 127.0.0.1:1
    stop_hark TERM 0
    serve --processes 2
    stop_hark TERM 0
}

@test "signals: a second TERM, a second later, ends connections too" {
    serve -v
    hold_one peer
    kill -TERM "$HARK_PID"
    wait_for_log '^hark: stop '
    sleep 1.2 # what is tested is that a second has gone by
    kill -TERM "$HARK_PID"
    wait_for_exit
    equal "$STATUS" 0
    grep -qE ' reason=shutdown ' "$LOG"
    equal "$(grep -c '^hark: stop ' "$LOG")" 1
}

@test "signals: TERM counts once, however often it comes within a second and however many processes it reaches" {
    serve --processes 2
    hold_one peer
    local workers
    mapfile -t workers < <(pgrep -P "$HARK_PID")
    kill -TERM "$HARK_PID" "${workers[@]}"
    kill -TERM "$HARK_PID" "${workers[@]}"
    wait_for_log '^hark: stop '
    touch "$T/go"
    finish peer
    has_line "$T/peer" '^same 2000 eof$'
    wait_for_exit
    equal "$STATUS" 0
}

@test "signals: INT ends connections and children, and hark dies of it" {
    with_fate
    serve -v --handler exec sleep 1000
    spawn_client peer "$PORT" say:connected count
    wait_for_log '^hark: accept '
    kill -INT "$(real_pid)"
    ended_with "killed 2"
    finish peer
    eventually none_marked sleep
    grep -qE '^hark: stop signal=INT' "$LOG"
    grep -qE '^hark: close id=1 .* reason=shutdown ' "$LOG"
}

@test "signals: INT kills a child that ignores TERM, soon" {
    with_fate
    serve -v --handler exec sh -c 'trap "" TERM INT HUP; echo ready; while :; do sleep 1000; done'
    spawn_client peer "$PORT" line count
    wait_for_line peer ready
    kill -INT "$(real_pid)"
    ended_with "killed 2"
    eventually none_marked sh
    eventually none_marked sleep
}

@test "signals: INT with two processes, sent to one or, as ^C does, to all" {
    local i
    for i in one all; do
        with_fate
        serve --processes 2 --handler exec sleep 1000
        spawn_client peer "$PORT" say:connected count
        eventually has_marked sleep 1
        if [ $i = one ]; then
            kill -INT "$(real_pid)"
        else
            kill -INT "$(real_pid)" $(pgrep -P "$(real_pid)")
        fi
        ended_with "killed 2"
        eventually none_marked sleep
        eventually none_marked hark
        equal "$(grep -c '^hark: stop ' "$LOG")" 1 "the number of stop lines"
    done
}

has_marked() { # NAME COUNT
    [ "$(count_marked "$1")" -eq "$2" ]
}

@test "signals: a shell loop stops when hark gets INT" {
    without_valgrind "the process has another name"
    mkfifo "$T/fifo"
    spawn loop bash -c 'for i in 1 2 3; do echo "round $i"; "$HARK" -b 127.0.0.1 -p 0 --ready-fd 9 9>"$0"; done; echo "not stopped"' "$T/fifo"
    timeout 20 cat "$T/fifo" >/dev/null
    local loop hark
    loop=$(pgrep -P "${background[loop]}" -x bash)
    hark=$(pgrep -P "$loop" -x hark)
    kill -INT "$loop" "$hark" # as the terminal does
    wait "${background[loop]}" || true
    equal "$(output_of loop)" "round 1"
}

@test "signals: QUIT ends everything now, and exits 0" {
    with_fate
    serve -v
    hold_one peer
    kill -QUIT "$(real_pid)"
    ended_with "exited 0"
    grep -qE ' reason=shutdown ' "$LOG"
    touch "$T/go"
}

@test "signals: HUP and USR1 mean nothing yet, and like USR2 harm nothing" {
    serve
    hold_one peer
    kill -HUP "$HARK_PID"
    kill -USR1 "$HARK_PID"
    kill -USR2 "$HARK_PID"
    client "$PORT" echo:1000
    touch "$T/go"
    finish peer
    stop_hark
    serve --processes 2
    local workers
    mapfile -t workers < <(pgrep -P "$HARK_PID")
    kill -HUP "$HARK_PID" "${workers[@]}"
    kill -USR1 "$HARK_PID" "${workers[@]}"
    kill -USR2 "$HARK_PID" "${workers[@]}"
    crowd "$PORT" serial 10
    refute grep -q '^hark: restart' "$LOG"
    equal "$(grep -c '^hark: status ' "$LOG")" 2 "the number of status lines" # once a process, though it came twice
    stop_hark
}

@test "signals: when its terminal goes, hark ends as with TERM" {
    with_fate --terminal
    serve -v
    hold_one peer
    touch "$T/fate.hangup"
    wait_for_log '^hark: stop '
    run client "$PORT" count
    equal "$output" refused
    touch "$T/go"
    finish peer
    has_line "$T/peer" '^same 2000 eof$'
    ended_with "exited 0"
}

@test "signals: the same with two processes" {
    with_fate --terminal
    serve --processes 2
    hold_one peer
    touch "$T/fate.hangup"
    wait_for_log '^hark: stop '
    touch "$T/go"
    finish peer
    has_line "$T/peer" '^same 2000 eof$'
    ended_with "exited 0"
    eventually none_marked hark
}

@test "signals: a HUP while the terminal is still there means nothing" {
    with_fate --terminal
    serve
    kill -HUP "$(real_pid)"
    client "$PORT" echo:1000
    kill -TERM "$(real_pid)"
    ended_with "exited 0"
}

@test "signals: under nohup hark survives its terminal" {
    local processes
    for processes in 1 2; do
        rm -f "$T/fate.hangup"
        with_fate --terminal
        WRAPPER+=(sh -c 'trap "" HUP; exec "$@"' sh)
        serve --processes "$processes"
        hold_one "peer$processes"
        touch "$T/fate.hangup"
        # the terminal has gone when fate.py has closed it
        eventually has_no_terminal "$(real_pid)"
        client "$PORT" echo:1000
        touch "$T/go"
        finish "peer$processes"
        rm "$T/go"
        kill -TERM "$(real_pid)"
        ended_with "exited 0"
    done
}

has_no_terminal() { # PID: field 7 of stat is the terminal, 0 without
    [ "$(sed 's/.*) //' "/proc/$1/stat" | cut -d ' ' -f 5)" = 0 ]
}

@test "signals: SIGPIPE and signals that were ignored or blocked when hark was started do not matter" {
    WRAPPER=(bash -c 'trap "" TERM INT QUIT CHLD; exec "$@"' bash)
    serve --handler exec true
    crowd "$PORT" reset 5
    client "$PORT" count
    eventually no_children "$HARK_PID"
    stop_hark TERM 0
    WRAPPER=("$PYTHON" -SE -c 'import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))
os.execv(sys.argv[1], sys.argv[1:])')
    serve
    client "$PORT" echo:10
    stop_hark TERM 0
}

@test "signals: TERM during a stdio connection lets it end" {
    mkfifo "$T/fifo"
    exec 5<>"$T/fifo"
    serve --handler stdio <"$T/fifo" >"$T/out"
    spawn_client peer "$PORT" text:one say:sent hold:"$T/go" text:two end all
    wait_for_line peer sent
    eventually grep -q one "$T/out"
    kill -TERM "$HARK_PID"
    wait_for_log '^hark: stop '
    touch "$T/go"
    eventually grep -q onetwo "$T/out"
    echo answer >&5
    exec 5>&-
    finish peer
    equal "$(output_of peer)" $'sent\nanswer'
    wait_for_exit
    equal "$STATUS" 0
}
