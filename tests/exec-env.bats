#!/usr/bin/env bats
# exec: the surroundings of a program: environment, directory, descriptor limit.
#
# shellcheck disable=SC2016,SC2030,SC2031,SC2034,SC2154 # dollar signs of programs; variables of lib.bash

load lib

# variables LINES NAME...: the lines of these variables
variables() {
    local all=$1 name
    shift
    for name; do
        grep "^$name=" <<<"$all"
    done
}

STALE=(PROTO=x TCPLOCALIP=x TCPLOCALPORT=x TCPLOCALHOST=x TCPREMOTEIP=x TCPREMOTEPORT=x TCPREMOTEHOST=x TCPREMOTEINFO=x
    TCPCONNNUM=x SSLLOCALIP=x SSLLOCALPORT=x SSLREMOTEIP=x SSLREMOTEPORT=x REMOTE_ADDR=x REMOTE_PORT=x REMOTE_HOST=x HARK_ID=x
    UNIXLOCALPATH=x UNIXREMOTEPID=x UNIXREMOTEEUID=x UNIXREMOTEEGID=x SSL_PROTOCOL=x SSL_CIPHER=x SSL_TLS_SNI=x SSL_ALPN=x
    SSL_CLIENT_VERIFY=x SSL_CLIENT_S_DN=x SSL_CLIENT_I_DN=x SSL_CLIENT_M_SERIAL=x SSL_CLIENT_CERT=x
    LISTEN_FDS=1 LISTEN_PID=1 LISTEN_FDNAMES=x LISTEN_PIDFDID=1 LISTEN_X=1 NOTIFY_SOCKET=/nowhere WATCHDOG_PID=1 WATCHDOG_USEC=1
    WATCHDOG_X=1 FDSTORE=1)

# What is only like a stale name, and stays.
KEPT=(A_PROTO=1 PROTOCOL=1 SSL_CERT_FILE=1 LISTENER=1 TCP=1 REMOTE_ADDRESS=1 HARK_IDS=1 WATCHDOG=1 NOTIFY_SOCKETS=1 EMPTY=)

kept() {
    printf '%s\n' "${KEPT[@]}" PATH="$PATH"
}

environment_of_tcp() {
    start_hark -v --exec-io "$IO" --bind 127.0.0.1 --bind ::1 --port 0 --handler exec env
    local address text number=0
    for address in 127.0.0.1 ::1; do
        number=$((number + 1))
        text=$address
        [ "$address" = ::1 ] && text="[::1]"
        run client "$text:$PORT" all
        local remote
        remote=$(grep -F "accept id=$number peer=$text:" "$LOG" | sed 's/ local=.*//; s/.*://')
        equal "$(sort <<<"$output")" "$( (
            kept
            printf '%s\n' PROTO=TCP TCPLOCALIP=$address TCPLOCALPORT="$PORT" TCPREMOTEIP=$address TCPREMOTEPORT="$remote" \
                REMOTE_ADDR=$address REMOTE_PORT="$remote" TCPCONNNUM=1 HARK_ID=$number
        ) | sort)" "the environment"
    done
}

@test "exec env: over IPv4 and IPv6; stale variables are gone, names like theirs stay" {
    without_valgrind "its own variables are inherited"
    [ -e /proc/net/if_inet6 ] || skip "no IPv6 here"
    WRAPPER=(env -i PATH="$PATH" "${STALE[@]}" "${KEPT[@]}")
    in_both environment_of_tcp
}

environment_of_unix() { # SOCKET
    start_hark -v --exec-io "$IO" --unix "$1" --handler exec env
    spawn peer bash -c 'echo $$; exec "$@"' bash "$PYTHON" -SE "$TESTS/client.py" "unix:$1" all
    finish peer
    equal "$(tail -n +2 "$T/peer" | sort)" "$( (
        kept
        printf '%s\n' PROTO=UNIX UNIXLOCALPATH="$1" UNIXREMOTEPID="$(head -n 1 "$T/peer")" UNIXREMOTEEUID="$(id -u)" \
            UNIXREMOTEEGID="$(id -g)" HARK_ID=1
    ) | sort)" "the environment"
    stop_hark
}

@test "exec env: over unix sockets" {
    without_valgrind "its own variables are inherited"
    WRAPPER=(env -i PATH="$PATH" "${STALE[@]}" "${KEPT[@]}")
    in_both environment_of_unix "$T/s"
    in_both environment_of_unix "@hark.$$.$RANDOM"
    # as long a path as there can be
    local long="$T/"
    while [ ${#long} -lt 107 ]; do long+=x; done
    [ ${#long} -gt 107 ] || in_both environment_of_unix "$long"
}

@test "exec env: warm programs have none of it, not even what hark inherited" {
    without_valgrind "its own variables are inherited"
    WRAPPER=(env -i PATH="$PATH" "${STALE[@]}" "${KEPT[@]}")
    serve --warm 1 --handler exec sh -c 'read -r line; exec env -u PWD -u OLDPWD'
    eventually pgrep -P "$HARK_PID"
    run client "$PORT" 'text:\n' all
    equal "$(sort <<<"$output")" "$(kept | sort)"
}

@test "exec env: --setenv adds and replaces, and of one name the last counts" {
    WRAPPER=(env -i PATH="$PATH" GIVEN=inherited OTHER=stays PREFIX=1)
    serve --setenv GIVEN=first --setenv NEW=a=b --setenv GIVEN=second --setenv "EMPTY=" --setenv "SPACES= a  b " --setenv PREF=2 \
        --handler exec env
    run client "$PORT" all
    equal "$(variables "$output" GIVEN NEW OTHER EMPTY SPACES PREFIX PREF)" \
        $'GIVEN=second\nNEW=a=b\nOTHER=stays\nEMPTY=\nSPACES= a  b \nPREFIX=1\nPREF=2'
    equal "$(cut -d = -f 1 <<<"$output" | sort | uniq -d)" "" "names that are there twice"
}

@test "exec env: --setenv cannot replace what the connection says" {
    run_hark --check --port 0 --handler exec --setenv REMOTE_ADDR=192.0.2.1 cat
    [ "$status" -ne 2 ] || return 0 # refused: as good
    serve --setenv REMOTE_ADDR=192.0.2.1 --setenv PROTO=FALSE --handler exec sh -c 'echo "$REMOTE_ADDR $PROTO"; tr "\0" "\n" </proc/$$/environ'
    run client "$PORT" all
    equal "${lines[0]}" "127.0.0.1 TCP" "what a shell sees"
    equal "$(cut -d = -f 1 <<<"$output" | sort | uniq -d)" "" "names that are there twice"
}

@test "exec env: --setenv: what is not NAME=VALUE is refused at start" {
    local word
    for word in "" NAME =value =; do
        run_hark --port 0 --bind 127.0.0.1 --handler exec --setenv "$word" cat
        equal "$status" 2 "the exit status of --setenv \"$word\""
        match "$output" "^hark: error: option --setenv: \"$word\" is not NAME=VALUE"
    done
    run_hark --port 0 --bind 127.0.0.1 --handler echo --setenv A=B
    equal "$status" 2
}

@test "exec env: --clear-env leaves the connection's variables and those of --setenv" {
    WRAPPER=(env GIVEN=inherited)
    serve --clear-env --setenv ONLY=this --handler exec env
    run client "$PORT" all
    equal "$(cut -d = -f 1 <<<"$output" | sort | xargs)" \
        "HARK_ID ONLY PROTO REMOTE_ADDR REMOTE_PORT TCPCONNNUM TCPLOCALIP TCPLOCALPORT TCPREMOTEIP TCPREMOTEPORT"
    # the program was found with the PATH that hark has
    serve --clear-env --handler shell 'echo "<$GIVEN>"'
    run client "$PORT" all
    equal "$output" "<>"
}

connections_are_counted() {
    serve -v --exec-io "$IO" --handler exec sh -c 'echo "$TCPCONNNUM"; cat'
    local name
    for name in a b c; do
        spawn_client "$name.$IO" "$PORT" line hold:"$T/go.$name.$IO" end all
        wait_for_line "$name.$IO" '[0-9]'
    done
    equal "$(cat "$T/a.$IO" "$T/b.$IO" "$T/c.$IO" | xargs)" "1 2 3"
    # another address counts by itself
    run python -c 'import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10, ("127.0.0.9", 0))
print(s.recv(100).decode())' "$PORT"
    equal "$output" 1
    # one leaves
    touch "$T/go.b.$IO"
    finish "b.$IO"
    wait_for_log '^hark: close id=2 '
    run client "$PORT" line end all
    equal "$output" 3
    touch "$T/go.a.$IO" "$T/go.c.$IO"
    wait_for_log '^hark: close ' 5
    run client "$PORT" line end all
    equal "$output" 1
}

@test "exec env: TCPCONNNUM counts the connections there are from an address" {
    in_both connections_are_counted
}

with_directory() {
    serve --exec-io "$IO" --chdir "$1" --handler exec sh -c 'pwd; exec "$0"' ./program
    run client "$PORT" all
    equal "$output" "$2"$'\nin there'
    serve --exec-io "$IO" --chdir "$1" --handler exec ./program
    run client "$PORT" all
    equal "$output" "out here" "what is run"
}

@test "exec env: --chdir: where the program runs; the program itself is looked up before" {
    mkdir "$T/sub"
    printf '#!/bin/sh\necho out here\n' >"$T/program"
    printf '#!/bin/sh\necho in there\n' >"$T/sub/program"
    chmod +x "$T/program" "$T/sub/program"
    cd "$T"
    in_both with_directory "$T/sub" "$T/sub"
    in_both with_directory sub "$T/sub"
    serve --chdir / --warm 1 --handler exec sh -c 'read -r line; pwd'
    run client "$PORT" 'text:\n' all
    equal "$output" /
    serve --chdir sub --handler shell 'pwd; ./program'
    run client "$PORT" all
    equal "$output" "$T/sub"$'\nin there'
    equal "$(readlink "/proc/$HARK_PID/cwd")" "$(pwd -P)" "hark's own directory"
}

@test "exec env: --chdir: a program found through a relative or empty part of PATH" {
    mkdir "$T/bin"
    printf '#!/bin/sh\npwd\n' >"$T/bin/where"
    chmod +x "$T/bin/where"
    local path
    for path in "bin:$PATH" "../${T##*/}/bin:$PATH"; do
        cd "$T"
        WRAPPER=(env PATH="$path")
        serve --chdir / --handler exec where
        run client "$PORT" all
        equal "$output" / "where it runs"
    done
    for path in ":$PATH" "$PATH:" .; do
        cd "$T/bin"
        WRAPPER=(/usr/bin/env PATH="$path")
        serve --chdir / --handler exec where
        run client "$PORT" all
        equal "$output" / "where it runs"
    done
}

@test "exec env: --chdir: what is missing, or no directory, is refused at start" {
    touch "$T/file"
    run_hark --port 0 --bind 127.0.0.1 --handler exec --chdir "$T/missing" cat
    equal "$status" 2
    match "$output" "^hark: error: option --chdir: \"$T/missing\": No such file or directory\$"
    run_hark --port 0 --bind 127.0.0.1 --handler exec --chdir "$T/file" cat
    equal "$status" 2
    match "$output" "^hark: error: option --chdir: \"$T/file\" is not a directory\$"
    run_hark --port 0 --bind 127.0.0.1 --handler exec --chdir "" cat
    equal "$status" 2
}

directory_vanishes() {
    mkdir "$T/dir"
    serve -v --exec-io "$IO" --chdir "$T/dir" --handler exec echo there
    run client "$PORT" all
    equal "$output" there
    rmdir "$T/dir"
    run client "$PORT" count
    match "$output" '^0 '
    wait_for_log '^hark: close id=2 .* reason=error '
    equal "$(grep -c '^hark: error: ' "$LOG")" 1 "the number of error lines"
    match "$(grep '^hark: error: ' "$LOG")" 'No such file or directory$'
    # it is the directory that is missing, and a user has to be able to tell
    match "$(grep '^hark: error: ' "$LOG")" "$T/dir"
    mkdir "$T/dir"
    run client "$PORT" all
    equal "$output" there
    rmdir "$T/dir"
}

@test "exec env: --chdir: a directory that vanishes is an error at the connection, said as that, and hark goes on" {
    without_valgrind "its vfork is a fork: the child cannot tell us"
    in_both directory_vanishes
}

limited() {
    ulimit -Sn 300
    serve "$@" --handler exec sh -c 'read -r line; ulimit -Sn; ulimit -Hn'
}

@test "exec env: the descriptor limit is the one that hark was started with" {
    without_valgrind "it keeps limits to itself"
    local mode hard
    hard=$(ulimit -Hn)
    for mode in --exec-io=socket --exec-io=pipe --warm=1; do
        (
            limited "$mode"
            run client "$PORT" 'text:\n' all
            equal "$output" $'300\n'"$hard" "$mode"
            stop_hark
        )
    done
}
