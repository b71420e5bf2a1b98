#!/usr/bin/env bats
# README.md and man/hark.1 are true: every recipe, every row of "Coming from" and every example is taken from where it stands, and run.
#
# A recipe is a block of commands. Those that hark serves in run in the background, each on a free port in place of the one it names,
# which the commands after it are then told; what these print has to be what stands behind "# ->". A block with a --ready-fd of its own
# learns the port itself, and runs as it is.

load lib

setup() {
    ROOT=$(cd "$BATS_TEST_DIRNAME/.." && pwd)
    mkdir "$T/bin" "$T/work"
    free_port_hark >"$T/bin/hark"
    chmod +x "$T/bin/hark"
    # README's nc is OpenBSD's, whatever this machine calls nc.
    ! command -v nc.openbsd >/dev/null || ln -s "$(command -v nc.openbsd)" "$T/bin/nc"
    PATH=$T/bin:$PATH
    cd "$T/work" || return
    declare -gA port_of=() # the one that is named -> the one that was free
    declare -g server_count=0
    make_certificate
    mkdir public
    echo hello >public/hello.txt
    printf 'read -r name\necho hello $name\n' >greet
    head -c 300000 /dev/urandom >photo.jpg
}

# For the rows of "Coming from": cert.pem, key.pem and both.pem.
make_certificate() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3 -subj /CN=localhost -keyout key.pem -out cert.pem \
        -addext subjectAltName=DNS:localhost 2>"$T/openssl.err" || return
    cat cert.pem key.pem >both.pem
}

# A program that is hark but for its port, and says on $ready_fifo when it serves.
free_port_hark() {
    cat <<'END'
#!/bin/bash
words=()
for word; do
    case $previous in
        -p | --port) [ "$port" ] || word=0 port=given ;;
    esac
    [ "$word" != --ready-fd ] || exec "$HARK" "$@"
    words+=("$word")
    previous=$word
done
exec "$HARK" --ready-fd 9 "${words[@]}" 9>"$ready_fifo"
END
}

# ---- reading the documents ----

# recipe_names
recipe_names() {
    sed -n 's/^<!-- recipe: \(.*\) -->$/\1/p' "$ROOT/README.md"
}

# recipe NAME: its commands.
recipe() {
    readme_block "recipe: $1"
}

# rows: "INSTEAD<tab>COMMAND" of each row of "Coming from".
rows() {
    sed -n '/^## Coming from/,/^## /p' "$ROOT/README.md" | sed -nE 's/^\| (.*) \| `(hark .*)` \|$/\1\t\2/p'
}

# The examples of the manual, each in a file T/example.N.
examples() {
    sed -n '/^\.Sh EXAMPLES/,/^\.Sh SEE/p' "$ROOT/man/hark.1" |
        awk -v files="$T/example." '/^\.Ed/ { on = 0 } on { print > (files n) } /^\.Bd -literal/ { on = 1; n++ }'
    sed -i 's/\\-/-/g; s/\\(aq/'\''/g; s/\\e/\\/g; s/\\&//g' "$T"/example.*
}

# ---- running what they say ----

is_whole() { # COMMAND
    [[ "$1" != *\\ ]] && [ -z "$(bash -n <<<"$1" 2>&1)" ]
}

# With the ports that were free.
with_ports() { # COMMAND
    local named text=$1
    for named in "${!port_of[@]}"; do
        text=$(sed -E "s/(^|[^0-9])$named([^0-9]|\$)/\1${port_of[$named]}\2/g" <<<"$text")
    done
    printf '%s' "$text"
}

# run_server COMMAND: with $T/stdin and $T/stdout, if it does not say otherwise. Sets server (its pid) and LOG.
run_server() {
    local command named
    command=$(with_ports "$1")
    named=$(grep -oE -- '--?p(ort)? [0-9]+' <<<"$1" | head -n 1)
    export ready_fifo=$T/ready.$server_count
    LOG=$T/server.$server_count.log
    server_count=$((server_count + 1))
    mkfifo "$ready_fifo"
    [ -e "$T/stdin" ] || echo "from the server" >"$T/stdin"
    HARK_TEST_MARK=$MARK bash -c "$command" <"$T/stdin" >"$T/stdout" 2>"$LOG" 3>&- &
    server=$!
    background[server.$server_count]=$server
    mapfile -t READY < <(timeout "$DEADLINE" cat "$ready_fifo")
    [ ${#READY[@]} -gt 0 ] || fail "did not start: $command" || return
    [ -z "$named" ] || port_of[${named##* }]=${READY[0]##* }
}

run_client() { # COMMAND
    HARK_TEST_MARK=$MARK timeout "$DEADLINE" bash -c "$(with_ports "$1")" 2>>"$T/clients.err" 3>&-
}

# One that serves once has to end by itself, and in order.
end_of_once() { # SERVER-COMMAND
    [[ "$1" == *--once* ]] || return 0
    wait_for_exit "$server" || return
    equal "$STATUS" 0 "the exit status of: $1"
}

# One block of commands: in the order they have, to the end.
play_commands() { # FILE
    local line command='' last_server=''
    while IFS= read -r line <&4; do
        command+=${command:+$'\n'}$line
        is_whole "$command" || continue
        if [[ "$command" =~ (^|\ \|\ )hark\  ]]; then
            run_server "$command" || return
            last_server=$command
        else
            run_client "$command" || return
            end_of_once "$last_server" || return
            last_server=''
        fi
        command=''
    done 4< <(grep -v '^# -> ' "$1")
    [ -z "$command" ] || fail "never complete: $command"
}

# play FILE: runs a block, and compares what it prints.
play() {
    local result=0
    port_of=()
    if grep -q -- --ready-fd "$1"; then
        run_client "$(<"$1")" >"$T/printed" || result=$?
    else
        play_commands "$1" >"$T/printed" || result=$?
    fi
    [ "$result" -eq 0 ] || fail "ended with status $result" || return
    diff <(sed -n 's/^# -> //p' "$1") "$T/printed" || fail "< README or manual, > what it printed"
}

needed() {
    need nc netcat-openbsd
    need curl curl
    need openssl openssl
    need socat socat
    need busybox busybox
}

# ---- "Coming from" ----

# ask COMMAND: what a client gets that sends this script's stdin to where COMMAND serves, and ends its side.
ask() {
    local address=(127.0.0.1 "${READY[0]##* }")
    [[ "$1" =~ --unix\ ([^ ]+) ]] && address=(-U "${BASH_REMATCH[1]}")
    if [[ "$1" == *--ssl-cert* ]]; then
        timeout "$DEADLINE" socat - "OPENSSL:localhost:${READY[0]##* },cafile=cert.pem"
        return
    fi
    timeout "$DEADLINE" nc -N "${address[@]}"
}

# What each kind of command is to do with a client that sends "hello".
check_row() { # COMMAND
    case $1 in
        *' > file')
            ask "$1" <<<hello
            end_of_once "$1"
            eventually has_line file '^hello$'
            ;;
        *' < file')
            equal "$(ask "$1" </dev/null)" "in the file"
            end_of_once "$1"
            ;;
        *'stdio --once')
            equal "$(ask "$1" <<<hello)" "from the server"
            end_of_once "$1"
            equal "$(<"$T/stdout")" hello
            ;;
        *'read x; echo "got $x"'*) equal "$(ask "$1" <<<hello)" "got hello" ;;
        *'sort -r') equal "$(ask "$1" <<<$'a\nb' | xargs)" "b a" ;;
        *'wc -l <log'\') equal "$(ask "$1" <<<hello)" 1 ;;
        *'exec sh -x greet') equal "$(ask "$1" <<<Ann)" $'+ read -r name\n+ echo hello Ann\nhello Ann' ;;
        *discard) equal "$(ask "$1" <<<hello)" "" ;;
        *'exec date') match "$(ask "$1" <<<hello)" "$(date +%Y)" ;;
        *'exec cat' | *'--handler forward '* | 'hark --port '[0-9]* | *'--ssl-key key.pem') equal "$(ask "$1" <<<hello)" hello ;;
        *) fail "no check in readme.bats for: $1" ;;
    esac
}

# Where a row forwards to: an echo server stands for port 80 and for app.sock.
target_of_row() { # COMMAND
    case $1 in
        *'--handler forward '*':80') run_server 'hark --port 80' ;;
        *'--handler forward unix:app.sock') run_server 'hark --unix app.sock' ;;
        *'--handler forward '*':443') run_server 'hark --port 443 --ssl-cert both.pem' ;;
    esac
}

# A row with a --ready-fd of its own writes where it serves to its stdout.
run_row() { # COMMAND
    if [[ "$1" != *--ready-fd\ 1* ]]; then
        run_server "$1"
        return
    fi
    HARK_TEST_MARK=$MARK bash -c "$1" >"$T/row" 2>"$T/row.log" 3>&- &
    # shellcheck disable=SC2034,SC2154 # an array of lib.bash
    background[row]=$!
    eventually has_line "$T/row" '^127\.0\.0\.1 [0-9]+$' || return
    mapfile -t READY <"$T/row"
}

# What an option of a row adds.
check_options() { # COMMAND
    if [[ "$1" == *--verbose* ]]; then
        eventually has_line "$LOG" '^hark: accept '
    fi
    if [[ "$1" =~ --unix\ ([^ ]+)\ --unix-mode\ ([0-9]+) ]]; then
        equal "$(stat -c %a "${BASH_REMATCH[1]}")" "${BASH_REMATCH[2]}" "the mode"
    fi
}

play_row() { # COMMAND
    port_of=()
    rm -rf ./file ./*.sock
    echo "in the file" >file
    target_of_row "$1" || return
    run_row "$1" || return
    check_row "$1" || return
    check_options "$1"
}

# ---- tests ----

@test "readme: every block of commands but the first has a name, and every name is used once" {
    equal "$(grep -c '^```sh$' "$ROOT/README.md")" $((1 + $(recipe_names | wc -l)))
    equal "$(recipe_names | sort -u | wc -l)" "$(recipe_names | wc -l)"
    equal "$(grep -A 1 '^<!-- recipe: ' "$ROOT/README.md" | grep -c '^```sh$')" "$(recipe_names | wc -l)"
}

@test "readme: the first block is two commands, a line each, that need no answers" {
    sed -n '/^```/,/^```$/p; /^```$/q' "$ROOT/README.md" | sed '/^```/d' >"$T/first"
    equal "$(wc -l <"$T/first")" 2
    while IFS= read -r line; do
        bash -n <<<"$line"
        [[ "$line" == *"apt-get update && "*" DEBIAN_FRONTEND=noninteractive apt-get install -y "* ]]
    done <"$T/first"
    [[ "$(head -n 1 "$T/first")" == *"&& make && "* ]]
    [[ "$(tail -n 1 "$T/first")" == *"&& make check" ]]
}

@test "readme: the first command, from where packages are installed on" {
    sed -n '/^```sh$/{n;p;q}' "$ROOT/README.md" | sed 's/.* && make && //' >"$T/demo"
    cd "$T/work"
    ln -s "$HARK" hark
    run bash "$T/demo"
    equal "$status" 0
    [[ "$output" == *$'\nhello\n'* ]]
}

all_installed() { # WORDS FILE...
    local words=$1 package
    shift
    for package in $(sed -nE 's/^ *need(_module)? [a-z0-9._-]+ ([a-z0-9.+-]+)$/\2/p' "$@" | sort -u); do
        [[ " $words " == *" $package "* ]] || fail "not installed: $package" || return
    done
}

@test "readme: the test command installs all that tests ask for" {
    line=$(sed -n '/^```sh$/{n;n;p;q}' "$ROOT/README.md")
    all_installed "$line" "$ROOT"/tests/*.bats "$ROOT"/tests/*.bash
    # the long tests are not among what it runs, so that what is for them alone may be CI's
    all_installed "$line $(grep -A 1 'apt-get install' "$ROOT/.ci/run" | tr '\n' ' ')" "$ROOT"/tests/long/*.bats
}

@test "readme: every recipe prints what it says" {
    needed
    broken=()
    while IFS= read -r name <&5; do
        recipe "$name" >"$T/recipe"
        [ -s "$T/recipe" ]
        local options=${ASAN_OPTIONS:-}
        if grep -q -e ' --user ' "$T/recipe"; then
            ((EUID == 0)) || continue
            options=$NO_LEAK_CHECK
        fi
        echo "recipe: $name"
        ASAN_OPTIONS=$options play "$T/recipe" || broken+=("$name")
    done 5< <(recipe_names)
    equal "${#broken[@]}" 0 "the number of broken recipes (${broken[*]})"
}

@test "readme: every row of \"Coming from\" does what it says" {
    needed
    broken=()
    count=0
    while IFS=$'\t' read -r instead command <&5; do
        count=$((count + 1))
        echo "row: $instead: $command"
        play_row "$command" || broken+=("$command")
    done 5< <(rows)
    # as many as the table has, less its head
    equal "$count" $(($(sed -n '/^## Coming from/,/^## /p' "$ROOT/README.md" | grep -c '^|') - 2)) "the number of rows"
    equal "${#broken[@]}" 0 "the number of broken rows (${broken[*]})"
}

@test "readme: HAProxy and hark take what several machines are given" {
    need haproxy haproxy
    readme_block 'file: haproxy.cfg' >haproxy.cfg
    run haproxy -c -f haproxy.cfg
    equal "$status" 0
    # shellcheck disable=SC2046
    run_hark --check $(readme_block 'file: machine' | sed 's/^hark //')
    equal "$status" 0
}

# What the manifest has, one a line: the command's words from the eighth line on.
read_manifest() {
    readme_block 'file: hark.yaml' | "$PYTHON" -c 'import sys, yaml
deployment, service = yaml.safe_load_all(sys.stdin)
assert (deployment["kind"], service["kind"]) == ("Deployment", "Service")
pod = deployment["spec"]["template"]
[hark] = pod["spec"]["containers"]
for labels in (pod["metadata"]["labels"], service["spec"]["selector"]):
    assert labels == deployment["spec"]["selector"]["matchLabels"]
print(pod["spec"]["terminationGracePeriodSeconds"])
print(*hark["lifecycle"]["preStop"]["exec"]["command"])
print(hark["ports"][0]["containerPort"])
print(hark["readinessProbe"]["tcpSocket"]["port"])
print(service["spec"]["ports"][0]["port"])
print(hark["securityContext"]["runAsUser"])
print(hark["securityContext"]["capabilities"]["drop"])
print(*hark["command"], sep="\n")'
}

@test "readme: the manifest fits together, and its hark serves as pid 1 of a user without rights" {
    need_module yaml python3-yaml
    need setpriv util-linux
    read_manifest >"$T/manifest"
    local lines command
    mapfile -t lines <"$T/manifest"
    command=("${lines[@]:7}")
    run_hark "${command[@]:1}" --check
    equal "$status" 0
    match "${lines[1]}" '^sleep [0-9]+$'
    match "${command[*]}" '^hark --port ([0-9]+) .*--drain-timeout ([0-9]+)s$'
    local port=${BASH_REMATCH[1]} drain=${BASH_REMATCH[2]}
    ((lines[0] > ${lines[1]#sleep } + drain)) || fail "the pod is killed while it drains"
    equal "${lines[*]:2:3}" "$port $port $port" "the ports"
    equal "${lines[6]}" "['ALL']"
    permitted unshare -pf --mount-proc true
    # shellcheck disable=SC2034
    READY_LINES=1 # unshare keeps the descriptor
    # shellcheck disable=SC2034
    WRAPPER=(unshare -pf --kill-child=KILL --mount-proc setpriv --reuid "${lines[5]}" --clear-groups --bounding-set=-all --no-new-privs)
    serve "${command[@]:3}"
    run client "$PORT" exchange:1000
    equal "$output" "same 1000 eof"
    # the probe
    client "$PORT" close
    kill -TERM "$(pgrep -P "$HARK_PID")"
    wait_for_exit
    equal "$STATUS" 0
}

@test "readme: every file that it names is there" {
    for path in $(grep -oE '\]\([A-Z]+\.md\)' "$ROOT/README.md" | tr -d '])('); do
        [ -e "$ROOT/$path" ] || fail "no $path"
    done
    while IFS='|' read -r _ room words _; do
        room=$(tr -d ' `/' <<<"$room")
        for path in $(grep -oE '`[a-z_]+\.(c|def)`' <<<"$words" | tr -d '`'); do
            [ -e "$ROOT/$room/$path" ] || fail "no $room/$path"
        done
    done < <(sed -n '/^## The code/,$p' "$ROOT/README.md" | grep '^| `')
}

@test "readme: what is said of each version is said of the one there is" {
    run "$HARK" --version
    [[ "$output" =~ ^hark\ [0-9]+\.[0-9]+\.[0-9]+$ ]]
}

@test "manual: every example prints what it says" {
    needed
    examples
    broken=()
    for file in "$T"/example.*; do
        echo "example: $(<"$file")"
        play "$file" || broken+=("${file##*.}")
    done
    [ -e "$T/example.5" ]
    equal "${#broken[@]}" 0 "the number of broken examples (${broken[*]})"
}

@test "manual: README and manual name only options that there are" {
    "$HARK" --help | grep -oE -- '(^|[ ,])--[a-z][a-z0-9-]*' | tr -d ' ,' | sort -u >"$T/options"
    # those of hark in README: on lines with hark; in the manual: what is marked as a flag
    {
        grep -E '^hark |\| hark |`hark ' "$ROOT/README.md" | sed 's/.*hark //; s/ exec .*//' | grep -oE -- '--[a-z][a-z0-9-]*' || true
        grep -oE '`--[a-z-]+' "$ROOT/README.md" | tr -d '`'
        sed -n 's/^\.\(It \)*.*Fl -\([a-z0-9-]*\).*/--\2/p' "$ROOT/man/hark.1" | grep -v -- '^--$'
    } | sort -u >"$T/named"
    run comm -23 "$T/named" "$T/options"
    equal "$output" "" "what is no option"
}

@test "manual: mandoc finds nothing to complain about" {
    need mandoc mandoc
    run mandoc -Tlint -W warning "$ROOT/man/hark.1"
    equal "$output" ""
    equal "$status" 0
}
