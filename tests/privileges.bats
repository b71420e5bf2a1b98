#!/usr/bin/env bats
# --user and --chroot: who serves, where, and what the supervisor that keeps the rights does for them.
#
# shellcheck disable=SC2016,SC2034,SC2154,SC2153 # dollar signs of others; variables of lib.bash

load lib
load certs

USER_NAME=nobody

setup_file() {
    make_ca ca
    make_cert first ca DNS:a.test,DNS:localhost
    make_cert second ca DNS:a.test,DNS:localhost
}

setup() {
    [ "$(id -u)" = 0 ] || skip "only root can give rights up"
    need setpriv util-linux
    USER_ID=$(id -u "$USER_NAME") GROUP_ID=$(id -g "$USER_NAME")
}

# ---- what is looked at ----

workers() {
    pgrep -P "$HARK_PID"
}

status_of() { # PID FIELD: its values, with single blanks
    awk -v field="$2:" '$1 == field { $1 = ""; sub(/^ +/, ""); print }' "/proc/$1/status"
}

is_only() { # PID UID GID GROUPS: in all ways, and with no capability
    equal "$(status_of "$1" Uid)" "$2 $2 $2 $2" "the user of $1" &&
        equal "$(status_of "$1" Gid)" "$3 $3 $3 $3" "the group of $1" &&
        equal "$(status_of "$1" Groups)" "$4" "the other groups of $1" &&
        equal "$(status_of "$1" CapPrm)$(status_of "$1" CapEff)$(status_of "$1" CapInh)" "$(printf '%048d' 0)" "the capabilities of $1"
}

# A file that only root can read.
secret() { # FILE CONTENT
    printf '%s\n' "$2" >"$T/$1"
    chmod 600 "$T/$1"
}

# Where tests keep their files is else for this user alone.
let_others_in() {
    chmod a+x "$BATS_RUN_TMPDIR" "$BATS_RUN_TMPDIR/test" "$T"
}

# LeakSanitizer looks into /proc at the end, which is out of sight then.
without_proc() {
    export ASAN_OPTIONS=$NO_LEAK_CHECK
}

# A root directory with a busybox in it, and what that needs.
make_root() {
    local file
    need busybox busybox
    ROOT=$T/root
    mkdir -p "$ROOT/bin" "$ROOT/tmp" "$ROOT/home"
    chmod 755 "$T" "$ROOT" "$ROOT"/*
    cp "$(command -v busybox)" "$ROOT/bin/busybox"
    ln -s busybox "$ROOT/bin/sh"
    ln -s busybox "$ROOT/bin/cat"
    for file in $(ldd "$ROOT/bin/busybox" | grep -o '/[^ ]*'); do
        install -D "$file" "$ROOT$file"
    done
}

shown() { # CN
    equal "$(subject_for -noservername)" "$1" "the certificate"
}

put() { # NAME: becomes the certificate, and its key root's alone
    cp "$C/$1.crt" "$T/new.crt"
    install -m 600 "$C/$1.key" "$T/new.key"
    mv "$T/new.crt" "$T/cert.pem"
    mv "$T/new.key" "$T/key.pem"
}

# secure OPTION...: with a certificate that may change, and a key that only root can read.
secure() {
    put first
    serve -v --ssl-cert "$T/cert.pem" --ssl-key "$T/key.pem" "$@"
}

# ---- who ----

@test "privileges: the serving process is the user, the supervisor stays root" {
    WRAPPER=(setpriv --groups "1,2,3")
    serve -v --user "$USER_NAME"
    WRAPPER=()
    is_only "$(workers)" "$USER_ID" "$GROUP_ID" "$GROUP_ID"
    equal "$(status_of "$HARK_PID" Uid)" "0 0 0 0"
    grep -q ' handler=echo processes=1$' "$LOG"
    run client "$PORT" exchange:100000
    equal "$output" "same 100000 eof"
    stop_hark
}

@test "privileges: a group, numbers, numbers that nobody has" {
    local user
    for user in "$USER_NAME:daemon" "$USER_ID:$(id -g daemon)"; do
        serve --user "$user"
        is_only "$(workers)" "$USER_ID" "$(id -g daemon)" "$(id -g daemon)"
        stop_hark
    done
    serve --user "$USER_ID"
    is_only "$(workers)" "$USER_ID" "$GROUP_ID" "$GROUP_ID"
    stop_hark
    serve --user 54321:12345
    is_only "$(workers)" 54321 12345 12345
    stop_hark
}

@test "privileges: supplementary groups are the user's own, unless a group was named" {
    permitted unshare -m true
    cp /etc/group "$T/group"
    printf 'one:x:54001:%s\ntwo:x:54002:other,%s\nthree:x:54003:other\n' "$USER_NAME" "$USER_NAME" >>"$T/group"
    WRAPPER=(unshare -m sh -c "mount --bind '$T/group' /etc/group && exec \"\$@\"" sh)
    serve --user "$USER_NAME"
    is_only "$(workers)" "$USER_ID" "$GROUP_ID" "54001 54002 $GROUP_ID"
    stop_hark
    serve --user "$USER_NAME:one"
    is_only "$(workers)" "$USER_ID" 54001 54001
    stop_hark
}

@test "privileges: programs are the user's, with its HOME, and cannot read what is root's" {
    let_others_in
    secret key content
    secret other content
    chmod 644 "$T/other"
    export HOME=/root USER=root LOGNAME=root
    serve --user "$USER_NAME" --stderr client --handler shell "cat '$T/key'; cat '$T/other'; echo \$HOME \$USER \$LOGNAME; grep -E '^(Uid|Gid|CapEff)' /proc/self/status"
    client "$PORT" all >"$T/out"
    grep -q "$T/key: Permission denied" "$T/out"
    equal "$(grep -c content "$T/out")" 1
    grep -q "^$(getent passwd "$USER_NAME" | cut -d: -f6) $USER_NAME $USER_NAME\$" "$T/out"
    equal "$(grep -cP "^(Uid:\t$USER_ID|Gid:\t$GROUP_ID)\t" "$T/out")" 2
    grep -qP '^CapEff:\t0+$' "$T/out"
    stop_hark
    serve --user 54321:12345 --setenv USER=me --handler shell 'echo "$HOME-$USER-$LOGNAME"'
    run client "$PORT" all
    equal "$output" "-me-"
    stop_hark
}

@test "privileges: nobody else's process can look into the one that holds the keys" {
    secure --user "$USER_NAME"
    equal "$(stat -c %u "/proc/$(workers)/mem")" 0
    refute setpriv --reuid "$USER_ID" --regid "$GROUP_ID" --clear-groups cat "/proc/$(workers)/maps" 2>/dev/null
    stop_hark
}

@test "privileges: a port below 1024 and a unix socket are bound by root" {
    permitted unshare -n true
    WRAPPER=(unshare -n sh -c 'ip link set lo up && exec "$@"' sh)
    start_hark --bind 127.0.0.1 --port 7 --user "$USER_NAME"
    equal "$PORT" 7
    stop_hark
    WRAPPER=()
    start_hark --unix "$T/s" --unix-mode 666 --user "$USER_NAME"
    equal "$(stat -c '%u %a' "$T/s")" "0 666"
    run client "unix:$T/s" exchange:1000
    equal "$output" "same 1000 eof"
    kill -KILL "$(workers)"
    wait_for_log '^hark: restart '
    eventually client "unix:$T/s" exchange:1000
    stop_hark
    [ ! -e "$T/s" ]
}

# ---- where ----

@test "privileges: --chroot: programs are in there, and so is what they see" {
    without_valgrind "a child cannot open its log in there"
    without_proc
    make_root
    secret outside content
    echo inside >"$ROOT/home/file"
    serve --chroot "$ROOT" --user "$USER_NAME" --handler shell 'pwd; cat /home/file; cat "$TCPREMOTEIP" 2>/dev/null; cd ..; pwd; [ -e /proc ] || echo none'
    equal "$(readlink "/proc/$(workers)/root")" "$ROOT"
    equal "$(readlink "/proc/$(workers)/cwd")" "$ROOT"
    run client "$PORT" all
    equal "$output" $'/\ninside\n/\nnone'
    stop_hark
    serve --chroot "$ROOT" --user "$USER_NAME" --chdir /home --handler exec cat file
    run client "$PORT" all
    equal "$output" inside
    stop_hark
    serve --chroot "$ROOT" --user "$USER_NAME" --stderr null --handler exec /bin/sh -c 'echo lost >&2; echo kept'
    run client "$PORT" all
    equal "$output" kept
    refute grep -q lost "$LOG"
    stop_hark
}

@test "privileges: --chroot alone is warned about" {
    without_proc
    mkdir "$T/empty"
    serve --chroot "$T/empty"
    grep -q "^hark: warning: root finds a way out of --chroot $T/empty: give --user, too\$" "$LOG"
    run client "$PORT" exchange:1000
    equal "$output" "same 1000 eof"
    stop_hark
}

@test "privileges: --chroot: names of targets that the machine knows are known in there" {
    without_proc
    mkdir "$T/empty"
    permitted unshare -m true
    serve_target
    local target=$TARGET_PORT
    cp /etc/hosts "$T/hosts"
    echo '127.0.0.1 hark-test.example' >>"$T/hosts"
    WRAPPER=(unshare -m sh -c "mount --bind '$T/hosts' /etc/hosts && exec \"\$@\"" sh)
    serve --chroot "$T/empty" --user "$USER_NAME" --handler forward "hark-test.example:$target"
    run client "$PORT" exchange:1000
    equal "$output" "same 1000 eof"
    stop_hark
}

@test "privileges: --chroot: the system's authorities are known in there" {
    without_proc
    mkdir "$T/empty" "$T/system"
    put first
    cp "$C/ca.pem" "$T/system"
    openssl rehash "$T/system"
    serve_target --ssl-cert "$T/cert.pem" --ssl-key "$T/key.pem"
    local variable
    for variable in "SSL_CERT_DIR=$T/system" "SSL_CERT_FILE=$C/ca.pem"; do
        WRAPPER=(env "$variable")
        serve --chroot "$T/empty" --user "$USER_NAME" --forward-ssl --forward-ssl-name localhost --handler forward "127.0.0.1:$TARGET_PORT"
        run client "$PORT" exchange:1000
        equal "$output" "same 1000 eof"
        stop_hark
    done
}

# ---- at start ----

# bad MESSAGE OPTION...: not started, and --check says it, too; nothing was bound.
bad() {
    local message=$1 check
    shift
    for check in '' --check; do
        run_hark ${check:+"$check"} --unix "$T/never" "$@"
        equal "$status" 2
        equal "$(wc -l <"$T/err")" 1 "the number of lines"
        match "$output" "^hark: error: $message\$"
        [ ! -e "$T/never" ]
    done
}

@test "privileges: what makes no sense is one line, before anything is bound" {
    bad 'option --user: there is no user "nosuchuser" .*' --user nosuchuser
    bad 'option --user: there is no group "nosuchgroup" .*' --user "$USER_NAME:nosuchgroup"
    bad 'option --user: there is no user 54321, whose group could be taken: give --user 54321:GROUP' --user 54321
    bad 'option --user: there is no user "4294967295" .*' --user 4294967295:1
    bad 'option --user: there is no user "-1" .*' --user=-1:1
    bad 'option --user: ":daemon" is not USER or USER:GROUP' --user :daemon
    bad "option --user: \"$USER_NAME:\" is not USER or USER:GROUP" --user "$USER_NAME:"
    bad 'option --user: root is root, who gives up nothing' --user root
    bad 'option --user: 0 is root, who gives up nothing' --user 0:daemon
    bad "option --chroot: \"$T/nowhere\": No such file or directory" --chroot "$T/nowhere"
    touch "$T/file"
    bad "option --chroot: \"$T/file\" is not a directory" --chroot "$T/file"
}

@test "privileges: what the user cannot run, or is not in the root directory, is found at start" {
    make_root
    let_others_in
    printf '#!/bin/sh\n' >"$T/program"
    chmod 700 "$T/program"
    bad "cannot run \"$T/program\": no execute permission .* \(as $USER_NAME\)" --user "$USER_NAME" --handler exec "$T/program"
    bad "cannot run \"awk\": not found in PATH \(as $USER_NAME, below $ROOT\)" --user "$USER_NAME" --chroot "$ROOT" --handler exec awk
    bad "option --chdir: \"$ROOT\": No such file or directory \(below $ROOT\)" --chroot "$ROOT" --chdir "$ROOT" --handler exec cat
    rm "$ROOT/bin/sh"
    bad "cannot run \"/bin/sh\": No such file or directory \(below $ROOT\)" --chroot "$ROOT" --handler shell 'echo hello'
}

@test "privileges: others than root cannot, and learn it at start" {
    local option
    for option in "--user $USER_NAME" "--chroot /"; do
        # shellcheck disable=SC2086
        run setpriv --reuid 54321 --regid 12345 --clear-groups "$HARK" --bind 127.0.0.1 --port 0 $option
        equal "$status" 2
        match "$output" "^hark: error: option ${option%% *}: only root can do that \(CAP_[A-Z_]* is missing\)\$"
    done
    run setpriv --bounding-set -kill --inh-caps -kill -- "$HARK" --bind 127.0.0.1 --port 0 --user "$USER_NAME"
    equal "$status" 2
    match "$output" 'CAP_KILL is missing'
}

# ---- reload ----

shown_by_all() {
    in_each_process shown "$1"
}

@test "privileges: HUP reads what only root can read, and connections live on" {
    without_proc
    mkdir "$T/empty"
    secure --user "$USER_NAME" --chroot "$T/empty"
    spawn_tls_client old --version 1.3 "$PORT" echo:1000 say:here hold:"$T/go" echo:1000 end count
    wait_for_line old here
    put second
    reload
    eventually shown second
    equal "$(grep '^hark: reload' "$LOG")" "hark: reload certificates=1"
    : >"$T/key.pem"
    reload
    shown second
    match "$(grep 'reload:' "$LOG")" "^hark: error: reload: TLS: \"$T/key.pem\" holds no private key .*; everything stays as it was\$"
    put first
    reload
    eventually shown first
    touch "$T/go"
    finish old
    equal "$(tail -n 1 "$T/old")" "0 eof"
    stop_hark
}

@test "privileges: HUP in several processes; one that is started again has what the others have" {
    secure --user "$USER_NAME" --processes 2
    put second
    reload
    eventually shown_by_all second
    put first # and nobody is told
    kill -KILL "$(workers | head -n 1)"
    wait_for_log '^hark: restart '
    eventually has_children 2
    shown_by_all second
    equal "$(grep -c '^hark: reload ' "$LOG")" 1
    stop_hark
}

has_children() { # COUNT
    [ "$(workers | wc -l)" -eq "$1" ]
}

@test "privileges: HUP reads rules, authorities in a directory, tickets and the rest" {
    without_proc
    make_ca clients
    make_ca strangers
    make_cert alice clients email:alice@example.org
    make_cert eve strangers email:eve@example.org
    mkdir "$T/authorities" "$T/empty"
    cp "$C/clients.pem" "$T/authorities"
    openssl rehash "$T/authorities"
    secret deny 192.0.2.1
    openssl rand -base64 80 | tr -d '\n' >"$T/keys"
    chmod -R go= "$T/authorities" "$T/keys"
    put first
    serve -v --ssl-cert "$T/cert.pem" --ssl-key "$T/key.pem" --ssl-ca "$T/authorities" --ssl-ticket-keys "$T/keys" --deny "@$T/deny" \
        --user "$USER_NAME" --chroot "$T/empty"
    tls_client --cert "$C/alice.pem" "$PORT" exchange:100
    refute tls_client --cert "$C/eve.pem" "$PORT" exchange:100
    cp "$C/strangers.pem" "$T/authorities"
    openssl rehash "$T/authorities"
    reload
    eventually tls_client --cert "$C/eve.pem" "$PORT" exchange:100
    tls_client --cert "$C/alice.pem" "$PORT" exchange:100
    secret deny 127.0.0.1
    reload
    eventually refused
    equal "$(grep -c '^hark: reload certificates=1 deny=1$' "$LOG")" 2
    stop_hark
}

refused() {
    refute tls_client --cert "$C/alice.pem" "$PORT" exchange:100
}

@test "privileges: HUP again and again, while workers are killed: no connection fails for long, nothing is left over" {
    secure --user "$USER_NAME" --processes 2 --max-restarts 0
    local i had
    reload
    had=$(descriptors "$HARK_PID")
    for i in $(seq 15); do
        put "$([ $((i % 2)) = 0 ] && echo first || echo second)"
        kill -HUP "$HARK_PID"
        kill -KILL "$(workers | head -n 1)" 2>/dev/null || true
        wait_for_log '^hark: reload ' $((i + 1))
    done
    eventually has_children 2
    eventually shown_by_all second
    eventually has_descriptors "$HARK_PID" "$had"
    refute grep -q 'error' "$LOG"
    stop_hark
}

@test "privileges: a stopped worker gets the latest, and keeps nobody waiting" {
    secure --user "$USER_NAME"
    local i worker
    worker=$(workers)
    kill -STOP "$worker"
    for i in $(seq 20); do
        put "$([ $((i % 2)) = 0 ] && echo first || echo second)"
        reload
    done
    put second
    reload
    kill -CONT "$worker"
    eventually shown second
    equal "$(workers)" "$worker"
    stop_hark
}

# ---- the log ----

nobody_holds() { # FILE
    ! find /proc/[0-9]*/fd -lname "$1" 2>/dev/null | grep -q .
}

@test "privileges: USR1 opens the log again, where only root can" {
    without_proc
    mkdir "$T/logs" "$T/empty"
    chmod 700 "$T/logs"
    serve -v --log-to "$T/logs/log" --user "$USER_NAME" --chroot "$T/empty" --processes 2
    crowd "$PORT" serial 10
    mv "$T/logs/log" "$T/logs/old"
    kill -USR1 "$HARK_PID"
    eventually nobody_holds "$T/logs/old"
    crowd "$PORT" serial 10
    eventually has_lines "$T/logs/log" ' close ' 10
    equal "$(grep -c ' close ' "$T/logs/old")" 10
    stop_hark
}

# ---- one process, with a supervisor ----

@test "privileges: --once and --max-accepts: later clients are refused, and the status tells of all" {
    serve -v --user "$USER_NAME" --once
    spawn_client one "$PORT" echo:1000 say:held hold:"$T/go" echo:1000 end same
    wait_for_line one held
    eventually refuses
    touch "$T/go"
    finish one
    wait_for_exit
    equal "$STATUS" 0
    serve --user "$USER_NAME" --max-accepts 2 --handler shell 'exit 3'
    client "$PORT" all
    client "$PORT" all
    wait_for_exit
    equal "$STATUS" 1
    serve --user "$USER_NAME" --once
    stop_hark TERM 1
}

refuses() {
    run client "$PORT" count
    equal "$output" refused
}

@test "privileges: --exit-idle, and a failure for good, end the supervisor, too" {
    serve --user "$USER_NAME" --exit-idle 0.2
    wait_for_exit
    equal "$STATUS" 0
    start_hark --bind 127.0.0.1 --port 0 --user "$USER_NAME" --handler stdio --recv-only >/dev/full
    client "$PORT" text:hello end count || true
    wait_for_exit
    equal "$STATUS" 1
    refute grep -q restart "$LOG"
}

@test "privileges: handler stdio has hark's own stdin and stdout" {
    echo answer >"$T/answer"
    start_hark --bind 127.0.0.1 --port 0 --user "$USER_NAME" --handler stdio --once <"$T/answer" >"$T/received"
    run client "$PORT" text:question end all
    equal "$output" answer
    wait_for_exit
    equal "$STATUS" 0
    equal "$(<"$T/received")" question
}

@test "privileges: signals: INT, QUIT, TERM twice, USR2" {
    serve -v --user "$USER_NAME"
    kill -USR2 "$HARK_PID"
    wait_for_log "^hark: status process=0 pid=$(workers) "
    spawn_client held "$PORT" echo:10 say:held count
    wait_for_line held held
    kill -TERM "$HARK_PID"
    wait_for_log '^hark: stop '
    refuses
    sleep_a_second
    kill -TERM "$HARK_PID"
    wait_for_exit
    equal "$STATUS" 0
    serve --user "$USER_NAME"
    stop_hark QUIT 0
    WRAPPER=("$PYTHON" -SE "$TESTS/fate.py" "$T/fate")
    serve --user "$USER_NAME"
    kill -INT "$(sed -n 's/^pid //p' "$T/fate")"
    eventually has_line "$T/fate" '^killed 2$'
}

# The clock's, which a signal that counts twice has to wait for.
sleep_a_second() {
    local end=$((SECONDS + 2))
    eventually test_seconds "$end"
}

test_seconds() {
    [ "$SECONDS" -ge "$1" ]
}

@test "privileges: a worker that crashes is started again; a supervisor that is killed leaves nobody" {
    serve --user "$USER_NAME" --handler exec cat
    local worker
    worker=$(workers)
    kill -SEGV "$worker"
    wait_for_log '^hark: restart process=0 signal='
    eventually client "$PORT" exchange:1000
    worker=$(workers)
    is_only "$worker" "$USER_ID" "$GROUP_ID" "$GROUP_ID"
    spawn_client held "$PORT" echo:10 say:held count
    wait_for_line held held
    kill -KILL "$HARK_PID"
    eventually is_gone "$worker"
    eventually none_marked cat
}

# What a service manager is told, each line with the pid of who says it.
listen_for_notices() { # SOCKET
    spawn told "$PYTHON" -SEuc 'import socket, struct, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
s.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
print("listening")
while True:
    text, parts, *_ = s.recvmsg(4096, 64)
    print(struct.unpack("iii", parts[0][2])[0], text.decode().replace("\n", " "))' "$1"
    wait_for_line told listening
}

@test "privileges: systemd hears from the supervisor alone" {
    listen_for_notices "$T/notify"
    WRAPPER=(env NOTIFY_SOCKET="$T/notify" WATCHDOG_USEC=200000)
    secure --user "$USER_NAME"
    wait_for_line told "^$HARK_PID READY=1 STATUS=echo, sockets: 1, processes: 1\$"
    wait_for_line told "^$HARK_PID WATCHDOG=1"
    reload
    wait_for_line told "^$HARK_PID RELOADING=1 "
    stop_hark
    wait_for_line told "^$HARK_PID STOPPING=1 "
    refute grep -qvE "^($HARK_PID .*|listening)\$" "$T/told"
}

@test "privileges: a connection that was handed over is served, and its client sees the end" {
    run timeout 20 "$PYTHON" -SE "$TESTS/systemd.py" "connection say=hello" "$HARK" --user "$USER_NAME"
    equal "$status" 0
    match "$output" 'heard hello'
}

@test "privileges: as pid 1 of a container" {
    permitted unshare --pid --fork --mount-proc true
    WRAPPER=(unshare --pid --fork --kill-child=KILL --mount-proc)
    READY_LINES=1 # unshare keeps the descriptor
    serve --user "$USER_NAME" --handler shell 'cut -d" " -f4 /proc/$PPID/stat; id -u'
    run client "$PORT" all
    equal "$output" $'1\n'"$USER_ID"
    kill -TERM "$(pgrep -P "$HARK_PID")"
    wait_for_exit
    equal "$STATUS" 0
}
