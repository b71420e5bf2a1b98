#!/usr/bin/env bats
# exec: how it ends: --kill-after, signals, what the close line says, standard error and its last lines.
#
# shellcheck disable=SC2013,SC2016,SC2030,SC2031,SC2034,SC2153,SC2154 # dollar signs of programs; variables of lib.bash

load lib

# close_line ID: the line, once it is there.
close_line() {
    wait_for_log "^hark: close id=$1 "
    grep "^hark: close id=$1 " "$LOG"
}

value() { # LINE KEY
    sed -n "s/.* $2=\([^ ]*\).*/\1/p" <<<"$1"
}

# between NUMBER LOW HIGH WHAT: with fractions
between() {
    awk -v x="$1" -v low="$2" -v high="$3" 'BEGIN { exit !(x != "" && x + 0 >= low && x + 0 <= high) }' ||
        fail "$4 is \"$1\" and not between $2 and $3"
}

# ---- --kill-after ----

gets_term() {
    # the leader, a child of it, and a grandchild
    serve -v --exec-io "$IO" --kill-after 300ms --handler exec sh -c '(sleep 1000 & sleep 1000 & wait) & echo ready; wait'
    client "$PORT" line reset
    local line
    line=$(close_line 1)
    match "$line" ' reason=reset .* signal=15 '
    between "$(value "$line" seconds)" 0.3 5 "the time to TERM"
    eventually none_marked sleep
    eventually none_marked sh
}

@test "exec end: --kill-after: TERM goes to the whole process group" {
    in_both gets_term
}

gets_kill() {
    # "ignored" is inherited: none of them cares for TERM
    serve -v --exec-io "$IO" --kill-after 300ms --handler exec sh -c 'trap "" TERM; sleep 1000 & (sleep 1000 & wait) & echo ready; wait'
    client "$PORT" line reset
    local line
    line=$(close_line 1)
    match "$line" ' reason=reset .* signal=9 '
    between "$(value "$line" seconds)" 0.6 4 "the time to KILL"
    eventually none_marked sleep
    eventually none_marked sh
    eventually no_children "$HARK_PID"
}

@test "exec end: --kill-after: those that ignore TERM get KILL, the whole group" {
    in_both gets_kill
}

reacts_to_term() {
    serve -v --exec-io "$IO" --kill-after 300ms --handler exec sh -c 'trap "echo cleaned up >&2; exit 7" TERM; echo ready; while :; do sleep 0.05; done'
    client "$PORT" line reset
    match "$(close_line 1)" ' reason=reset .* status=7 '
    grep -qx 'hark: stderr id=1 text="cleaned up"' "$LOG"
}

@test "exec end: --kill-after: a program may clean up at TERM" {
    in_both reacts_to_term
}

is_left_alone() {
    mkdir "$T/$IO"
    serve -v --exec-io "$IO" --kill-after 0 --handler exec sh -c 'trap "echo >\"\$0/term\"" TERM; echo ready; cat >/dev/null 2>&1
        n=0; until [ -e "$0/go" ] || [ $((n += 1)) -gt 2000 ]; do sleep 0.01; done; echo "still there" >&2; exit 5' "$T/$IO"
    client "$PORT" line reset
    sleep 0.3 # what is tested is that nothing happens
    refute test -e "$T/$IO/term"
    run client "$PORT" line reset
    equal "$output" ready
    touch "$T/$IO/go"
    wait_for_log '^hark: stderr id=[12] text="still there"$' 2
    match "$(close_line 1)" ' reason=reset .* status=5 '
}

@test "exec end: --kill-after 0: it is left alone" {
    in_both is_left_alone
}

@test "exec end: --kill-after 0: QUIT ends it all the same" {
    serve -v --kill-after 0 --handler exec sh -c 'trap "" TERM; echo ready; sleep 1000; sleep 1000'
    client "$PORT" line reset
    spawn_client peer "$PORT" line count
    wait_for_line peer ready
    stop_hark QUIT
    eventually none_marked sleep
    finish peer
    match "$(close_line 1)" ' reason=reset .* signal=9 '
    match "$(close_line 2)" ' reason=shutdown .* signal=9 '
}

# ---- signals to hark ----

ends_now() { # SIGNAL STATUS
    serve -v --kill-after 1m --exec-io "$IO" --handler exec sh -c 'echo ready; sleep 1000 & wait'
    spawn_client "peer.$IO.$1" "$PORT" line count
    wait_for_line "peer.$IO.$1" ready
    local before=$SECONDS
    stop_hark "$1" "$2"
    at_most $((SECONDS - before)) 30 "seconds"
    finish "peer.$IO.$1"
    match "$(tail -n 1 "$T/peer.$IO.$1")" '^0 '
    match "$(close_line 1)" ' reason=shutdown .* signal=15 '
    eventually none_marked sleep
    eventually none_marked sh
}

@test "exec end: INT and QUIT end programs and their groups now" {
    in_both ends_now QUIT 0
    in_both ends_now INT 130
}

ends_stubborn_now() {
    serve -v --exec-io "$IO" --handler exec sh -c 'trap "" TERM; sleep 1000 & echo ready; wait; sleep 1000'
    spawn_client "peer.$IO" "$PORT" line count
    wait_for_line "peer.$IO" ready
    stop_hark QUIT
    local line
    line=$(close_line 1)
    match "$line" ' reason=shutdown .* signal=9 '
    between "$(value "$line" seconds)" 1 4 "the time to KILL"
    eventually none_marked sleep
    # nobody may take what was cut off for all there was
    finish "peer.$IO"
    equal "$(output_of "peer.$IO")" $'ready\n0 reset'
}

@test "exec end: those that ignore TERM get KILL a second after QUIT" {
    in_both ends_stubborn_now
}

may_finish() {
    serve -v --exec-io "$IO" --kill-after 50ms --handler exec sh -c 'echo ready; read -r line; echo "still $line"; wc -c'
    spawn_client "peer.$IO" "$PORT" line hold:"$T/go.$IO" 'text:there\n' line send:100000 end all
    wait_for_line "peer.$IO" ready
    kill -TERM "$HARK_PID"
    wait_for_log '^hark: stop signal=TERM connections=1$'
    touch "$T/go.$IO"
    finish "peer.$IO"
    equal "$(output_of "peer.$IO")" $'ready\nstill there\n100000'
    wait_for_exit
    equal "$STATUS" 0
    match "$(close_line 1)" ' reason=child .* status=0 '
}

@test "exec end: TERM lets programs finish" {
    in_both may_finish
}

# ---- the close line ----

# One connection; its close line has to have REGEX: said REGEX PROGRAM STEP...
said() {
    local regex=$1 program=$2
    shift 2
    serve -v --exec-io "$IO" --handler exec sh -c "$program"
    run client "$PORT" "$@"
    equal "$status" 0 "the client's status"
    match "$(close_line 1)" "$regex"
    stop_hark
}

@test "exec end: the close line's bytes: what came in and went out, whoever ends first" {
    in_both said ' reason=child in=0 out=0 ' 'exit 0' count
    in_both said ' reason=child in=0 out=0 ' 'cat' end count
    in_both said ' reason=child in=5 out=3 ' 'cat >/dev/null; printf abc' text:12345 end count
    in_both said ' reason=child in=5 out=3 ' 'head -c 5 >/dev/null; printf abc' text:12345 count
    in_both said ' reason=child in=3000000 out=3000000 ' 'cat' exchange:3000000
}

@test "exec end: the close line's bytes: input that the program did not read counts as well" {
    in_both said ' reason=child in=5000 out=3 ' 'head -c 5 >/dev/null; printf abc; cat >/dev/null' send:5000 end count
    in_both said ' reason=child in=5000 out=3 ' 'read -r line </dev/null; printf abc' send:5000 end count
}

out_is_exact() {
    serve -v --exec-io "$IO" --handler exec head -c 1000000 /dev/zero
    local i
    for i in 1 2 3; do
        run client --rcvbuf 4096 "$PORT" slow:65536:0.001 count
        equal "$output" "1000000 eof"
    done
    wait_for_log '^hark: close ' 3
    equal "$(grep -c ' reason=child in=0 out=1000000 ' "$LOG")" 3 "the right ones of $(grep -o ' out=[0-9]*' "$LOG" | xargs)"
}

@test "exec end: the close line's bytes: what a slow client has not taken yet when the program ends" {
    in_both out_is_exact
}

resets_in_the_middle() {
    serve -v --exec-io "$IO" --kill-after 50ms --handler exec sh -c 'head -c 5; sleep 1000'
    run client "$PORT" text:12345 recv:0 'say:sent' reset
    wait_for_log '^hark: close id=1 '
    client --seed 1 "$PORT" send:5 recv:5 reset
    match "$(close_line 2)" ' reason=reset in=5 out=5 .* signal=(15|9) '
}

resets_after_its_end() { # PROGRAM
    serve -v --exec-io "$IO" --kill-after 50ms --handler exec sh -c "$1"
    client "$PORT" text:12345 end line reset
    match "$(close_line 1)" ' reason=reset in=5 out=[0-9]+ .* signal=(15|9) '
    stop_hark
}

@test "exec end: the close line's bytes: after a reset that followed the client's end, which is no byte" {
    # the program has read all; it writes, and so takes the error away; it has read nothing
    in_both resets_after_its_end 'cat >/dev/null; echo ready; sleep 1000'
    in_both resets_after_its_end 'cat >/dev/null; echo ready; trap "" PIPE; while echo x; do sleep 0.01; done 2>/dev/null; sleep 1000'
    in_both resets_after_its_end 'echo ready; sleep 1000'
}

ended_both_ways='import socket, time
s = socket.socket(fileno=0)
while s.recv(10): pass
s.sendall(b"ready\n")
s.shutdown(socket.SHUT_WR)
time.sleep(1000)'

@test "exec end: the close line's bytes: ended by us, after the client and the program have ended both ways" {
    serve -v --exec-io socket --handler exec python3 -SEc "$ended_both_ways"
    run client "$PORT" text:12345 end count
    equal "$output" "6 eof"
    stop_hark QUIT
    match "$(close_line 1)" ' reason=shutdown in=5 out=6 '
}

stopped_after_the_end() {
    serve -v --exec-io "$IO" --handler exec sh -c 'cat >/dev/null; echo ready; sleep 1000'
    spawn_client ended "$PORT" text:12345 end line count
    wait_for_line ended ready
    stop_hark QUIT
    match "$(close_line 1)" ' reason=shutdown in=5 out=6 '
}

@test "exec end: the close line's bytes: ended by us, after the client's end" {
    in_both stopped_after_the_end
}

@test "exec end: the close line's bytes: after a reset" {
    in_both resets_in_the_middle
}

@test "exec end: the close line's status and signal" {
    in_both said ' status=0 ' 'exit 0' count
    in_both said ' status=255 ' 'exit 255' count
    in_both said ' signal=9 ' 'kill -KILL $$' count
    in_both said ' signal=2 ' 'kill -INT $$' count
}

costs() {
    serve -v --exec-io "$IO" --handler exec sh -c 'read -r what; case $what in
        time) sleep 0.3 ;;
        work) i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done ;;
        grow) dd if=/dev/zero of=/dev/null bs=60M count=1 2>/dev/null ;;
        esac'
    client "$PORT" 'text:time\n' count
    client "$PORT" 'text:work\n' count
    client "$PORT" 'text:grow\n' count
    local time work grow
    time=$(close_line 1) work=$(close_line 2) grow=$(close_line 3)
    between "$(value "$time" seconds)" 0.3 3 "the time of one that sleeps"
    between "$(value "$time" cpu)" 0 0.1 "the CPU time of one that sleeps"
    between "$(value "$time" maxrss_kib)" 100 30000 "the memory of one that sleeps"
    between "$(value "$work" cpu)" 0.02 10 "the CPU time of one that works"
    between "$(value "$work" seconds)" "$(value "$work" cpu)" 20 "the time of one that works"
    between "$(value "$grow" maxrss_kib)" 60000 100000 "the memory of one that grows"
}

@test "exec end: the close line's seconds, CPU and memory are the program's, with what it waited for" {
    without_valgrind "the child costs what valgrind costs"
    in_both costs
}

# ---- standard error ----

stderr_goes() {
    local program='echo out; echo err >&2; echo more'
    serve -v --exec-io "$IO" --stderr log --handler exec sh -c "$program"
    run client "$PORT" all
    equal "$output" $'out\nmore'
    wait_for_log '^hark: stderr id=1 text=err$'
    serve -v --exec-io "$IO" --stderr client --handler exec sh -c "$program"
    run client "$PORT" all
    equal "$output" $'out\nerr\nmore'
    match "$(close_line 1)" ' out=13 '
    refute grep -q 'stderr' "$LOG"
    serve -v --exec-io "$IO" --stderr null --handler exec sh -c "$program"
    run client "$PORT" all
    equal "$output" $'out\nmore'
    match "$(close_line 1)" ' out=9 '
    refute grep -q 'stderr' "$LOG"
}

@test "exec end: --stderr log, client and null" {
    in_both stderr_goes
}

@test "exec end: --stderr: anything else is refused at start" {
    run_hark --port 0 --bind 127.0.0.1 --handler exec --stderr file cat
    equal "$status" 2
    match "$output" '^hark: error: option --stderr: '
}

floods() {
    local flood=100000
    [ -z "${HARK_VALGRIND:-}" ] || flood=30000 # which takes it as long
    serve -v --exec-io "$IO" --handler exec sh -c 'read -r what; if [ "$what" = flood ]; then seq "$0" >&2; echo "done"; else cat; fi' "$flood"
    spawn_client "flood.$IO" "$PORT" 'text:flood\n' all
    wait_for_log '^hark: stderr id=1 text=100$'
    run client "$PORT" 'text:cat\n' exchange:100000
    equal "$output" "same 100000 eof"
    finish "flood.$IO"
    equal "$(output_of "flood.$IO")" 'done'
    match "$(close_line 1)" ' status=0 '
    seq -f 'hark: stderr id=1 text=%.0f' "$flood" | cmp - <(grep '^hark: stderr ' "$LOG")
}

@test "exec end: 100,000 lines of standard error: none is lost, and others are served meanwhile" {
    in_both floods
}

@test "exec end: a program that floods standard error without end stops nobody, and ends with its client" {
    serve -v --kill-after 200ms --handler exec sh -c 'read -r what; if [ "$what" = flood ]; then echo ready; exec yes >&2; else cat; fi'
    spawn_client flood "$PORT" 'text:flood\n' line hold:"$T/go" reset
    wait_for_line flood ready
    wait_for_log '^hark: stderr id=1 text=y$' 1000
    run client "$PORT" 'text:cat\n' exchange:100000
    equal "$output" "same 100000 eof"
    touch "$T/go"
    match "$(close_line 1)" ' reason=reset .* signal=15 '
    stop_hark
}

@test "exec end: a standard error that the program closes at once" {
    without_valgrind "it takes more CPU"
    serve -v --handler exec sh -c 'exec 2>&-; cat'
    run client "$PORT" exchange:1000
    equal "$output" "same 1000 eof"
    at_most "$(cpu_ticks "$HARK_PID")" 20 "ticks of CPU"
}

# ---- the last lines ----

last_lines() { # STATUS-OF-PROGRAM STATUS-OF-HARK
    serve -v --once --exec-io "$IO" --handler exec sh -c 'echo out; seq 2000 >&2; printf "last words" >&2; exit "$0"' "$1"
    run client "$PORT" all
    equal "$output" out
    wait_for_exit
    equal "$STATUS" "$2" "hark's exit status"
    equal "$(grep -c '^hark: stderr id=1 text=[0-9]*$' "$LOG")" 2000 "the number of lines"
    equal "$(grep -n 'text="last words"$' "$LOG" | cut -d : -f 1)" $(($(grep -n '^hark: close ' "$LOG" | cut -d : -f 1) - 1)) "its place"
}

# All of it is in the pipe, and the program has ended, when hark looks.
full_pipe() { # OPTION...
    serve -v "$@" --exec-io "$IO" --handler exec sh -c 'echo $$; n=0; until [ -e "$0" ] || [ $((n += 1)) -gt 2000 ]; do sleep 0.01; done
        seq 8000 >&2; printf "last words" >&2' "$T/write.$IO"
    spawn_client "peer.$IO" "$PORT" line end all # nothing is left to wait for when the program has ended
    wait_for_line "peer.$IO" '^[0-9]'
    kill -STOP "$HARK_PID"
    eventually is_state "$HARK_PID" T
    touch "$T/write.$IO"
    eventually is_state "$(cat "$T/peer.$IO")" Z
    kill -CONT "$HARK_PID"
    match "$(close_line 1)" ' reason=child .* status=0 '
    finish "peer.$IO"
    rm "$T/write.$IO"
    (
        seq -f 'hark: stderr id=1 text=%.0f' 8000
        echo 'hark: stderr id=1 text="last words"'
        grep '^hark: close ' "$LOG" # nothing comes after it
    ) | cmp - <(grep -v -e listen -e accept "$LOG")
}

@test "exec end: what is still in the pipe when the program has ended is logged, before the close line" {
    in_both full_pipe
}

@test "exec end: --once: the same" {
    in_both full_pipe --once
}

@test "exec end: --once: the last lines are there, and the exit status tells how it went" {
    in_both last_lines 0 0
    in_both last_lines 3 1
}
