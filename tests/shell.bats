#!/usr/bin/env bats
# shell, and programs that cannot be run: said at start, or survived.
#
# shellcheck disable=SC2016,SC2030,SC2031,SC2034,SC2154 # dollar signs of programs; variables of lib.bash

load lib

# ---- shell COMMAND ----

command_runs() {
    serve -v --exec-io "$IO" --handler shell 'read -r l; echo "hello $l"; tr a-z A-Z | sort'
    run client "$PORT" 'text:me\nb\na\n' end all
    equal "$output" $'hello me\nA\nB'
    wait_for_log '^hark: close id=1 .* reason=child in=7 out=13 .* status=0 '
    serve --exec-io "$IO" --handler shell -- '[ $# = 0 ] && echo "$PROTO" && exit 3'
    run client "$PORT" all
    equal "$output" TCP
}

@test "shell: a command with pipes, variables and its exit status" {
    in_both command_runs
}

@test "shell: warm" {
    serve --warm 1 --handler shell 'read -r l; echo "hello $l"'
    run client "$PORT" 'text:me\n' all
    equal "$output" "hello me"
}

@test "shell: a command that is missing, empty or more than one word is refused at start" {
    local word
    run_hark --port 0 --bind 127.0.0.1 --handler shell
    equal "$status" 2
    match "$output" '^hark: error: handler shell needs arguments: --handler shell COMMAND$'
    for word in "" " " $' \t\n'; do
        run_hark --port 0 --bind 127.0.0.1 --handler shell "$word"
        equal "$status" 2 "the exit status"
        match "$output" '^hark: error: shell needs a command'
    done
    run_hark --port 0 --bind 127.0.0.1 --handler shell echo hello
    equal "$status" 2
    match "$output" '^hark: error: shell takes one command, "hello" is one word too many: quote the whole command'
}

@test "shell: a command that the shell cannot read: the client is closed, and the log says what it says" {
    serve -v --handler shell 'echo "one'
    run client "$PORT" all
    equal "$output" ""
    wait_for_log '^hark: stderr id=1 text=.*[Uu]nterminated'
    wait_for_log '^hark: close id=1 .* reason=child .* status=2 '
    serve -v --handler shell 'no-such-command-here'
    run client "$PORT" all
    wait_for_log '^hark: stderr id=1 text=.*no-such-command-here.*not found'
    wait_for_log '^hark: close id=1 .* reason=child .* status=127 '
}

# ---- what is said at start ----

# refused NAME REGEX: hark exec NAME, and --check, end with 2 and this sentence.
refused() {
    local how
    for how in "" --check; do
        # shellcheck disable=SC2086 # nothing, or one word
        run_hark $how --port 0 --bind 127.0.0.1 --handler exec "$1"
        equal "$status" 2 "the exit status for \"$1\""
        equal "$(wc -l <<<"$output")" 1 "the number of lines"
        match "$output" "^hark: error: $2\$"
    done
}

program() { # NAME CONTENT...
    printf '%b' "$2" >"$T/$1"
    chmod +x "$T/$1"
}

@test "shell: exec: scripts that no kernel runs are explained at start" {
    program good '#!/bin/sh\necho good\n'
    run_hark --check --port 0 --bind 127.0.0.1 --handler exec "$T/good"
    equal "$status" 0

    chmod -x "$T/good"
    refused "$T/good" "cannot run \"$T/good\": no execute permission \(chmod \+x $T/good\)"
    program bare 'echo bare\n'
    refused "$T/bare" "cannot run \"$T/bare\": a script without an interpreter line \(begin it with #!/bin/sh, or run: sh $T/bare\)"
    program comment '# a comment\necho\n'
    refused "$T/comment" "cannot run \"$T/comment\": a script without an interpreter line .*"
    program newline '\n#!/bin/sh\necho\n'
    refused "$T/newline" "cannot run \"$T/newline\": a script without an interpreter line .*"
    program missing '#!/no/such/interpreter -x\necho\n'
    refused "$T/missing" "cannot run \"$T/missing\": its interpreter \"/no/such/interpreter\": No such file or directory"
    program blanks '#! \t /no/such/interpreter\n'
    refused "$T/blanks" "cannot run \"$T/blanks\": its interpreter \"/no/such/interpreter\": No such file or directory"
    program crlf '#!/bin/sh\r\necho\r\n'
    refused "$T/crlf" "cannot run \"$T/crlf\": its first line ends in a carriage return .*"
    program empty ''
    refused "$T/empty" "cannot run \"$T/empty\": the file is empty"
    program nothing '#!\n'
    refused "$T/nothing" "cannot run \"$T/nothing\": .*"
}

@test "shell: exec: an interpreter that cannot be one is explained at start" {
    printf x >"$T/plain"
    program plain_interpreter "#!$T/plain\n"
    refused "$T/plain_interpreter" "cannot run \"$T/plain_interpreter\": its interpreter \"$T/plain\": Permission denied"
    program directory "#!$T\n"
    refused "$T/directory" "cannot run \"$T/directory\": its interpreter \"$T\": .*"
}

@test "shell: exec: an interpreter that env(1) will not find is explained at start" {
    program gone '#!/usr/bin/env no-such-interpreter\n'
    refused "$T/gone" "cannot run \"$T/gone\": its interpreter \"no-such-interpreter\": not found in PATH"
    program blanks '#!/usr/bin/env \t no-such-interpreter \n'
    refused "$T/blanks" "cannot run \"$T/blanks\": its interpreter \"no-such-interpreter\": not found in PATH"
    program absolute '#!/usr/bin/env /no/such/interpreter\n'
    refused "$T/absolute" "cannot run \"$T/absolute\": its interpreter \"/no/such/interpreter\": not found in PATH"
    program two '#!/usr/bin/env python3 -u\n'
    refused "$T/two" "cannot run \"$T/two\": its interpreter \"python3 -u\": not found in PATH \(env takes that for one word; env -S splits it\)"
    program crlf '#!/usr/bin/env sh\r\necho\r\n'
    refused "$T/crlf" "cannot run \"$T/crlf\": its first line ends in a carriage return .*"
    mkdir "$T/empty" "$T/bin" "$T/bin/a-directory"
    program directory '#!/usr/bin/env a-directory\n'
    run_hark --port 0 --bind 127.0.0.1 --setenv PATH="$T/bin" --handler exec "$T/directory"
    equal "$status" 2
    # it is the PATH of the child that counts
    program python '#!/usr/bin/env python3\nprint("here")\n'
    run_hark --port 0 --bind 127.0.0.1 --setenv PATH=/usr/bin --setenv PATH="$T/empty" --handler exec "$T/python"
    equal "$status" 2
    match "$output" 'its interpreter "python3": not found in PATH$'
}

# answers TEXT OPTION... PROGRAM: it starts, and the program's answer is that.
answers() {
    local text=$1
    shift
    serve "${@:1:$#-1}" --handler exec "${@:$#}"
    run client "$PORT" all
    equal "$output" "$text" "what ${*:$#} answered"
    stop_hark
}

@test "shell: exec: what env(1) may find starts" {
    mkdir "$T/bin" "$T/elsewhere"
    printf '#!/bin/sh\necho mine\n' >"$T/bin/mine"
    chmod +x "$T/bin/mine"
    program plain '#!/usr/bin/env sh\necho "found $0"\n'
    answers "found $T/plain" "$T/plain"
    answers "found $T/plain" --clear-env "$T/plain"
    answers "found $T/plain" --clear-env --setenv PATH= --setenv PATH=/no/such:/bin "$T/plain"
    program split '#!/usr/bin/env -S sh -e\necho split\n'
    answers split "$T/split"
    program assignment '#!/usr/bin/env -S A=b sh\necho "$A"\n'
    answers b "$T/assignment"
    program absolute '#!/usr/bin/env /bin/sh\necho absolute\n'
    answers absolute "$T/absolute"
    program mine '#!/usr/bin/env mine\n'
    answers mine --setenv PATH="/no/such:$T/bin" "$T/mine"
    # where it depends on the child's directory nobody knows
    answers mine --chdir "$T/bin" --setenv PATH=/no/such:. "$T/mine"
    answers mine --chdir "$T/bin" --setenv PATH=:/no/such "$T/mine"
    program relative '#!/usr/bin/env ./mine\n'
    answers mine --chdir "$T/bin" "$T/relative"
    # what is no env is nobody's business
    printf '#!/bin/sh\necho "mine: $1"\n' >"$T/bin/envy"
    chmod +x "$T/bin/envy"
    program envy "#!$T/bin/envy no-such-interpreter\n"
    answers "mine: no-such-interpreter" "$T/envy"
}

@test "shell: exec: what is no program at all is explained at start" {
    refused "$T" "cannot run \"$T\": it is a directory"
    refused "$T/none" "cannot run \"$T/none\": No such file or directory"
    refused no-such-program "cannot run \"no-such-program\": not found in PATH"
    printf '#!/bin/sh\n' >"$T/only-here"
    cd "$T"
    refused only-here "cannot run \"only-here\": not found in PATH [(]the one in this directory is ./only-here[)]"
    refused "" "the program's name is empty"
    mkfifo "$T/fifo"
    chmod +x "$T/fifo"
    refused "$T/fifo" "cannot run \"$T/fifo\": it is not a regular file"
    ln -s "$T/nowhere" "$T/link"
    refused "$T/link" "cannot run \"$T/link\": No such file or directory"
    printf x >"$T/file"
    refused "$T/file/program" "cannot run \"$T/file/program\": Not a directory"
    run_hark --port 0 --bind 127.0.0.1 --handler exec
    equal "$status" 2
    match "$output" '^hark: error: handler exec needs arguments: --handler exec PROGRAM'
}

@test "shell: exec: PATH is searched as by a shell, past what cannot be run" {
    mkdir "$T/a" "$T/b" "$T/a/tool"
    printf '#!/bin/sh\necho from b\n' >"$T/b/tool"
    chmod +x "$T/b/tool"
    WRAPPER=(env PATH="$T/none:$T/a:$T/b:$PATH")
    serve --handler exec tool
    run client "$PORT" all
    equal "$output" "from b"
}

@test "shell: exec: a script that can be executed and not read, and one with blanks before its interpreter" {
    program blanks '#!  /bin/sh  \necho blanks\n'
    serve --handler exec "$T/blanks"
    run client "$PORT" all
    equal "$output" blanks
}

# ---- what is found out later ----

spin_ticks() { # SECONDS
    local before
    before=$(cpu_ticks "$HARK_PID")
    sleep "$1" # what is measured is the time in which nothing is to happen
    echo $(($(cpu_ticks "$HARK_PID") - before))
}

breaks() { # HOW REASON HOW-TO-MEND
    cp "$(command -v cat)" "$T/program"
    serve -v --exec-io "$IO" --handler exec "$T/program"
    run client "$PORT" exchange:1000
    equal "$output" "same 1000 eof"
    eval "$1"
    local i before
    for i in 1 2; do
        run client "$PORT" count
        match "$output" '^0 (eof|reset)$'
        wait_for_log '^hark: close id=[2-4] .* reason=error .*' "$i"
        equal "$(grep -c '^hark: error: ' "$LOG")" "$i" "the number of error lines"
    done
    equal "$(grep -cx "hark: error: cannot run \"$T/program\": $2" "$LOG")" 2 "the right ones of $(grep error: "$LOG")"
    before=$(descriptors "$HARK_PID")
    at_most "$(spin_ticks 0.3)" 5 "ticks of CPU in 0.3 s"
    eval "$3"
    run client "$PORT" exchange:1000
    equal "$output" "same 1000 eof"
    eventually no_children "$HARK_PID"
    eventually has_descriptors "$HARK_PID" "$before"
    stop_hark
}

@test "shell: exec: a program that is removed while hark runs: the client is closed, one line says why, and it recovers" {
    without_valgrind "its vfork is a fork: the child cannot tell us"
    in_both breaks 'mv "$T/program" "$T/away"' 'No such file or directory' 'mv "$T/away" "$T/program"'
}

@test "shell: exec: a program that may not be executed any more, and one that is being written" {
    without_valgrind "its vfork is a fork: the child cannot tell us"
    in_both breaks 'chmod a-x "$T/program"' 'Permission denied' 'chmod a+x "$T/program"'
    IO=socket breaks 'exec {writer}>>"$T/program"' 'Text file busy' 'exec {writer}>&-'
}

@test "shell: exec: an interpreter that is removed" {
    without_valgrind "its vfork is a fork: the child cannot tell us"
    cp "$(command -v sh)" "$T/interpreter"
    printf '#!%s\necho here\n' "$T/interpreter" >"$T/program"
    chmod +x "$T/program"
    serve -v --handler exec "$T/program"
    run client "$PORT" all
    equal "$output" here
    mv "$T/interpreter" "$T/away"
    run client "$PORT" count
    match "$output" '^0 '
    wait_for_log "^hark: error: cannot run \"$T/program\": No such file or directory\$"
    mv "$T/away" "$T/interpreter"
    run client "$PORT" all
    equal "$output" here
}

# ---- no more processes ----

# A user that nobody is, who may have N processes.
with_processes() { # N
    [ "$(id -u)" -eq 0 ] || skip "needs root, to become another user"
    need setpriv util-linux
    local user=$((500000 + BATS_ROOT_PID % 100000 * 10 + BATS_TEST_NUMBER % 10))
    local as=(setpriv --reuid "$user" --regid "$user" --clear-groups)
    permitted "${as[@]}" "$HARK" --version
    WRAPPER=("${as[@]}" bash -c "ulimit -u $1 && exec \"\$@\"" bash)
}

out_of_processes() {
    serve -v --exec-io "$IO" --handler exec cat
    spawn_crowd "crowd.$IO" "$PORT" hold 2 10 "$T/go.$IO"
    wait_for_line "crowd.$IO" '^held 2$'
    spawn_client "early.$IO" "$PORT" echo:1000 end same
    wait_for_log '^hark: accept id=3 '
    wait_for_log '^hark: error: cannot accept connections for now: Resource temporarily unavailable$'
    # those that come now wait, as it does, and hark is not busy with them
    spawn_crowd "late.$IO" "$PORT" burst 20 1 "$T/go.$IO"
    wait_for_line "late.$IO" '^connected '
    at_most "$(spin_ticks 1)" 10 "ticks of CPU in 1 s without processes"
    at_most "$(grep -c '^hark: error: ' "$LOG")" 10 "error lines"
    touch "$T/go.$IO"
    finish "crowd.$IO"
    equal "$(tail -n 1 "$T/crowd.$IO")" "done 2"
    finish "early.$IO"
    eventually client --timeout 5 "$PORT" echo:1000
    eventually no_children "$HARK_PID"
    stop_hark
}

@test "shell: exec: when no more processes may be started clients wait, the others live, and it recovers" {
    with_processes 3
    in_both out_of_processes
}

@test "shell: exec: no more processes for warm programs" {
    without_valgrind "a fork that fails leaves it with its signals blocked, and with a stack that cannot grow"
    with_processes 3
    serve -v --warm 5 --handler exec cat
    wait_for_log '^hark: error: cannot keep "cat" warm: Resource temporarily unavailable$'
    equal "$(pgrep -P "$HARK_PID" | wc -l)" 2 "the number of warm ones"
    at_most "$(spin_ticks 1.2)" 12 "ticks of CPU in 1.2 s"
    equal "$(grep -c '^hark: error: ' "$LOG")" 1 "the number of error lines"
    run client "$PORT" exchange:1000
    equal "$output" "same 1000 eof"
    stop_hark
}
