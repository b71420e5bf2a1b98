#!/usr/bin/env bats
# Where hark listens: addresses, ports, unix sockets; how it says so; what cannot be listened on.
#
# shellcheck disable=SC2016,SC2030,SC2031,SC2034 # the dollar signs of other shells; variables of lib.bash

load lib

# refused_with REGEX: what run_hark has shown is one error line that says so, exit status 2, nothing on stdout.
refused_with() {
    equal "$status" 2 "the exit status"
    match "$output" "^hark: error: $1\$"
    equal "$(wc -l <"$T/err")" 1 "the number of lines"
    [ ! -s "$T/out" ]
}

@test "listen: a free port is the same for every address, and is said" {
    serve --bind 127.0.0.2
    equal "${#READY[@]}" 2
    equal "${READY[0]}" "127.0.0.1 $PORT"
    equal "${READY[1]}" "127.0.0.2 $PORT"
    ((PORT > 0))
    grep -qx "hark: listen address=127.0.0.1 port=$PORT handler=echo processes=1" "$LOG"
    grep -qx "hark: listen address=127.0.0.2 port=$PORT handler=echo processes=1" "$LOG"
    client "127.0.0.2:$PORT" echo:10
}

@test "listen: every address with every port, in the order of the command line" {
    start_hark --port 0 --bind 127.0.0.2 --unix "$T/a socket" --bind 127.0.0.1 --port 0
    local second=${READY[3]##* }
    equal "${#READY[@]}" 5
    equal "${READY[0]}" "127.0.0.2 $PORT"
    equal "${READY[1]}" "127.0.0.1 $PORT"
    equal "${READY[2]}" "unix $T/a socket"
    equal "${READY[3]}" "127.0.0.2 $second"
    equal "${READY[4]}" "127.0.0.1 $second"
    [ "$second" != "$PORT" ]
    client "127.0.0.2:$second" echo:10
    client "unix:$T/a socket" echo:10
    grep -qx "hark: listen path=\"$T/a socket\" handler=echo processes=1" "$LOG"
}

@test "listen: the default is every interface, IPv4 and IPv6 on one port" {
    start_hark --port 0
    client "127.0.0.1:$PORT" echo:10
    equal "${READY[0]}" "0.0.0.0 $PORT"
    if [ -e /proc/net/if_inet6 ]; then
        equal "${READY[1]}" ":: $PORT"
        client "[::1]:$PORT" echo:10
    fi
}

@test "listen: one family only" {
    [ -e /proc/net/if_inet6 ] || skip "no IPv6 here"
    start_hark --port 0 -4
    equal "${READY[*]}" "0.0.0.0 $PORT"
    refute client "[::1]:$PORT" echo:10
    start_hark --port 0 --ipv6
    equal "${READY[*]}" ":: $PORT"
    client "[::1]:$PORT" echo:10
    refute client "127.0.0.1:$PORT" echo:10
    start_hark --port 0 --bind ::
    equal "${READY[*]}" ":: $PORT"
    refute client "127.0.0.1:$PORT" echo:10
    start_hark --port 0 --bind '[::1]'
    equal "${READY[*]}" "::1 $PORT"
}

# in_namespace OPTION...: hark runs in a network namespace that netns.py has set up.
in_namespace() {
    permitted unshare -n "$PYTHON" -SE "$TESTS/netns.py" "$@" true
    WRAPPER=(unshare -n "$PYTHON" -SE "$TESTS/netns.py" "$@")
}

@test "listen: a free port is free on every address" {
    # of ten numbers, seven are taken on the second address
    in_namespace --ports 40000 40009 --occupy 127.0.0.2 40000 40006
    local i
    for i in 1 2 3 4; do
        start_hark --bind 127.0.0.1 --bind 127.0.0.2 --port 0
        equal "${READY[*]}" "127.0.0.1 $PORT 127.0.0.2 $PORT"
        ((PORT >= 40007))
    done
}

@test "listen: a kernel without IPv6 serves IPv4 by default" {
    [ -e /proc/net/if_inet6 ] || skip "no IPv6 here"
    # as containers have it: the family is there, and no address
    in_namespace --no-ipv6
    start_hark --port 0
    equal "${READY[0]}" "0.0.0.0 $PORT"
    # a name with an address that is not there: what containers make of localhost
    start_hark --port 0 --bind localhost
    equal "${READY[*]}" "127.0.0.1 $PORT"
}

@test "listen: a host name stands for its addresses" {
    start_hark --port 0 --bind localhost
    match "${READY[*]}" "127\.0\.0\.1 $PORT"
    client "$PORT" echo:10
    printf '127.0.0.1 several.test\n127.0.0.2 several.test\n' >"$T/hosts"
    permitted unshare -m mount --bind "$T/hosts" /etc/hosts
    WRAPPER=(unshare -m sh -c "mount --bind '$T/hosts' /etc/hosts && exec \"\$@\"" sh)
    start_hark --port 0 --bind several.test
    equal "${READY[*]}" "127.0.0.1 $PORT 127.0.0.2 $PORT"
}

@test "listen: --ready-fd 1 tells a script the address, and its reader sees the end" {
    spawn reader bash -c '"$HARK" -b 127.0.0.1 -p 0 --ready-fd 1 | { cat; echo end; }'
    wait_for_line reader '^end$'
    match "$(output_of reader)" '^127\.0\.0\.1 [0-9]+
end$'
    # as cli.md has it
    spawn script bash -c 'read -r addr port < <("$HARK" -b 127.0.0.1 -p 0 --ready-fd 1 2>/dev/null & echo $! >'"$T/pid"'); echo "$addr:$port"'
    wait_for_line script '^127\.0\.0\.1:[0-9]+$'
    kill "$(<"$T/pid")"
}

@test "listen: no process and no child keeps the ready descriptor" {
    # start_hark itself waits for the pipe's end
    serve --processes 2 --handler exec sh -c 'ls /proc/$$/fd; ls -l /proc/$PPID/fd'
    run client "$PORT" all
    refute grep -q ready <<<"$output"
    without_valgrind "it opens its log anew in a child"
    equal "${lines[*]:0:3}" "0 1 2"
}

@test "listen: a port that is taken" {
    serve
    run_hark --bind 127.0.0.1 --port "$PORT"
    refused_with "cannot listen on 127\.0\.0\.1 port $PORT: Address already in use"
    # and it is free once the first one has ended, even with connections that linger
    client "$PORT" exchange:10
    stop_hark
    start_hark --bind 127.0.0.1 --port "$PORT"
    client "$PORT" echo:10
}

@test "listen: a privileged port" {
    need setpriv util-linux
    [ "$(cat /proc/sys/net/ipv4/ip_unprivileged_port_start)" -gt 80 ] || skip "no privileged ports here"
    if [ "$(id -u)" = 0 ]; then
        cp "$HARK" "$T/hark"
        chmod 755 "$T" "$T/hark"
        status=0
        setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set -all -- "$HARK" --bind 127.0.0.1 --port 80 2>"$T/err" >"$T/out" || status=$?
        output=$(<"$T/err")
    else
        run_hark --bind 127.0.0.1 --port 80
    fi
    refused_with 'cannot listen on 127\.0\.0\.1 port 80: Permission denied.*'
}

@test "listen: hosts and addresses that cannot be" {
    run_hark --port 0 --bind no-such-host.invalid
    refused_with '.*no-such-host\.invalid.*'
    run_hark --port 0 --bind 203.0.113.77
    refused_with '.*203\.0\.113\.77 port 0: not an address of this machine.*'
    run_hark --port no-such-service
    refused_with '.*no-such-service.*'
}

@test "listen: --reuse-port shares a port with another hark, and nothing else does" {
    serve --reuse-port
    local first=$HARK_PID taken=$PORT
    run_hark --bind 127.0.0.1 --port "$taken"
    refused_with '.*Address already in use'
    start_hark --bind 127.0.0.1 --port "$taken" --reuse-port
    stop_hark
    HARK_PID=$first
    client "$taken" echo:10
}

@test "listen: a burst of 60 waits in the backlog, unless --backlog says otherwise" {
    serve
    kill -STOP "$HARK_PID"
    spawn_crowd burst "$PORT" burst 60 10 "$T/go"
    wait_for_line burst '^connected 60$'
    kill -CONT "$HARK_PID"
    touch "$T/go"
    finish burst

    serve --backlog 5
    kill -STOP "$HARK_PID"
    rm "$T/go"
    spawn_crowd burst "$PORT" burst 20 0.5 "$T/go"
    wait_for_line burst '^connected [0-9]+$'
    at_most "$(sed -n 's/^connected //p' "$T/burst")" 6 "those that are connected"
    touch "$T/go"
}

# ---- unix sockets ----

@test "unix: mode 0600 unless it is said, whatever the umask" {
    umask 077
    start_hark --unix "$T/a"
    equal "$(stat -c '%a %F' "$T/a")" "600 socket"
    start_hark --unix "$T/b" --unix-mode 666
    equal "$(stat -c %a "$T/b")" 666
    umask 000
    start_hark --unix "$T/c"
    equal "$(stat -c %a "$T/c")" 600
}

@test "unix: it is gone after TERM, INT and QUIT" {
    start_hark --unix "$T/s"
    stop_hark TERM
    [ ! -e "$T/s" ]
    start_hark --unix "$T/s"
    stop_hark INT 130
    [ ! -e "$T/s" ]
    start_hark --unix "$T/s" --processes 2
    stop_hark QUIT
    [ ! -e "$T/s" ]
    start_hark --unix "$T/s" --once
    client "unix:$T/s" echo:10
    wait_for_exit
    [ ! -e "$T/s" ]
}

@test "unix: a stale one is replaced" {
    start_hark --unix "$T/s"
    kill -KILL "$HARK_PID"
    wait_for_exit
    [ -S "$T/s" ]
    start_hark --unix "$T/s"
    client "unix:$T/s" echo:10
}

@test "unix: a live one is not touched" {
    start_hark --unix "$T/s"
    run_hark --unix "$T/s"
    refused_with "cannot listen on unix socket \"$T/s\": a server is listening on it"
    client "unix:$T/s" echo:10
    # nor one whose server does not come to accept
    spawn_client busy --never-accept --backlog 0 "listen:unix:$T/busy.sock"
    eventually test -S "$T/busy.sock"
    run_hark --unix "$T/busy.sock"
    refused_with ".*a server is listening on it"
    [ -S "$T/busy.sock" ]
}

@test "unix: what is no socket is not touched" {
    echo precious >"$T/file"
    run_hark --unix "$T/file"
    refused_with "cannot listen on unix socket \"$T/file\": the file is not a socket"
    equal "$(<"$T/file")" precious
    ln -s "$T/file" "$T/link"
    run_hark --unix "$T/link"
    refused_with ".*\"$T/link\".*"
    run_hark --unix "$T"
    refused_with ".*\"$T\".*"
}

@test "unix: paths that cannot be" {
    run_hark --unix "$T/$(printf '%0120d' 0)"
    refused_with '.*too long.*'
    run_hark --unix "$T/no/directory"
    refused_with ".*\"$T/no/directory\": No such file or directory"
}

@test "unix: another's socket in our place is left alone at exit" {
    start_hark --unix "$T/s"
    local first=$HARK_PID
    mv "$T/s" "$T/moved"
    start_hark --unix "$T/s"
    kill -TERM "$first"
    wait_for_exit "$first"
    client "unix:$T/s" echo:10
}

@test "unix: one that cannot be removed at the end, or looked at, is told of once, and changes nothing else" {
    need setpriv util-linux
    local mode processes d told
    d=$(mktemp -d) # where others than root come, too
    if [ "$(id -u)" -eq 0 ]; then
        WRAPPER=(setpriv --reuid 65534 --regid 65534 --clear-groups)
        chown 65534 "$d"
    fi
    for mode in 555 000; do
        for processes in 1 2; do
            start_hark --unix "$d/s" --unix "$d/other" --unix "@hark.$$.unremoved" --processes "$processes"
            rm "$d/other" # somebody else was faster
            chmod "$mode" "$d"
            stop_hark TERM 0
            chmod 755 "$d"
            rm "$d/s"
            told="hark: warning: cannot remove unix socket \"$d/s\": Permission denied"
            [ "$mode" = 555 ] || told+=$'\n'${told/\/s/\/other} # nobody can tell that it is gone
            equal "$(grep warning "$LOG")" "$told"
        done
    done
    rmdir "$d"
}

@test "unix: abstract" {
    start_hark --unix "@hark.$$.abstract"
    equal "${READY[*]}" "unix @hark.$$.abstract"
    client "unix:@hark.$$.abstract" echo:10
    run_hark --unix "@hark.$$.abstract"
    refused_with ".*Address already in use.*"
}

@test "listen: nothing is left behind when the second of two cannot be had" {
    serve
    run_hark --unix "$T/s" --bind 127.0.0.1 --port "$PORT"
    refused_with '.*Address already in use'
    [ ! -e "$T/s" ]
    run_hark --unix "$T/s" --unix "$T/no/directory"
    refused_with '.*No such file or directory'
    [ ! -e "$T/s" ]
}

@test "listen: descriptors 0 to 2 may be closed" {
    without_valgrind "its log takes the place of what is closed"
    serve -v 0<&- 1>&-
    client "$PORT" echo:10
    local fd
    for fd in 0 1; do
        equal "$(readlink "/proc/$HARK_PID/fd/$fd")" /dev/null "descriptor $fd"
    done
    # without a stderr: no log line goes to a client
    WRAPPER=(sh -c 'exec "$@" 0<&- 1>&- 2>&-' sh)
    serve -v
    run client "$PORT" echo:100000 end same
    equal "$output" "same 100000 eof"
    equal "$(readlink "/proc/$HARK_PID/fd/2")" /dev/null "descriptor 2"
}

@test "listen: --check binds nothing, and shows what would be logged" {
    serve
    run_hark --check --bind 127.0.0.1 --port "$PORT" --unix "$T/s" --processes 2
    equal "$status" 0
    equal "$output" "hark: listen address=127.0.0.1 port=$PORT handler=echo processes=2
hark: listen path=$T/s handler=echo processes=2"
    [ ! -e "$T/s" ]
    run_hark --check --bind 127.0.0.1 --port http
    grep -qx 'hark: listen address=127.0.0.1 port=80 handler=echo processes=1' <<<"$output"
    run_hark --check --port 0 --bind no-such-host.invalid
    refused_with '.*no-such-host\.invalid.*'
    run_hark --check --port 0 --handler forward no-such-host.invalid:80
    refused_with '.*no-such-host\.invalid.*'
    run_hark --check --bind 127.0.0.1 --port 0 --handler forward localhost:80
    equal "$status" 0
    run_hark --check --port 0 --handler exec no-such-program
    refused_with '.*no-such-program.*'
}

@test "listen: --interface: who comes by another one finds nobody" {
    permitted unshare -n test -w /dev/net/tun
    run timeout "$DEADLINE" unshare -n "$PYTHON" -SE "$TESTS/slow_client.py" "$HARK" -q --interface slow
    equal "$output" $'served\nstatus 0'
    run timeout "$DEADLINE" unshare -n "$PYTHON" -SE "$TESTS/slow_client.py" "$HARK" -q --interface lo --processes 2 --reuse-port
    equal "$output" "refused"
}
