#!/usr/bin/env bats
# Each direction ends by itself, nothing that was sent is lost, and a reset is passed on as what it is.
#
# shellcheck disable=SC2016,SC2034,SC2153 # dollar signs of others; variables of lib.bash

load lib

# forward_to STEP...: hark, forwarding to a server of one connection that takes these steps.
forward_to() {
    spawn_target --seed 2 listen "$@"
    serve -v --max-buffer-size 64k --handler forward "127.0.0.1:$TARGET_PORT"
}

# ---- ends ----

@test "half-close: echo sends back what is still queued when the end comes" {
    serve -v --max-buffer-size 64k
    # all of it is sent, and the end too, before anything is read
    run client --rcvbuf 4096 "$PORT" send:300000 end say:sent slow:8192:0.002 same
    equal "$output" $'sent\nsame 300000 eof'
    wait_for_log ' reason=eof in=300000 out=300000 '
}

@test "half-close: exec: the answer comes after the end, all of it, to a slow reader" {
    serve -v --handler exec sh -c 'cat >"$1/request"; sleep 0.3; cat "$1/request"; echo end >&2' sh "$T"
    run client --rcvbuf 4096 "$PORT" send:300000 end say:sent slow:8192:0.002 same
    equal "$output" $'sent\nsame 300000 eof'
    wait_for_log ' reason=child .* status=0( |$)'
}

@test "half-close: exec: a program that ends its output first goes on reading" {
    serve -v --handler exec sh -c 'echo first; exec >/dev/null; wc -c >&2'
    run client "$PORT" line send:200000 end count
    equal "$output" $'first\n0 eof'
    wait_for_log 'stderr id=1 text=200000$'
}

@test "half-close: forward: the client ends, the target answers late" {
    forward_to count text:answer end close
    run client "$PORT" send:300000 end all
    equal "$output" answer
    finish target
    equal "$(tail -n 1 "$T/target")" "300000 eof"
    wait_for_log ' reason=eof in=300000 out=6 '
}

@test "half-close: forward: the client ends with data queued for a slow target" {
    spawn_target --rcvbuf 4096 listen hold:"$T/go" slow:16384:0.001 same text:done
    serve -v --max-buffer-size 64k --handler forward "127.0.0.1:$TARGET_PORT"
    spawn_client peer "$PORT" send:300000 end say:sent all
    wait_for_line peer sent
    touch "$T/go"
    finish peer
    equal "$(output_of peer)" $'sent\ndone'
    finish target
    # the target has sent nothing yet, so it compares with nothing: what counts is how much
    match "$(tail -n 1 "$T/target")" '^same 300000 eof$'
}

@test "half-close: forward: the target ends first, the client goes on" {
    forward_to text:hello end count
    run client "$PORT" recv:0 hold:"$T/target" send:100 count
    equal "$output" "5 eof"
    # a client that had stopped reading could not have sent this
    finish target
    equal "$(tail -n 1 "$T/target")" "100 eof"
}

@test "half-close: forward: the target ends first, and the client sends for as long as it likes" {
    forward_to text:hello end count
    run client "$PORT" all send:500000 end
    equal "$output" hello
    finish target
    equal "$(tail -n 1 "$T/target")" "500000 eof"
    wait_for_log ' in=500000 out=5 '
}

@test "half-close: forward: the target ends with data queued for a slow client" {
    forward_to send:300000 end count
    run client --rcvbuf 4096 "$PORT" slow:16384:0.001 both:10
    equal "$output" "same 300000 eof"
    finish target
    equal "$(tail -n 1 "$T/target")" "10 eof"
}

@test "half-close: forward: both at once, large, in both directions" {
    spawn_target --seed 2 --other 1 listen both:2000000
    serve -v --max-buffer-size 64k --handler forward "127.0.0.1:$TARGET_PORT"
    spawn_client peer --seed 1 "$PORT" both:2000000
    finish peer
    equal "$(output_of peer)" "same 2000000 eof"
    wait_for_log ' in=2000000 out=2000000 '
}

@test "half-close: forward over unix sockets" {
    spawn_target "listen:unix:$T/t" count text:answer
    start_hark -v --unix "$T/s" --handler forward "unix:$T/t"
    run client "unix:$T/s" send:300000 end all
    equal "$output" answer
    finish target
    equal "$(tail -n 1 "$T/target")" "300000 eof"
}

@test "half-close: two harks in a row" {
    serve --handler exec sh -c 'cat >/dev/null; sleep 0.2; echo late'
    serve --handler forward "127.0.0.1:$PORT"
    serve --handler forward "127.0.0.1:$PORT"
    run client "$PORT" send:100000 end all
    equal "$output" late
}

# ---- resets ----

@test "reset: echo notices it at once, reading or not" {
    serve -v --max-buffer-size 64k
    client "$PORT" send:1000 reset
    wait_for_log 'close id=1 .* reason=reset '
    spawn_client stuck --rcvbuf 4096 "$PORT" fill:0.3 reset
    finish stuck
    wait_for_log 'close id=2 .* reason=reset '
}

@test "reset: forward: the client's reaches the target, not dressed as an end" {
    forward_to count
    client "$PORT" send:1000 reset
    finish target
    match "$(tail -n 1 "$T/target")" '^[0-9]+ reset$'
    wait_for_log ' reason=reset '
}

@test "reset: forward: the client's reaches a target that never reads" {
    forward_to say:stuck hangup
    spawn_client peer "$PORT" fill:0.3 reset
    finish peer
    finish target
    equal "$(tail -n 1 "$T/target")" reset
    wait_for_log ' reason=reset '
}

@test "reset: forward: the client's reaches a target that sends, and whose bytes the client never read" {
    forward_to fill:0.3 hangup
    spawn_client peer --rcvbuf 4096 "$PORT" hold:"$T/go" reset
    wait_for_line target '^filled'
    touch "$T/go"
    finish peer
    finish target
    equal "$(tail -n 1 "$T/target")" reset
    wait_for_log ' reason=reset '
}

@test "reset: forward: a client that closes with bytes unread resets, and the target learns it" {
    forward_to fill:0.3 hangup
    spawn_client peer --rcvbuf 4096 "$PORT" hold:"$T/go" close
    wait_for_line target '^filled'
    touch "$T/go"
    finish target
    equal "$(tail -n 1 "$T/target")" reset
}

@test "reset: forward: the target's reaches the client" {
    forward_to recv:0 text:some reset
    spawn_client peer "$PORT" count
    finish peer
    match "$(output_of peer)" '^[0-9]+ reset$'
    wait_for_log ' reason=reset '
}

@test "reset: forward: the target's reaches a client that never reads" {
    forward_to fill:0.3 hold:"$T/go" reset
    spawn_client peer --rcvbuf 4096 "$PORT" say:stuck hangup
    wait_for_line target '^filled'
    touch "$T/go"
    finish peer
    equal "$(tail -n 1 "$T/peer")" reset
    wait_for_log ' reason=reset '
}

@test "reset: forward: the target's reaches a client that never stops sending" {
    forward_to hold:"$T/go" reset
    spawn_client peer --rcvbuf 4096 "$PORT" fill:0.3 hangup
    wait_for_line peer '^filled'
    touch "$T/go"
    finish peer
    equal "$(tail -n 1 "$T/peer")" reset
    wait_for_log ' reason=reset '
}

@test "reset: forward: after the client's end the target's reset is still a reset" {
    forward_to count reset
    run client "$PORT" send:1000 end count
    equal "$output" "0 reset"
    finish target
    equal "$(tail -n 1 "$T/target")" "1000 eof"
}

@test "reset: forward: after the client's end its reset still reaches the target" {
    forward_to count say:ended hangup
    spawn_client peer "$PORT" send:1000 end hold:"$T/go" reset
    wait_for_line target ended
    touch "$T/go"
    finish target
    equal "$(tail -n 1 "$T/target")" reset
}

@test "reset: forward: what the target had sent and ended is delivered, though it resets afterwards" {
    forward_to send:200000 end hold:"$T/go" reset
    spawn_client peer --seed 2 --rcvbuf 4096 "$PORT" recv:10 say:begun hold:"$T/go" slow:16384:0.001 count
    wait_for_line peer begun
    # hark has seen the target's end once everything is in the kernel's hands or its own
    wait_for_line target accepted
    touch "$T/go"
    finish peer
    match "$(tail -n 1 "$T/peer")" '^199990 (eof|reset)$'
}

@test "reset: exec: the child finds it as an error, not as an end" {
    serve -v --handler exec sh -c 'cat >/dev/null; echo "cat: $?" >&2'
    client "$PORT" send:1000 reset
    wait_for_log '^hark: stderr id=1 text="cat: 1"$'
    wait_for_log '^hark: close id=1 .* reason=reset '
}

@test "reset: exec: a group whose client has reset gets TERM after 5 s, though it never reads" {
    serve -v --handler exec sh -c 'echo ready; sleep 1000; echo not reached'
    client "$PORT" line fill:0.3 reset
    wait_for_log '^hark: close id=1 .* reason=reset .* signal=15( |$)'
    match "$(sed -n 's/.* seconds=\([0-9]*\)\..*/\1/p' "$LOG")" '^[5-7]$'
    eventually none_marked sleep
}

@test "reset: exec: a client that ended in order is no reason to end the child" {
    serve -v --kill-after 500ms --handler exec sh -c 'cat >/dev/null; sleep 1.5; echo late'
    run client "$PORT" end all
    equal "$output" late
}
