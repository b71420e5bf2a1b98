#!/usr/bin/env bats
# The log: its grammar, in text and JSON; what is said when; what others write cannot forge it.
#
# shellcheck disable=SC1003,SC2016,SC2034 # backslashes and dollar signs of others; variables of lib.bash

load lib

# As cli.md has it: an event and key=value, quoted where needed; or a sentence.
word='[a-z_][a-z0-9_]*'
value='([!#-<>-\[^-~]|\]|=)*[^ "]|"([^"\\]|\\.)*"'
grammar="^hark: (error: .+|warning: .+|$word( $word=($value))+)\$"

one_of_each() { # OPTION...: events of all kinds that a running server has
    serve -v "$@" --handler exec sh -c 'read -r l; echo "line $l" >&2; [ "$l" != gone ]'
    client "$PORT" 'text:x\n' all
    client "$PORT" 'text:gone\n' all
    client "$PORT" reset
    wait_for_log 'close' 3
    stop_hark
}

@test "log: every text line follows the grammar" {
    one_of_each
    refute grep -vE "$grammar" "$LOG"
    match "$(head -n 1 "$LOG")" "^hark: listen address=127\.0\.0\.1 port=$PORT handler=exec processes=1\$"
    grep -qE '^hark: accept id=1 peer=127\.0\.0\.1:[0-9]+ local=127\.0\.0\.1:'"$PORT"'$' "$LOG"
    grep -qE '^hark: close id=1 peer=127\.0\.0\.1:[0-9]+ reason=child in=[0-9]+ out=[0-9]+ seconds=[0-9]+\.[0-9]{3} status=0( |$)' "$LOG"
    grep -qE '^hark: close id=2 .* status=1( |$)' "$LOG"
    grep -qx 'hark: stderr id=1 text="line x"' "$LOG"
    grep -qE '^hark: stop signal=TERM( |$)' "$LOG"
}

@test "log: every JSON line is one object with event and time, and the same keys" {
    one_of_each --log-format json
    python - "$LOG" "$PORT" <<-'PY'
		import json, re, sys
		events = [json.loads(line) for line in open(sys.argv[1])]
		for e in events:
		    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", e["time"]), e
		by = {}
		for e in events:
		    by.setdefault(e["event"], []).append(e)
		assert set(by) == {"listen", "accept", "close", "stderr", "stop"}, by.keys()
		assert by["listen"][0]["port"] == int(sys.argv[2]) and by["listen"][0]["handler"] == "exec"
		assert by["listen"][0]["address"] == "127.0.0.1" and by["listen"][0]["processes"] == 1
		assert set(by["accept"][0]) == {"event", "time", "id", "peer", "local"}
		assert set(by["close"][0]) == {"event", "time", "id", "peer", "reason", "in", "out", "seconds", "status"} | (set(by["close"][0]) & {"cpu", "maxrss_kib"})
		assert isinstance(by["close"][0]["seconds"], float) and by["close"][0]["reason"] == "child"
		assert by["stderr"][0]["text"] == "line x" and by["stderr"][0]["id"] == 1
	PY
}

# What a program could write to make trouble: other events, terminal sequences, broken UTF-8.
write_hostile() {
    printf 'quote " backslash \\ tab\tbell\a esc\033[31m del\177 c1\302\233 bad\377\200 nul\0 long\355\240\200 end \303\251 \342\202\254 \360\237\230\200 =x\n'
}

@test "log: what a child writes is escaped in text, and can be read back" {
    write_hostile >"$T/hostile"
    printf 'hark: error: forged\n\n"\n\\\n' >>"$T/hostile"
    serve --handler exec sh -c 'cat "$1" >&2' sh "$T/hostile"
    client "$PORT" all
    wait_for_log '^hark: stderr ' 5
    equal "$(grep -c . "$LOG")" 6 "the number of lines" # and listen
    refute grep -vE "$grammar" "$LOG"
    refute grep -qaP '[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]' "$LOG"
    refute grep -q '^hark: error' "$LOG"
    grep -qxF 'hark: stderr id=1 text="hark: error: forged"' "$LOG"
    grep -qxF 'hark: stderr id=1 text="\""' "$LOG"
    grep -qxF 'hark: stderr id=1 text="\\"' "$LOG"
    grep -F 'esc\x1b[31m' "$LOG" | grep -F 'tab\tbell\x07' | grep -F 'quote \"' | grep -F 'backslash \\' | grep -F 'del\x7f' |
        grep -F 'bad\xff\x80' | grep -F 'nul\x00' | grep -F 'é € 😀' | grep -qF 'c1\xc2\x9b'
}

@test "log: what a child writes is escaped in JSON, and can be read back" {
    write_hostile >"$T/hostile"
    printf '{"event":"error"}\n' >>"$T/hostile"
    serve --log-format json --handler exec sh -c 'cat "$1" >&2' sh "$T/hostile"
    client "$PORT" all
    wait_for_log '"event":"stderr"' 2
    python - "$LOG" <<-'PY'
		import json, sys
		lines = open(sys.argv[1], encoding="utf-8", errors="strict").read().splitlines()
		events = [json.loads(line) for line in lines]
		assert [e["event"] for e in events] == ["listen", "stderr", "stderr"]
		text = events[1]["text"]
		assert text.startswith('quote " backslash \\ tab\tbell\a esc\x1b[31m del\x7f c1'), ascii(text)
		assert text.endswith(' end \u00e9 \u20ac \U0001f600 =x'), ascii(text)
		assert "nul\0" in text, ascii(text)
		assert events[2]["text"] == '{"event":"error"}'
	PY
}

# Nothing that is not printable, no line that is none of hark's, and no forged one.
is_clean() { # GRAMMAR
    refute grep -qaP '[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]' "$LOG"
    refute grep -vE "$1" "$LOG"
    refute grep -E '^hark: (error|accept id=99)' "$LOG"
}

@test "log: names that clients and operators choose cannot forge a line: SNI, certificates, paths, PROXY headers" {
    need openssl openssl
    local evil=$'x\nhark: accept id=99 "\e[31m\302\233=1' format pattern
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -utf8 -subj "/CN=$evil" -keyout "$T/key" -out "$T/cert" 2>/dev/null
    for format in text json; do
        pattern=$([ $format = text ] && echo "$grammar" || echo '^\{"event":"[^"]*",.*\}$')
        start_hark -v --log-format $format --bind 127.0.0.1 --port 0 --unix "$T/$format$evil" --ssl-self-signed --ssl-ca "$T/cert" \
            --proxy-protocol 127.0.0.2 --max-accepts 1
        # a header whose words would be an address
        client --source 127.0.0.2 "$PORT" 'text:PROXY TCP4 192.0.2.7\nhark: accept id=99 198.51.100.1 1 2\r\n' count
        # refused, since it shows no certificate
        run timeout "$DEADLINE" openssl s_client -connect "127.0.0.1:$PORT" -servername "$evil" </dev/null
        wait_for_log 'reject' 2
        run timeout "$DEADLINE" openssl s_client -connect "127.0.0.1:$PORT" -servername "$evil" -cert "$T/cert" -key "$T/key" </dev/null
        wait_for_exit
        grep -qE 'sni"?[=:].*hark: accept id=99 .*client"?[=:].*hark: accept id=99 ' <(grep close "$LOG")
        [ "$(grep -c listen "$LOG")" -eq 2 ]
        is_clean "$pattern"
    done
}

@test "log: -q says errors and what children say, -v connections, nothing says neither" {
    serve -q --handler exec sh -c 'echo oops >&2'
    client "$PORT" all
    wait_for_log stderr
    stop_hark
    equal "$(<"$LOG")" 'hark: stderr id=1 text=oops'
    start_hark --port 0 -q --handler forward "unix:$T/nothing"
    client "$PORT" count
    wait_for_log '^hark: error: '
    stop_hark
    equal "$(wc -l <"$LOG")" 1
    serve
    client "$PORT" echo:10
    stop_hark
    equal "$(cut -d ' ' -f 2 "$LOG" | xargs)" "listen stop"
    serve -vv
    client "$PORT" echo:10
    wait_for_log '^hark: close '
    refute grep -vE "$grammar" "$LOG"
}

@test "log: a program that is open to everyone is not warned about under -q" {
    start_hark --port 0 -q --handler exec cat
    [ ! -s "$LOG" ]
}

@test "log: IPv6 stands in brackets, a unix peer tells who it is, a quoted path" {
    [ -e /proc/net/if_inet6 ] || skip "no IPv6 here"
    start_hark -v --bind ::1 --port 0 --unix "$T/with space"
    client "[::1]:$PORT" echo:10 close
    client "unix:$T/with space" echo:10 close
    wait_for_log '^hark: close ' 2
    grep -qE '^hark: accept id=1 peer=\[::1\]:[0-9]+ local=\[::1\]:'"$PORT"'$' "$LOG"
    grep -qE '^hark: accept id=2 peer=unix: pid=[0-9]+ uid='"$(id -u) gid=$(id -g) local="'"?unix:.*' "$LOG" || {
        grep -qE '^hark: accept id=2 peer=unix: pid=[0-9]+ uid='"$(id -u) gid=$(id -g)"'( |$)' "$LOG"
    }
    grep -qE '^hark: close id=2 peer=unix: pid=[0-9]+ uid=[0-9]+ gid=[0-9]+ reason=eof in=10 out=10 ' "$LOG"
    refute grep -vE "$grammar" "$LOG"
}

@test "log: errors are a message in JSON" {
    run_hark --log-format json --port 0 --handler no-such-handler
    equal "$status" 2
    python -c 'import json, sys; e = json.loads(sys.argv[1]); assert e["event"] == "error" and "no-such-handler" in e["message"] and e["time"]' "$output"
}

@test "log: a log that nobody reads, or that cannot be written, stops nothing" {
    mkfifo "$T/fifo"
    exec 5<>"$T/fifo"
    WRAPPER=(sh -c 'exec "$@" 2>/dev/full' sh)
    serve -v
    client "$PORT" echo:10
    WRAPPER=(bash -c 'exec "$@" 2> >(exec true)' bash)
    serve -v
    client "$PORT" echo:10
    client "$PORT" echo:10
    stop_hark
    exec 5>&-
}

@test "log: ids count connections" {
    serve -v
    crowd "$PORT" serial 3
    wait_for_log '^hark: close id=3 '
    equal "$(sed -n 's/^hark: accept id=\([0-9]*\) .*/\1/p' "$LOG" | xargs)" "1 2 3"
}

@test "log: -vv says more than -v: each serving process, and how much it takes" {
    serve -vv --max-connections 7
    has_line "$LOG" "^hark: process pid=$HARK_PID max_connections=7\$"
    stop_hark
    serve -v --max-connections 7
    refute has_line "$LOG" '^hark: process '
}
