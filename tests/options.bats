#!/usr/bin/env bats
# What is wrong with a command line, as its user sees it: one line that names it, exit status 2, and nothing started.

load lib

# bad REGEX ARGUMENT...
bad() {
    local regex=$1
    shift
    run_hark "$@"
    equal "$status" 2 "the exit status of: $*" &&
        match "$output" "^hark: error: .*$regex" &&
        equal "$(wc -l <"$T/err")" 1 "the number of lines" &&
        equal "$(wc -c <"$T/out")" 0 "the bytes on stdout"
}

@test "options: nothing to listen on" {
    bad 'nothing to listen on: .*--port'
    bad 'nothing to listen on: .*--port' --handler exec cat
    bad 'nothing to listen on: .*--port' -v
}

@test "options: unknown ones, with a near miss" {
    bad 'unknown option --prot .*did you mean --port\?' --prot 80
    bad 'unknown option --hadler .*did you mean --handler\?' -p 0 --hadler echo
    bad 'unknown option --por .*--port' --por 80
    bad 'unknown option --frobnicate' -p 0 --frobnicate
    bad 'unknown option -Z' -p 0 -Z
}

@test "options: what nc, ncat and tcpserver are used with is answered with what to type" {
    bad '-l .*type --port 8080' -l 8080
    bad '-l .*type -p' -lp 8080
    bad '-k ' -p 0 -k
    bad '-n ' -p 0 -n
    bad '-e: type --handler exec' -p 0 -e /bin/cat
    bad '-c: type --handler exec sh -c' -p 0 -c cat
    bad '-u: .*not UDP' -p 0 -u
    bad '-w: ' -p 0 -w 5
    bad '-i: ' -p 0 -i 5
    bad '-N ' -p 0 -N
    bad '-m: type --max-connections' -p 0 -m 5
    bad '--ssl: ' -p 0 --ssl
    bad '--allowfile: type --allow @FILE' -p 0 --allowfile x
    bad '--denyfile: type --deny @FILE' -p 0 --denyfile=x
    bad '--send-proxy-v2: type --send-proxy 2' -p 0 --send-proxy-v2
    bad '"8080": .*type --port 8080' 8080
    bad 'type --bind 127\.0\.0\.1 --port 8080' 127.0.0.1 8080
}

@test "options: numbers, ports, sizes and modes out of range or malformed" {
    bad 'option --port: "65536"' -p 65536
    bad 'option --port: "-1"' --port=-1
    bad 'option --port: "80x"' -p 80x
    bad 'option --port: ""' -p ''
    bad 'option --processes: "x"' -p 0 --processes x
    bad 'option --processes: "99999"' -p 0 --processes 99999
    bad 'option --processes: "-1"' -p 0 --processes -1
    bad 'option --max-connections: "1e3"' -p 0 --max-connections 1e3
    bad 'option --max-buffer-size: "1"' -p 0 --max-buffer-size 1
    bad 'option --max-buffer-size: "1x"' -p 0 --max-buffer-size 1x
    bad 'option --max-buffer-size: "99999999999G"' -p 0 --max-buffer-size 99999999999G
    bad 'option --unix-mode: "999"' -U "$T/s" --unix-mode 999
    bad 'option --log-format: "xml" .*text\|json' -p 0 --log-format xml
    bad 'option --backlog: ".*"' -p 0 --backlog 18446744073709551616
    bad 'option --bind: "1\.2\.3\.4:80"' -p 0 --bind 1.2.3.4:80
    bad 'option --ready-fd: ' -p 0 --ready-fd 77
    [ ! -e "$T/s" ]
}

@test "options: no number has a sign, a blank, a fraction or another base" {
    local number
    for number in '' ' ' ' 5' '5 ' '\+5' 0x5 1e3 nan inf 5.5 99999999999999999999999; do
        bad "option --max-rate: \"$number\"" -p 0 --max-rate "${number/\\/}"
        bad "option --port: \"$number\"" --port "${number/\\/}"
        bad "option --unix-mode: \"$number\"" -U "$T/s" --unix-mode "${number/\\/}"
        bad "option --max-buffer-size: \"${number}k\"" -p 0 --max-buffer-size "${number/\\/}k"
        bad "option --metrics: \"127.0.0.1:$number\"" -p 0 --metrics "127.0.0.1:${number/\\/}"
        bad "target \"h:$number\": " -p 0 --handler forward "h:${number/\\/}"
    done
    [ ! -e "$T/s" ]
}

@test "options: limits that are none" {
    local option
    for option in max-connections max-per-ip max-rate max-accepts; do
        bad "option --$option: \"-1\"" -p 0 --$option -1
        bad "option --$option: \"many\"" -p 0 --$option many
        bad "option --$option: \"1000000001\"" -p 0 --$option 1000000001
    done
    for option in exit-idle idle-timeout half-close-timeout max-lifetime drain-timeout; do
        bad "option --$option: \"5 s\" is not a time, such as" -p 0 --$option '5 s'
        bad "option --$option: \"-1s\"" -p 0 --$option -1s
        bad "option --$option: \"1d\"" -p 0 --$option 1d
    done
    local bad_time
    for bad_time in 0.0000001ms 0.5ms 0.0009 0.00000000000000000000000000000000000000001h; do
        bad "option --idle-timeout: \"$bad_time\" is less than 1ms, the shortest time there is \(0 is no limit\)$" -p 0 --idle-timeout $bad_time
    done
    for bad_time in '' ' 5' '5 ' +5 0x5 1e3 nan inf .5 5. 1.5.5 5S 99999999999; do
        bad "option --idle-timeout: \"${bad_time/+/\\+}\" is not a time" -p 0 --idle-timeout "$bad_time"
    done
    for bad_time in 0 0ms 0.0 1ms 0.001; do
        run_hark --check -p 0 --idle-timeout $bad_time
        equal "$status" 0
    done
    for option in 0 x '60,' '60,,' 60,10,6,1 60,0 60,10,128 32768 1.5 500ms 60,10,6s ,10; do
        bad "option --keepalive: \"$option\" is not IDLE" -p 0 --keepalive "$option"
    done
    bad 'option --interface: there is no network interface "eth99"' -p 0 --interface eth99
}

@test "options: a value that is missing, and one that is too many" {
    bad 'option --port needs a value' --port
    bad 'option --handler needs a value' -p 0 -H
    bad 'option --verbose takes no value' -p 0 --verbose=yes
}

@test "options: what could have no effect" {
    bad '--recv-only is for --handler stdio, not for echo' -p 0 --recv-only
    bad '--send-only is for --handler stdio' -p 0 -H exec --send-only cat
    bad '--bind has no effect without --port' -U "$T/s" --bind 127.0.0.1
    bad '--unix-mode has no effect without --unix' -p 0 --unix-mode 600
    bad '--unix-mode has no effect' -U @x --unix-mode 600
    bad '--reuse-port has no effect without --port' -U "$T/s" --reuse-port
    bad '--max-restarts has no effect' -p 0 --max-restarts 3
    bad '--recv-only and --send-only|--send-only and --recv-only' -p 0 -H stdio --recv-only --send-only
    bad '--ipv4 rules out --bind ::1' -p 0 -4 --bind ::1
    bad '--ipv6 rules out --bind 127\.0\.0\.1' -p 0 -6 --bind 127.0.0.1
    bad '--ipv4 and --ipv6' -p 0 -4 -6
    bad '--once needs --processes 1' -p 0 --once --processes 2
    bad 'stdio .*--processes 1' -p 0 -H stdio --processes 2
    bad '--max-connections has no effect' -p 0 -H stdio --max-connections 3
    bad 'ready-fd.*stdio' -p 0 -H stdio --ready-fd 1
    bad '--max-per-ip has no effect with stdio' -p 0 -H stdio --max-per-ip 3
    bad '--max-per-ip has no effect with --once' -p 0 --once --max-per-ip 3
    bad '--max-per-ip has no effect without --port' -U "$T/s" --max-per-ip 3
    bad '--keepalive has no effect without --port' -U "$T/s" --keepalive 60
    bad '--interface has no effect without --port' -U "$T/s" --interface lo
    bad '--max-accepts and --once' -p 0 --once --max-accepts 3
    bad '--idle-timeout does not work with --exec-io socket on unix' -U "$T/s" --idle-timeout 1s --exec-io socket -H exec cat
    bad '--half-close-timeout does not work with --exec-io socket on unix' -U "$T/s" --half-close-timeout 1s --exec-io socket -H exec cat
    [ ! -e "$T/s" ]
}

@test "options: handlers and their arguments" {
    bad '"ecko" .*did you mean echo' -p 0 -H ecko
    bad '"web" is not a handler .*echo.*stdio' -p 0 -H web
    bad 'echo takes none' -p 0 -H echo argument
    bad 'exec needs ' -p 0 -H exec
    bad 'forward needs ' -p 0 -H forward
    bad 'given twice' -p 0 -H forward 127.0.0.1:1 127.0.0.1:1
}

@test "options: targets that are malformed" {
    bad 'target "localhost"' -p 0 -H forward localhost
    bad 'target "localhost:"' -p 0 -H forward localhost:
    bad 'target ":80"' -p 0 -H forward :80
    bad 'target "localhost:0"' -p 0 -H forward localhost:0
    bad 'target "localhost:65536"' -p 0 -H forward localhost:65536
    bad 'target "::1:80"' -p 0 -H forward ::1:80
    bad 'target "\[::1\]"' -p 0 -H forward '[::1]'
    bad 'target "unix:"' -p 0 -H forward unix:
    bad 'target "unix:/[0]*0"' -p 0 -H forward "unix:/$(printf '%0120d' 0)"
    bad 'target "a b:80"' -p 0 -H forward 'a b:80'
}

@test "options: programs that cannot be run are said at start" {
    bad '"no-such-program": not found in PATH' -p 0 -H exec no-such-program
    bad "\"$T/missing\": No such file" -p 0 -H exec "$T/missing"
    echo '#!/bin/sh' >"$T/plain"
    bad "\"$T/plain\": no execute permission" -p 0 -H exec "$T/plain"
    bad "\"$T\": it is a directory" -p 0 -H exec "$T"
    printf '#!/no/such/interpreter\n' >"$T/script"
    chmod +x "$T/script"
    bad '"/no/such/interpreter"' -p 0 -H exec "$T/script"
    bad 'the program.s name is empty' -p 0 -H exec ''
}

@test "options: end at the first word that is none; -- may stand there" {
    serve -H exec echo -v --handler
    run client "$PORT" all
    equal "$output" "-v --handler"
    serve -H exec -- echo -- -v
    run client "$PORT" all
    equal "$output" "-- -v"
}

@test "options: --name=VALUE, letters together, the last of two counts" {
    start_hark --bind=127.0.0.1 -p0 --handler discard -vvHecho --log-format=json --log-format=text
    client "$PORT" echo:10
    wait_for_log '^hark: accept '
}

@test "options: --help and --version go to stdout" {
    run_hark --help
    equal "$status" 0
    [ -z "$output" ]
    grep -q -- '--handler' "$T/out"
    run_hark -V
    equal "$status" 0
    match "$(<"$T/out")" '^hark [0-9]+\.[0-9]+'
    equal "$(wc -l <"$T/out")" 1
}

@test "options: what is shown of a hostile argument is escaped" {
    run_hark -p 0 -H $'a\nhark: error: forged\e[31m'
    equal "$status" 2
    equal "$(wc -l <"$T/err")" 1
    refute grep -q $'\e' "$T/err"
}

@test "options: --help to a full disk fails" {
    status=0
    "$HARK" --help >/dev/full || status=$?
    equal "$status" 1
}

@test "options: a default may be said, and changes nothing" {
    serve --log-format text --exec-io auto --handler exec readlink /proc/self/fd/0
    match "$(client "$PORT" end all)" '^socket:'
    has_line "$LOG" '^hark: listen address='
}
