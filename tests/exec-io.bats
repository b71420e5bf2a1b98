#!/usr/bin/env bats
# exec: the two ways to connect a program, --exec-io socket and pipe: each end by itself, bytes, descriptors, signals.
#
# shellcheck disable=SC2013,SC2016,SC2030,SC2031,SC2034,SC2153,SC2154 # dollar signs of programs; variables of lib.bash

load lib

serve_io() {
    serve -v --exec-io "$IO" --handler exec "$@"
}

# A shell's way to wait for a file; as a program's last words, so that it never stays for ever.
UNTIL='until_there() { n=0; until [ -e "$1" ] || [ $((n += 1)) -gt 2000 ]; do sleep 0.01; done; }; '

closed() { # REGEX: what the close line of connection 1 has to hold
    wait_for_log '^hark: close id=1 ' && match "$(grep '^hark: close id=1 ' "$LOG")" "$1"
}

# ---- half-closing ----

half_closes() { # ADDRESS
    run client "$1" exchange:300000
    equal "$output" "same 300000 eof" "cat through $1, $IO"
}

half_closes_on_all() {
    start_hark -v --exec-io "$IO" --bind 127.0.0.1 --port 0 --unix "$T/s.$IO" --handler exec cat
    half_closes "$PORT"
    half_closes "unix:$T/s.$IO"
}

@test "exec io: bytes and both ends, over TCP and unix sockets" {
    in_both half_closes_on_all
}

# $1: what the program does; $2: what the client gets; $3...: what the client does
one_way() {
    local program=$1 expected=$2 address
    shift 2
    start_hark -v --exec-io "$IO" --bind 127.0.0.1 --port 0 --unix "$T/s" --handler exec sh -c "$program"
    for address in "$PORT" "unix:$T/s"; do
        run client "$address" "$@"
        equal "$output" "$expected" "$IO, $address: $program"
    done
    stop_hark
}

@test "exec io: an answer that needs the end of the input" {
    in_both one_way 'wc -c' 100000 send:100000 end all
    in_both one_way 'wc -c' 0 end all
}

@test "exec io: an answer before the input, and one after its end" {
    in_both one_way 'printf first; cat >/dev/null; printf last' firstlast send:100000 end all
}

@test "exec io: an answer that does not care for the input" {
    in_both one_way 'printf answer' answer send:100000 all
    in_both one_way 'printf answer' answer send:100000 end all
    in_both one_way 'head -c 1000000 /dev/zero' "1000000 eof" send:20000 end count
}

@test "exec io: an input whose end never comes does not hold the program's end back" {
    in_both one_way 'read -r line; echo "got $line"' 'got it' 'text:it\n' all
}

late_answer() {
    local program="$UNTIL"'cat >/dev/null; : >"$1/eof"; until_there "$1/go"; echo late'
    mkdir "$T/$IO"
    serve_io sh -c "$program" sh "$T/$IO"
    spawn_client "peer.$IO" "$PORT" send:1000 end all
    eventually test -e "$T/$IO/eof"
    # it has the end, and that is no reason to take its client away
    run client --timeout 0.3 "$PORT" all
    match "$output" '^all: timeout'
    touch "$T/$IO/go"
    finish "peer.$IO"
    equal "$(output_of "peer.$IO")" late
    closed ' reason=child in=1000 out=5 .* status=0 '
}

@test "exec io: the input ends long before the answer comes" {
    in_both late_answer
}

@test "exec io: pipe: relayed both ways at once through small buffers, to a slow reader" {
    serve -v --exec-io pipe --max-buffer-size 1k --handler exec cat
    run client --rcvbuf 4096 "$PORT" slow:16384:0.001 exchange:1000000
    equal "$output" "same 1000000 eof"
    closed ' in=1000000 out=1000000 .* status=0 '
}

@test "exec io: pipe: more output than input, while the client goes on sending" {
    serve -v --exec-io pipe --handler exec od -An -v -tx1
    spawn_client peer "$PORT" send:50000 say:sent send:200000 end count
    finish peer
    # each line has 16 bytes: " xx" for each, and its end
    equal "$(output_of peer)" $'sent\n'"$((250000 * 3 + 250000 / 16)) eof"
}

# ---- the program ends a direction itself ----

@test "exec io: pipe: a program that closes its stdout first goes on reading" {
    serve -v --exec-io pipe --handler exec sh -c 'echo first; exec >/dev/null; wc -c >&2'
    run client "$PORT" all say:eof send:3000000 end
    equal "$output" $'first\neof' # the end came although the program and the connection were still there
    wait_for_log 'stderr id=1 text=3000000$'
    closed ' reason=child in=3000000 out=6 .* status=0 '
}

@test "exec io: pipe: a program that closes its stdout, and whose client never ends" {
    serve -v --exec-io pipe --handler exec sh -c 'exec >/dev/null; read -r line; echo "$line" >&2; exit 3'
    spawn_client peer "$PORT" all say:eof 'text:last\n' hold:"$T/go"
    wait_for_line peer eof
    wait_for_log 'stderr id=1 text=last$'
    closed ' reason=child in=5 out=0 .* status=3 '
    touch "$T/go"
}

@test "exec io: pipe: a program that closes its stdout, and whose client resets" {
    serve -v --exec-io pipe --kill-after 100ms --handler exec sh -c 'exec >/dev/null; exec sleep 1000'
    run client "$PORT" all reset
    closed ' reason=reset .* signal=(15|9) '
    eventually none_marked sleep
}

closes_stdin() {
    local program="$UNTIL"'exec </dev/null; : >"$1/ready"; until_there "$1/go"; echo answer'
    mkdir "$T/$IO"
    serve_io sh -c "$program" sh "$T/$IO"
    # more than fits anywhere: it may block until the program has ended
    spawn_client "peer.$IO" "$PORT" send:300000 say:sent send:10000000 end all
    eventually test -e "$T/$IO/ready"
    wait_for_line "peer.$IO" sent
    touch "$T/$IO/go"
    finish "peer.$IO"
    equal "$(output_of "peer.$IO")" $'sent\nanswer'
    closed ' reason=child .* status=0 '
}

@test "exec io: a program that closes its stdin at once answers later, while the client sends" {
    in_both closes_stdin
}

# ---- programs that do not do their part ----

never_reads() {
    serve -v --exec-io "$IO" --max-buffer-size 64k --kill-after 100ms --handler exec sh -c 'echo ready; exec sleep 1000'
    client "$PORT" line reset
    closed ' reason=reset .* signal=(15|9) '
    local before ticks
    before=$(resident_kib "$HARK_PID")
    spawn_client "peer.$IO" "$PORT" line fill:0.3 hold:"$T/go.$IO" reset
    wait_for_line "peer.$IO" '^filled '
    at_most "$(sed -n 's/^filled //p' "$T/peer.$IO")" 20000000 "bytes taken from the client"
    if ! grep -q __asan_init "$HARK"; then
        at_most "$(resident_kib "$HARK_PID")" $((before + 1024)) "KiB of hark with a full buffer"
    fi
    ticks=$(cpu_ticks "$HARK_PID")
    run client --timeout 0.5 "$PORT" line all
    equal "${lines[0]}" ready # the others do not notice
    at_most $(($(cpu_ticks "$HARK_PID") - ticks)) 20 "ticks of CPU while nothing moved"
    touch "$T/go.$IO"
    finish "peer.$IO"
    wait_for_log '^hark: close id=2 .* reason=reset .* signal=(15|9) '
    stop_hark QUIT
    eventually none_marked sleep
}

@test "exec io: a program that never reads, and a client that sends without end" {
    in_both never_reads
}

never_ends() {
    serve -v --exec-io "$IO" --kill-after 100ms --handler exec sh -c 'echo ready; exec sleep 1000'
    client "$PORT" line reset                       # before its end
    client "$PORT" line end reset                   # after it
    client "$PORT" send:1000 line reset             # with input unread
    client "$PORT" line send:100000 end reset
    wait_for_log '^hark: close id=[1-4] .* reason=reset .* signal=(15|9) ' 4
    eventually none_marked sleep
    # an end, or a close, which looks the same, is no reason to end the program
    spawn_client "peer.$IO" "$PORT" line end say:ended hold:"$T/go.$IO" reset
    wait_for_line "peer.$IO" ended
    client "$PORT" line close
    client "$PORT" line reset
    wait_for_log '^hark: close id=7 '
    refute grep -qE '^hark: close id=[56] ' "$LOG"
    equal "$(count_marked sleep)" 2 "the number of programs"
    touch "$T/go.$IO"
    wait_for_log '^hark: close id=5 .* reason=reset .* signal=(15|9) '
    stop_hark QUIT
    grep -qE '^hark: close id=6 .* reason=shutdown ' "$LOG"
}

@test "exec io: a program that never ends gets TERM when its client resets, and only then" {
    in_both never_ends
}

writes_for_ever() {
    serve -v --exec-io "$IO" --max-buffer-size 64k --kill-after 200ms --handler exec \
        sh -c 'if [ "$HARK_ID" != 3 ]; then exec cat /dev/zero; fi; trap "" PIPE; echo; while :; do echo xxxxxxxx; done 2>/dev/null'
    client "$PORT" recv:0 reset
    wait_for_log '^hark: close id=1 '
    local before
    before=$(resident_kib "$HARK_PID")
    spawn_client "peer.$IO" --rcvbuf 4096 "$PORT" text:x hold:"$T/go.$IO" reset
    eventually is_stuck
    if ! grep -q __asan_init "$HARK"; then
        at_most "$(resident_kib "$HARK_PID")" $((before + 1024)) "KiB of hark with a full buffer"
    fi
    client "$PORT" line reset # id 3: one that does not care for SIGPIPE or errors
    wait_for_log '^hark: close id=3 .* reason=reset .* signal=(15|9) '
    touch "$T/go.$IO"
    finish "peer.$IO"
    wait_for_log '^hark: close id=2 .* reason=(reset|child) '
    eventually none_marked cat
    eventually no_children "$HARK_PID"
    stop_hark
}

# Nothing moves any more: cat has written all that there is room for, and sleeps.
is_stuck() {
    local cat io
    cat=$(pgrep -P "$HARK_PID" -x cat) || return
    io=$(grep -s wchar "/proc/$cat/io") || return
    [ "${io#* }" -gt 65536 ] && is_state "$cat" S && sleep 0.2 && [ "$(grep wchar "/proc/$cat/io")" = "$io" ]
}

@test "exec io: a program that writes for ever, and a client that does not read" {
    in_both writes_for_ever
}

dies() {
    serve_io sh -c 'printf partial; kill -s "$1" $$' sh "$1"
    run client "$PORT" text:unread all
    equal "$output" partial
    closed " reason=child in=6 out=7 .* signal=$2 "
}

@test "exec io: a program that a signal kills: what it wrote arrives, and the signal is logged" {
    in_both dies SEGV 11
    in_both dies KILL 9
    in_both dies PIPE 13
}

# ---- background processes ----

leaves_one_behind() {
    mkdir "$T/$IO"
    serve -v --exec-io "$IO" --kill-after 50ms --handler exec \
        sh -c "$UNTIL"'(trap "" HUP; until_there "$1/go"; echo later >&2; exec sleep 1000) & echo started' sh "$T/$IO"
    client "$PORT" count # what is made once is there
    wait_for_log '^hark: close id=1 '
    local before
    before=$(descriptors "$HARK_PID")
    run client "$PORT" all
    equal "$output" started
    wait_for_log '^hark: close id=2 .* reason=child in=0 out=8 .* status=0 '
    match "$(sed -n 's/.*close id=2 .* seconds=\([0-9.]*\).*/\1/p' "$LOG")" '^[01]\.'
    # what it says is still its connection's
    touch "$T/$IO/go"
    wait_for_log '^hark: stderr id=2 text=later$'
    eventually test "$(count_marked sleep)" -ge 2 # they live
    # one descriptor for its stderr is all that is left
    eventually has_descriptors "$HARK_PID" $((before + 1))
    stop_hark
    equal "$(count_marked sleep)" 2 "the number of background processes after hark's end"
    local pid
    for pid in $(marked_processes); do
        kill -KILL "$pid" 2>/dev/null || true
    done
    eventually none_marked sleep
}

@test "exec io: background processes do not hold the connection, and live on" {
    in_both leaves_one_behind
}

keeps_the_input() {
    serve -v --exec-io "$IO" --handler exec sh -c 'exec 3<&0; sleep 1000 <&3 & echo started'
    client "$PORT" count # what is made once is there
    wait_for_log '^hark: close id=1 '
    local before
    before=$(descriptors "$HARK_PID")
    run client "$PORT" send:300000 end all
    equal "$output" started
    wait_for_log '^hark: close id=2 .* reason=child .* status=0 '
    # one descriptor for its stderr is all that is left
    eventually has_descriptors "$HARK_PID" $((before + 1))
}

@test "exec io: a background process that has the input, and does not read it, holds nothing up" {
    in_both keeps_the_input
}

ends_beside_others() {
    serve_io sh -c 'read -r line; echo "$line"'
    # the connection of a program that has ended, whose client stays: it is blocking, hark is not
    spawn_client silent "$PORT" 'text:one\n' line hold:"$T/go.$IO"
    wait_for_line silent one
    eventually no_children "$HARK_PID"
    run client --timeout 1 "$PORT" 'text:two\n' line
    equal "$output" two
    touch "$T/go.$IO"
}

@test "exec io: a client that stays after the program's end holds nobody up" {
    in_both ends_beside_others
}

# ---- what the program finds ----

SHOW='ls /proc/$$/fd; for n in 0 1 2; do sed -n "s/^flags:[[:space:]]*//p" /proc/$$/fdinfo/$n; done; for n in 0 1 2; do readlink /proc/$$/fd/$n; done'

# What SHOW says: three descriptors, all blocking. Sets PLACES, what they are.
check_shown() {
    equal "$(sed -n 1,3p <<<"$1" | xargs)" "0 1 2" "what is open"
    local flags
    for flags in $(sed -n 4,6p <<<"$1"); do
        equal $((8#$flags & 8#4000)) 0 "O_NONBLOCK in $flags"
    done
    mapfile -t PLACES < <(sed -n '7,$p' <<<"$1")
    equal "${#PLACES[@]}" 3 "the number of lines left"
}

shows_descriptors() {
    local to
    exec 7</dev/null 8>"$T/other"
    for to in log client null; do
        serve -v --exec-io "$IO" --stderr "$to" --handler exec sh -c "$SHOW"
        run client "$PORT" all
        check_shown "$output"
        local kind=$IO
        match "${PLACES[0]}" "^$kind:"
        match "${PLACES[1]}" "^$kind:"
        if [ "$IO" = socket ]; then equal "${PLACES[1]}" "${PLACES[0]}"; else refute equal "${PLACES[1]}" "${PLACES[0]}" 2>/dev/null; fi
        case $to in
            log) match "${PLACES[2]}" '^pipe:' ;;
            client) equal "${PLACES[2]}" "${PLACES[1]}" "stderr" ;;
            null) equal "${PLACES[2]}" /dev/null "stderr" ;;
        esac
    done
    exec 7<&- 8>&-
}

@test "exec io: descriptors 0, 1 and 2 are open, blocking, and nothing else is" {
    without_valgrind "it opens its log anew in a child"
    in_both shows_descriptors
}

among_many() {
    serve -v --exec-io "$IO" --max-connections 0 --handler exec sh -c 'if [ -e "$0" ]; then '"$SHOW"'; else exec cat; fi' "$T/now.$IO"
    client "$PORT" reset
    wait_for_log '^hark: close '
    local before
    before=$(descriptors "$HARK_PID")
    spawn_crowd "crowd.$IO" "$PORT" hold 270 100 "$T/go.$IO"
    wait_for_line "crowd.$IO" '^held 270$'
    at_most 540 "$(descriptors "$HARK_PID")" "descriptors"
    touch "$T/now.$IO"
    run client "$PORT" all
    check_shown "$output"
    run client "$PORT" send:10000 end all # unread, and ended in order
    check_shown "$output"
    touch "$T/go.$IO"
    finish "crowd.$IO"
    equal "$(tail -n 1 "$T/crowd.$IO")" "done 270"
    eventually no_children "$HARK_PID"
    eventually has_descriptors "$HARK_PID" "$before"
    stop_hark
}

@test "exec io: the same with 270 connections open, whose ends are seen as well" {
    without_valgrind "it knows no clone with CLONE_FILES"
    in_both among_many
}

# hark with signals ignored and blocked, as no shell can do it.
hostile_start() {
    WRAPPER=("$PYTHON" -SE -c 'import os, signal, sys
for s in signal.SIGINT, signal.SIGPIPE, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1, signal.SIGXFSZ:
    signal.signal(s, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, set(range(1, 65)) - {32, 33})
os.execv(sys.argv[1], sys.argv[1:])')
}

has_default_signals() {
    serve -v "$@" --handler exec sh -c 'read -r line; exec cat /proc/self/status'
    run client "$PORT" 'text:\n' end all
    local zero=0000000000000000
    equal "$(grep -E '^Sig(Blk|Ign|Cgt)' <<<"$output")" $'SigBlk:\t'$zero$'\nSigIgn:\t'$zero$'\nSigCgt:\t'$zero "$*"
}

@test "exec io: the signal mask is empty and every disposition the default, whatever hark was started with" {
    has_default_signals --exec-io socket
    has_default_signals --exec-io pipe
    hostile_start
    has_default_signals --exec-io socket
    has_default_signals --exec-io pipe
    has_default_signals --warm 1
}

dies_of_sigpipe() {
    serve_io sh -c 'echo ready; while :; do echo more; done'
    client "$PORT" line reset
    closed ' signal=13 '
}

@test "exec io: a program whose client is gone dies of SIGPIPE as in a pipeline, though hark ignores it" {
    hostile_start
    in_both dies_of_sigpipe
}

has_its_own_group() {
    serve_io sh -c 'echo $$; cut -d " " -f 5,6 /proc/$$/stat'
    run client "$PORT" all
    equal "${lines[1]% *}" "${lines[0]}" "the process group"
    equal "${lines[1]#* }" "$(cut -d ' ' -f 6 "/proc/$HARK_PID/stat")" "the session"
}

@test "exec io: each program leads a process group of its own, in hark's session" {
    in_both has_its_own_group
}

@test "exec io: pipe: /dev/stdin, /dev/stdout and /dev/stderr can be opened" {
    serve -v --exec-io pipe --handler exec sh -c 'cat /dev/stdin >/dev/stdout; echo end >/dev/stdout; echo said >/dev/stderr'
    run client "$PORT" 'text:in\n' end all
    equal "$output" $'in\nend'
    wait_for_log 'stderr id=1 text=said$'
}
