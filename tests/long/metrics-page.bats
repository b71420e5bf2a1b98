#!/usr/bin/env bats
# The page of --metrics in a browser: it shows what there is.
#
# shellcheck disable=SC2030,SC2031,SC2034,SC2153,SC2154 # variables of lib.bash

load ../lib

# browse ADDRESS: the page as it is after its scripts have run for some seconds, in $T/page.
browse() {
    timeout 100 chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
        --disable-component-update --disable-sync --user-data-dir="$(mktemp -d "$T/browser.XXXXXX")" --virtual-time-budget=6000 \
        --enable-logging=stderr --dump-dom "$1" >"$T/page" 2>"$T/browser" 3>&-
}

shows() { # ID TEXT: an element's content
    grep -qE "id=\"$1\"[^>]*>$2<" "$T/page" || fail "$1 is not \"$2\": $(grep -o "id=\"$1\"[^>]*>[^<]*<" "$T/page")"
}

row() { # NAME VALUE: of a list of both
    grep -qF "<dt>$1</dt><dd>$2</dd>" "$T/page" || fail "no row \"$1\" \"$2\": $(grep -oE '<dt>[^<]*</dt><dd>[^<]*' "$T/page")"
}

@test "page: the numbers of a known load are shown, and nothing is wrong in the browser" {
    need chromium chromium
    serve
    local target=$PORT
    serve --metrics 0 --processes 2 --max-connections 1234 --max-per-ip 77 --idle-timeout 5m --handler forward "127.0.0.1:$target" 'unix:/<b>none'
    local web
    web=$(sed -n 's/^hark: metrics address=.* port=//p' "$LOG")
    crowd "$PORT" serial 20
    spawn_client one "$PORT" echo:5000 say:held hold:"$T/go" end same
    wait_for_line one held
    eventually bash -c "curl -s http://127.0.0.1:$web/metrics | grep -qx 'hark_received_bytes_total 5320'"
    browse "http://localhost:$web/"
    shows connections 1
    shows limit 1,234
    shows accept-rate 0
    row Accepted 21
    row Rejected 0
    row 'From one address' 77
    row Idle '5 min'
    row 'Bytes from clients' '5.2&nbsp;KiB'
    grep -qE '<li( class="")?><span title="[^"]*">127.0.0.1:[0-9]+</span><b>up</b><small>1 connection</small><small></small>' "$T/page"
    grep -qE '<span title="[^"]*">unix:/&lt;b&gt;none</span><b>down</b><small>0 connections</small><small>again (in [0-9]+ s|with the next client)<' "$T/page"
    grep -qE '<td class="text">127.0.0.1:[0-9]+</td>' "$T/page"
    grep -qE '<path class="curve one" d="M[0-9.]+ [0-9.]+L' "$T/page"
    grep -qF '<b>forward</b> on 127.0.0.1:' "$T/page"
    refute grep -qE 'CONSOLE.*(Refused|Error|violates)' "$T/browser"
    touch "$T/go"
    finish one
    stop_hark
}
