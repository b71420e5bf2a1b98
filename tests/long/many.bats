#!/usr/bin/env bats
# Nine thousand idle connections on each of two processes, while others come at full rate; and limits, to the last one.
#
# shellcheck disable=SC2034,SC2153,SC2154 # variables of lib.bash

load ../lib

EACH=9000 LASTS=300 DEADLINE=120

setup() {
    [ "$(ulimit -Hn)" -ge $((EACH + 1000)) ] || skip "too few descriptors: $(ulimit -Hn)"
}

spawn_holders() { # NAME COUNT NETWORK EACH FULL
    spawn "$1" "$PYTHON" -SE "$TESTS/holders.py" "$PORT" "$2" "$3" "$4" "$5" "$T/go.$1"
}

let_go() { # NAME
    touch "$T/go.$1"
    finish "$1"
    has_line "$T/$1" '^done '
}

# Sets HELD: what each of the two processes says it holds.
ask_both() {
    local before
    before=$(grep -c '^hark: status ' "$LOG" || true)
    kill -USR2 "$HARK_PID"
    wait_for_log '^hark: status ' $((before + 2))
    mapfile -t HELD < <(grep '^hark: status ' "$LOG" | tail -n 2 | sed 's/.* connections=\([0-9]*\) .*/\1/')
}

holds_in_all() { # COUNT
    ask_both
    equal "$((HELD[0] + HELD[1]))" "$1" "all connections"
}

# Two processes that hold EACH: one sleeps while the other one is filled.
fill_both() { # OF-ONE-ADDRESS FULL
    local workers
    mapfile -t workers < <(pgrep -P "$HARK_PID")
    kill -STOP "${workers[1]}"
    eventually is_state "${workers[1]}" T
    spawn_holders one "$EACH" 2 "$1" "$2"
    wait_for_line one "^held $EACH\$"
    kill -CONT "${workers[1]}"
    kill -STOP "${workers[0]}"
    eventually is_state "${workers[0]}" T
    spawn_holders two "$EACH" 3 "$1" "$2"
    wait_for_line two "^held $EACH\$"
    kill -CONT "${workers[0]}"
}

no_errors() {
    refute grep -E '^hark: (error|warning|restart)' "$LOG"
}

# At full rate, as many at a time as there are places, or more.
visit() { # AT-ONCE COUNT
    touch "$T/stop"
    run timeout 200 "$PYTHON" -SE "$TESTS/visitors.py" "$PORT" "$1" "$2" "$T/stop"
    equal "$status" 0 "the visitors' status ($output)"
    match "${lines[-1]}" '^served [0-9]+ failed 0$'
}

@test "many: 9,000 idle on each of two processes while new ones come; the limit is exact" {
    serve --processes 2 --max-connections $((2 * EACH + 10))
    fill_both "$EACH" ''
    ask_both
    equal "${HELD[*]}" "$EACH $EACH"
    visit 8 5000
    visit 40 5000
    # the last ten places, and one who waits
    spawn_holders last 9 4 9 ''
    wait_for_line last '^held 9$'
    spawn_client tenth "$PORT" echo:10 say:served hold:"$T/go.tenth" end same
    wait_for_line tenth served
    spawn_client waits "$PORT" say:connected echo:10 say:served hold:"$T/go.waits" end same
    wait_for_line waits connected
    run client --timeout 0.5 "$PORT" echo:10
    match "$output" '^echo:10: timeout'
    holds_in_all $((2 * EACH + 10))
    refute has_line "$T/waits" served
    touch "$T/go.tenth"
    finish tenth
    wait_for_line waits served
    touch "$T/go.waits"
    finish waits
    let_go last
    let_go one
    let_go two
    visit 8 1000
    no_errors
    stop_hark
}

@test "many: 3,000 addresses with as many connections as each may have, over two processes" {
    serve --processes 2 --max-per-ip 6
    fill_both 6 full
    wait_for_line one '^replaced 1500$'
    wait_for_line two '^replaced 1500$'
    holds_in_all $((2 * EACH))
    visit 4 1000
    let_go one
    let_go two
    no_errors
    stop_hark
}

@test "many: with sockets of their own, too" {
    serve --processes 2 --reuse-port --max-connections $((EACH + 10)) --max-per-ip 3
    spawn_holders one "$EACH" 2 3 full
    wait_for_line one '^replaced 3000$'
    visit 8 3000
    visit 40 3000
    holds_in_all "$EACH"
    let_go one
    no_errors
    stop_hark
}
