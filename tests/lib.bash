# lib.bash - what every .bats file loads: starting and stopping hark, clients, counters.
#
# Nothing here sleeps to let something happen: what is waited for is a pipe's end, a process's end, or a condition looked at again and
# again until a deadline (`eventually`). Everything started is killed in teardown, and on failure every log is shown.
# shellcheck shell=bash disable=SC2034,SC2015,SC2013,SC2153

DEADLINE=${HARK_TEST_DEADLINE:-60} # seconds for anything that has to happen; it never has to be waited for in full
TESTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PYTHON=/usr/bin/python3
[ -x "$PYTHON" ] || PYTHON=python3
MARK="mark.$BATS_ROOT_PID.$BATS_SUITE_TEST_NUMBER.$RANDOM" # HARK_TEST_MARK of all that this test starts

declare -g T=${BATS_TEST_TMPDIR:-/nonexistent} # where a test keeps its files
declare -ga harks=()                          # pids of all harks of this test
declare -gA background=()                     # name -> pid of what `spawn` started
declare -g HARK_PID='' LOG='' ADDR='' PORT='' STATUS='' TARGET_PORT='' # what start_hark and others set
declare -ga READY=()                                                  # the lines of --ready-fd
declare -g READY_LINES=''                                              # how many lines to wait for, if not for the end
declare -ga WRAPPER=()                                                # a command that ends in running what follows it

# ---- saying why ----

fail() {
    printf '%s\n' "$*" >&2
    return 1
}

# refute COMMAND...: it must fail ("!" alone is not seen by bats).
refute() {
    if "$@"; then
        fail "succeeded, and should not have: $*"
    fi
}

# equal ACTUAL EXPECTED [WHAT]
equal() {
    [ "$1" = "$2" ] || fail "${3:-it} is \"$1\" and not \"$2\""
}

# match TEXT REGEX
match() {
    [[ "$1" =~ $2 ]] || fail "does not match $2: $1"
}

# at_most NUMBER LIMIT WHAT
at_most() {
    (($1 <= $2)) || fail "$3: $1, more than $2"
}

# need TOOL PACKAGE: without the tool the test is skipped, except in CI, where that would hide it.
need() {
    command -v "$1" >/dev/null && return
    [ "${CI:-}" = true ] && fail "$1 is missing: apt-get install $2"
    skip "needs $1 (apt-get install $2)"
}

# permitted COMMAND...: skips where the machine does not allow something (namespaces in a container).
permitted() {
    "$@" >/dev/null 2>&1 || skip "not permitted here: $*"
}

need_module() { # of Python MODULE PACKAGE
    "$PYTHON" -c "import $1" 2>/dev/null && return
    [ "${CI:-}" = true ] && fail "python3's $1 is missing: apt-get install $2"
    skip "needs python3's $1 (apt-get install $2)"
}

# In place of ASAN_OPTIONS: LeakSanitizer needs /proc and a thread that traces the others, which a chroot, another user and the sandbox
# take away.
NO_LEAK_CHECK="${ASAN_OPTIONS:-}:detect_leaks=0"

without_sanitizers() {
    if [ "${HARK_VALGRIND:-}" ] || grep -q __asan_init "$HARK" 2>/dev/null; then
        skip "the sanitizers' own memory hides it"
    fi
}

without_valgrind() { # WHY
    [ -z "${HARK_VALGRIND:-}" ] || skip "on valgrind: $1"
}

# ---- waiting ----

exec {silence}<> <(:) # a pipe that nobody writes to

# eventually COMMAND...: as soon as it succeeds; fails after DEADLINE seconds.
eventually() {
    local end=$((SECONDS + DEADLINE)) nap=0.01
    until "$@" >"$T/attempt" 2>&1; do
        ((SECONDS < end)) || fail "has not happened in $DEADLINE s: $* $(cat "$T/attempt")" || return
        # a nap without a process for it; short at first
        IFS= read -rt "$nap" _ <&"$silence" || true
        nap=0.05
    done
}

has_line() { # FILE REGEX
    grep -qE -- "$2" "$1" 2>/dev/null
}

has_lines() { # FILE REGEX COUNT: as many or more
    (($(grep -cE -- "$2" "$1" 2>/dev/null) >= $3))
}

wait_for_log() { # REGEX [COUNT]
    eventually has_lines "$LOG" "$1" "${2:-1}"
}

wait_for_line() { # NAME REGEX: in the output of a spawned command
    eventually has_line "$T/$1" "$2"
}

# A zombie counts as gone: whose parent is a pid 1 that reaps nothing, as in some containers, stays one.
is_gone() {
    ! kill -0 "$1" 2>/dev/null || is_state "$1" Z
}

is_state() { # PID STATES, such as S or TZ
    [[ "$2" == *"$(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null)"* ]]
}

no_children() { # PID
    ! pgrep -P "$1" >/dev/null
}

# ---- hark ----

# Descriptors 4 to 6 are the tests' own: nothing started here gets them.

# start_hark OPTION...: with stdin and stdout as the caller has them. Returns once it serves; then HARK_PID, LOG, READY, and ADDR and PORT
# (of the first TCP socket) are set.
start_hark() {
    local fifo="$T/ready.${#harks[@]}"
    LOG="$T/hark.${#harks[@]}.log"
    mkfifo "$fifo"
    HARK_TEST_MARK=$MARK "${WRAPPER[@]}" "$HARK" --ready-fd 9 "$@" <&0 9>"$fifo" 2>"$LOG" 3>&- 4>&- 5>&- 6>&- &
    HARK_PID=$!
    harks+=("$HARK_PID")
    mapfile -t READY < <(timeout "$DEADLINE" head -n "${READY_LINES:--0}" "$fifo")
    rm -f "$fifo"
    [ ${#READY[@]} -gt 0 ] || fail "hark did not start: $*" || return
    ADDR='' PORT=''
    local line
    for line in "${READY[@]}"; do
        [[ "$line" == unix\ * ]] && continue
        ADDR=${line% *} PORT=${line##* }
        return 0
    done
}

# in_both COMMAND...: with IO=socket, then with IO=pipe, for --exec-io.
in_both() {
    local IO
    for IO in socket pipe; do
        echo "--exec-io $IO"
        "$@" # no "||" here: it would hide what fails inside
    done
}

# The usual: on the loopback, a port of its own.
serve() {
    start_hark --bind 127.0.0.1 --port 0 "$@"
}

# One more hark, for others to forward to: sets TARGET_PORT.
serve_target() {
    serve "$@"
    TARGET_PORT=$PORT
}

# wait_for_exit [PID]: sets STATUS.
wait_for_exit() {
    local pid=${1:-$HARK_PID}
    eventually is_gone "$pid" || return
    STATUS=0
    wait "$pid" || STATUS=$?
}

# stop_hark [SIGNAL [STATUS]]: as TERM 0.
stop_hark() {
    kill -"${1:-TERM}" "$HARK_PID"
    wait_for_exit "$HARK_PID" || return
    equal "$STATUS" "${2:-0}" "the exit status"
}

# run_hark ARGUMENT...: one that is to end by itself: `run` with a limit, stdout in $T/out, stderr in $T/err and $output.
run_hark() {
    status=0
    HARK_TEST_MARK=$MARK timeout "$DEADLINE" "$HARK" "$@" >"$T/out" 2>"$T/err" 3>&- || status=$?
    # shellcheck disable=SC2034 # for the tests
    output=$(<"$T/err")
}

# ---- other programs ----

# spawn NAME COMMAND...: in the background, output in $T/NAME and $T/NAME.err, LASTS seconds at most (60).
spawn() {
    local name=$1
    shift
    : >"$T/$name" # now: nobody is to wait for what an earlier one of that name has said
    HARK_TEST_MARK=$MARK timeout "${LASTS:-60}" "$@" <&0 >"$T/$name" 2>"$T/$name.err" 3>&- 4>&- 5>&- 6>&- &
    background[$name]=$!
}

# finish NAME: waits for its end, and that it went well.
finish() {
    local result=0
    wait "${background[$1]}" || result=$?
    [ "$result" -eq 0 ] || fail "$1 ended with status $result: $(cat "$T/$1" "$T/$1.err")"
}

output_of() {
    cat "$T/$1"
}

python() {
    timeout 120 "$PYTHON" -SE "$@"
}

client() { # ADDRESS ACTION...
    timeout 60 "$PYTHON" -SE "$TESTS/client.py" "$@"
}

spawn_client() { # NAME ADDRESS ACTION...
    local name=$1
    shift
    spawn "$name" "$PYTHON" -SE "$TESTS/client.py" "$@"
}

# converse NAME LINE ANSWER COMMAND...: spawned, it is given the line, and the end of its stdin when it has printed what ANSWER matches.
converse() {
    local name=$1 line=$2 answer=$3
    shift 3
    rm -f "$T/lines"
    mkfifo "$T/lines"
    spawn "$name" "$@" < <(cat "$T/lines")
    exec 5>"$T/lines"
    echo "$line" >&5
    wait_for_line "$name" "$answer"
    exec 5>&-
    finish "$name"
}

# spawn_target ADDRESS-TO-LISTEN ACTION...: a server of one connection, as `target`; sets TARGET_PORT.
spawn_target() {
    spawn_client target "$@"
    wait_for_line target '^port '
    TARGET_PORT=$(sed -n 's/^port //p' "$T/target")
}

crowd() { # ADDRESS WHAT...
    timeout 300 "$PYTHON" -SE "$TESTS/crowd.py" "$@"
}

spawn_crowd() { # NAME ADDRESS WHAT...
    local name=$1
    shift
    spawn "$name" "$PYTHON" -SE "$TESTS/crowd.py" "$@"
}

# ---- README ----

# readme_block MARK: the lines of the block that stands behind <!-- MARK -->.
readme_block() {
    sed -n "/^<!-- $1 -->\$/,/^\`\`\`\$/p" "$TESTS/../README.md" | sed '/^<!--/d; /^```/d'
}

# ---- counting ----

descriptors() { # PID
    find "/proc/$1/fd" -mindepth 1 -printf '%f\n' | awk -v valgrinds="$(valgrinds_descriptors)" '!valgrinds || $1 < valgrinds' | wc -l
}

# The first one of its own, which lie right below the limit; nothing without it.
valgrinds_descriptors() {
    [ -z "${HARK_VALGRIND:-}" ] || echo $(($(ulimit -Sn) - 12))
}

has_descriptors() { # PID COUNT
    [ "$(descriptors "$1")" -eq "$2" ]
}

# What it has written to; clean pages are of files, and count as whose they happen to be at the moment.
private_kib() { # PID
    awk '/^Private_Dirty:/ { print $2 }' "/proc/$1/smaps_rollup"
}

resident_kib() { # PID
    awk '/^VmRSS:/ { print $2 }' "/proc/$1/status"
}

cpu_ticks() { # PID
    sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'
}

zombies() { # of PID
    pgrep -c -r Z -P "$1" || true
}

# The processes that this test started, directly or not, and that are still there.
marked_processes() {
    local file
    for file in $(grep -lzxF "HARK_TEST_MARK=$MARK" /proc/[0-9]*/environ 2>/dev/null); do
        basename "${file%/environ}"
    done
}

# Those among them that run NAME.
count_marked() { # NAME
    local pid count=0
    for pid in $(marked_processes); do
        [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$1" ] && is_state "$pid" RSDT && count=$((count + 1))
    done
    echo "$count"
}

none_marked() { # NAME
    [ "$(count_marked "$1")" -eq 0 ]
}

# ---- the end ----

show_logs() {
    local file
    for file in "$T"/*.log "$T"/*.err; do
        [ -s "$file" ] || continue
        printf -- '---- %s\n' "${file##*/}"
        tail -c 6000 "$file"
    done
}

teardown() {
    local pid
    for pid in "${harks[@]}" "${background[@]}"; do
        { kill -KILL "$pid" && wait "$pid" || true; } 2>/dev/null
    done
    for pid in $(marked_processes); do
        kill -KILL "$pid" 2>/dev/null || true
    done
    if grep -lqE 'AddressSanitizer|LeakSanitizer|runtime error' "$T"/*.log 2>/dev/null; then
        show_logs
        return 1
    fi
    [ -n "${BATS_TEST_COMPLETED:-}" ] || [ -n "${BATS_TEST_SKIPPED:-}" ] || show_logs
}
