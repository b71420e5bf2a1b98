#!/usr/bin/env bats
# The example services: sh, Python and awk, with a socket and with pipes.
#
# shellcheck disable=SC2016,SC2030,SC2031,SC2034,SC2154 # variables of lib.bash

load lib

# serve_both NAME OPTION...: sets PORTS, of one that gives its program the socket and one with pipes.
serve_both() {
    local name=$1 io
    shift
    PORTS=()
    for io in socket pipe; do
        # the system's interpreters, not a developer's
        WRAPPER=(env PATH="/usr/bin:/bin:$PATH" "${GIVEN[@]}")
        serve -v --exec-io "$io" "$@" --handler exec "$TESTS/services/$name"
        PORTS+=("$PORT")
    done
}

setup() {
    GIVEN=()
}

# ---- guess.sh ----

# play PORT: finds the number by halves; prints how many guesses it took
play() {
    local low=1 high=100 guess answer count=0 peer
    exec {peer}<>"/dev/tcp/127.0.0.1/$1"
    read -r -t 10 -u "$peer" answer
    equal "$answer" "I think of a number from 1 to 100. Which one?"
    while ((low <= high)); do
        guess=$(((low + high) / 2)) count=$((count + 1))
        echo "$guess" >&"$peer"
        read -r -t 10 -u "$peer" answer || return
        case $answer in
            More.) low=$((guess + 1)) ;;
            Less.) high=$((guess - 1)) ;;
            "Yes, after $count.") break ;;
            *) fail "it said: $answer" || return ;;
        esac
    done
    refute read -r -t 10 -u "$peer" answer # that was its last word
    exec {peer}<&-
    at_most "$count" 7 "guesses"
}

@test "services: guess.sh: a dialogue to its end" {
    serve_both guess.sh
    local port
    for port in "${PORTS[@]}"; do
        play "$port"
        play "$port"
    done
    wait_for_log '^hark: close id=[12] .* reason=child .* status=0 ' 2
}

@test "services: guess.sh: all answers to all kinds of lines" {
    GIVEN=(SECRET=42)
    serve_both guess.sh
    local port
    for port in "${PORTS[@]}"; do
        run client "$port" 'text:50\n008\n\nforty-two\n-1\n1000\n41\r\n00\n42\nmore\n' end all
        equal "$output" 'I think of a number from 1 to 100. Which one?
Less.
More.
A number, please, or quit.
A number, please, or quit.
A number, please, or quit.
A number, please, or quit.
More.
More.
Yes, after 5.'
        run client "$port" line 'text:quit\n' all
        equal "${lines[1]}" "It was 42."
    done
}

@test "services: guess.sh: who leaves is logged" {
    serve_both guess.sh
    client "$PORT" line 'text:101\n' line end all
    wait_for_log '^hark: stderr id=1 text="guess\.sh: gave up after 1"$'
    wait_for_log '^hark: close id=1 .* reason=child .* status=1 '
}

# ---- upper.py ----

@test "services: upper.py: line by line, and all at once" {
    serve_both upper.py
    local port
    for port in "${PORTS[@]}"; do
        run client "$port" 'text:one\n' line 'text:two\n' line text:three end all
        equal "$output" $'ONE\nTWO\nTHREE'
        run client "$port" 'text:stra\xc3\x9fe \xff\n' end all
        equal "$output" $'STRASSE \xff'
        run crowd "$port" ask 5
        match "$output" "HELLO|b'[0-9]" # it wants another answer; what it got is ours
    done
}

@test "services: upper.py: warm" {
    WRAPPER=(env PATH="/usr/bin:/bin:$PATH")
    serve -v --warm 2 --handler exec "$TESTS/services/upper.py"
    eventually waits_twice
    local i
    for i in 1 2 3; do
        run client "$PORT" 'text:one\n' line end all
        equal "$output" ONE
    done
    stop_hark
}

waits_twice() {
    [ "$(pgrep -P "$HARK_PID" | wc -l)" -eq 2 ]
}

@test "services: upper.py: a client that leaves leaves no traceback" {
    serve_both upper.py --kill-after 100ms
    client "$PORT" 'text:one\n' line send:100000 reset
    wait_for_log '^hark: close id=1 '
    refute grep -q Traceback "$LOG"
}

# ---- sum.awk ----

@test "services: sum.awk: the answer after the end" {
    serve_both sum.awk
    local port
    for port in "${PORTS[@]}"; do
        run client "$port" 'text:1\n2.5\n\n-0.5\r\n' end all
        equal "$output" "3 numbers, 3"
        run client "$port" 'text:7' end all
        equal "$output" "1 number, 7"
        run client "$port" end all
        equal "$output" "0 numbers, 0"
    done
    wait_for_log '^hark: close id=[1-3] .* reason=child .* status=0 ' 3
}

@test "services: sum.awk: what is no number is logged, and the status tells" {
    serve_both sum.awk
    run client "$PORT" 'text:1\nx\n2\n' end all
    equal "$output" "2 numbers, 3"
    wait_for_log '^hark: stderr id=1 text="sum\.awk: line 2 is no number"$'
    wait_for_log '^hark: close id=1 .* reason=child .* status=1 '
}

@test "services: sum.awk: 100,000 numbers" {
    serve_both sum.awk
    seq 100000 >"$T/numbers"
    local port
    for port in "${PORTS[@]}"; do
        run timeout 20 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$1"; "$2" -SE -c "import socket, sys
s = socket.socket(fileno=3)
s.sendall(open(sys.argv[1], \"rb\").read())
s.shutdown(socket.SHUT_WR)
print(s.recv(100).decode().strip())" "$3"' bash "$port" "$PYTHON" "$T/numbers"
        equal "$output" "100000 numbers, 5000050000"
    done
}
