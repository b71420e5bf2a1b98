#!/usr/bin/env bats
# The library as a C programmer gets it: `make install-dev`, pkg-config, and man/hark.3, whose names are those of hark.h and whose
# programs are taken from where they stand, compiled against what was installed, and run against clients.

load lib

# Once for all: in a DESTDIR, as a package is built.
setup_file() {
    local root
    root=$(cd "$BATS_TEST_DIRNAME/.." && pwd)
    env -u MAKEFLAGS -u MAKELEVEL -u SAN make -C "$root" install-dev DESTDIR="$BATS_FILE_TMPDIR/root" PREFIX=/usr/local \
        BUILD="${HARK_BUILD#"$root"/}" >"$BATS_FILE_TMPDIR/make.log" 2>&1
}

setup() {
    ROOT=$(cd "$BATS_TEST_DIRNAME/.." && pwd)
    mkdir "$T/bin"
    cd "$ROOT" || return
}

# ---- names ----

# header KIND: what hark.h declares: function, constant, enum or field.
header() {
    sed 's|/\*.*\*/||; /\/\*/,/\*\//d; /^#/d; s/ *$//' core/hark*.h | awk -v kind="$1" '
        function name(text) { if (kind == at) print text }
        { at = "" }
        inside == "" && /^ *(typedef )?[a-z_].*\(/ { at = "function"; match($0, /[a-z_0-9]+\(/); name(substr($0, RSTART, RLENGTH - 1)) }
        inside == "" && /^enum [a-z_]+ \{/ { at = "enum"; name($2) }
        /^(struct|enum).*\{/ { inside = $1; sub(/.*\{/, "") }
        inside == "enum" { at = "constant"; while (match($0, /[A-Z][A-Z_]+/)) { name(substr($0, RSTART, RLENGTH)); $0 = substr($0, RSTART + RLENGTH) } }
        inside == "struct" && /;/ && !/\}/ {
            at = "field"
            sub(/;.*/, "")
            if (sub(/.*\(\*/, "")) sub(/\).*/, "")
            declared = split($0, declarators, ",")
            for (i = 1; i <= declared; i++) {
                sub(/\[.*/, "", declarators[i])
                match(declarators[i], /[a-z_0-9]+$/)
                name(substr(declarators[i], RSTART))
            }
        }
        /\}/ { inside = "" }' | sort -u
}

# manual MACRO: the names that DESCRIPTION marks with it.
manual() {
    sed '1,/^\.Sh DESCRIPTION/d; /^\.Sh EXAMPLES/,$d' man/hark.3 | grep -oE "(^\.|\.It |\.Pf \( | , )$1 [\"A-Za-z_0-9 ]+" |
        sed -E "s/.*$1 //; s/\"//g; s/ *$//" | sort -u
}

@test "library: hark.3 has every function of hark.h, and no other" {
    (($(header function | wc -l) > 80))
    diff <(header function) <(manual Fn)
}

@test "library: hark.3 has every constant of hark.h, and no other" {
    (($(header constant | wc -l) > 20))
    diff <(header constant) <(manual Dv | grep -vE '^(NULL|SO_|SOMAXCONN|SIG|TCP_)')
}

@test "library: hark.3 has every struct, enum and field of hark.h, and no other" {
    # all that it names, but other people's
    diff <(grep -ohE 'struct [a-z_]+' core/hark*.h | sort -u | grep -vxE 'struct (ev_loop|sockaddr|sockaddr_in|sockaddr_storage)') <(manual Vt | grep ^struct)
    diff <(header enum) <(manual Vt | sed -n 's/^enum //p')
    diff <(header field) <(manual Va | grep -vx errno)
}

@test "library: the SYNOPSIS of hark.3 is what hark.h declares" {
    mkdir "$T/man" "$T/core"
    cp man/hark.3 man/synopsis "$T/man/"
    cp core/hark*.h "$T/core/"
    "$T/man/synopsis"
    diff man/hark.3 "$T/man/hark.3"
}

# ---- programs ----

program_names() {
    awk '$1 == ".\\\"" && $2 == "program:" { print $3 }' man/hark.3
}

# program NAME: its text, as it stands in EXAMPLES.
program() {
    awk -v name="$1" '$1 == ".\\\"" && $2 == "program:" { on = $3 == name }
        /^\.Ed/ { on = 0 }
        on && !/^\./ { gsub(/\\-/, "-"); gsub(/\\e/, "\\"); print }' man/hark.3
}

use_library() {
    need pkg-config pkg-config
    export PKG_CONFIG_SYSROOT_DIR=$BATS_FILE_TMPDIR/root
    export PKG_CONFIG_PATH=$PKG_CONFIG_SYSROOT_DIR/usr/local/lib/pkgconfig
}

# compile NAME OPTION...: where every warning is an error, but for those that ev.h is known for.
compile() {
    local name=$1 flags instruments=
    shift
    use_library
    program "$name" >"$T/bin/$name.c"
    # what libhark.a was built with, the program needs, too
    # what libhark.a was built with, the program needs, too
    ! grep -q __asan_init "$HARK_BUILD/libhark.a" || instruments=-fsanitize=address,undefined
    ! grep -q __gcov_init "$HARK_BUILD/libhark.a" || instruments=--coverage
    flags=$(pkg-config --cflags --static --libs hark)
    # shellcheck disable=SC2086 # words
    "${CC:-cc}" -std=c11 -Wall -Wextra -Werror -Wno-strict-aliasing $instruments "$@" -o "$T/bin/$name" "$T/bin/$name.c" $flags
}

# start NAME ARGUMENT...: compiles and starts a server; PORT is what it has bound.
start() {
    compile "$1"
    spawn "$1" "$T/bin/$1" "${@:2}"
    wait_for_line "$1" '^port [0-9]+$'
    PORT=$(sed -n 's/^port //p' "$T/$1")
}

# ask TEXT: the answer.
ask() {
    need nc netcat-openbsd
    printf '%b' "$1" | timeout "$DEADLINE" nc -N localhost "$PORT"
}

@test "library: hark.3 has the programs that are tested here, and no others" {
    diff <(program_names | sort) <(printf '%s\n' client echo lines steps tls workers)
}

@test "library: pkg-config names all that a program needs, also to be linked statically" {
    without_sanitizers
    use_library
    equal "$(pkg-config --modversion hark)" "$("$HARK" --version | awk '{ print $2 }')"
    match "$(pkg-config --libs hark)" "^-L$BATS_FILE_TMPDIR/root/usr/local/lib -lhark *\$"
    compile client
    ldd "$T/bin/client" >"$T/shared"
    refute grep -q hark "$T/shared"
    compile echo -static
    match "$(ldd "$T/bin/echo" 2>&1)" 'not a dynamic executable'
}

@test "library: the echo server of hark.3 echoes to its last byte" {
    start echo
    head -c 3000000 /dev/urandom >"$T/sent"
    timeout "$DEADLINE" nc -N localhost "$PORT" <"$T/sent" >"$T/back"
    cmp "$T/sent" "$T/back"
}

@test "library: a program of hark.3 that cannot bind says why" {
    start echo
    run timeout "$DEADLINE" "$T/bin/echo" "$PORT"
    equal "$status" 1
    match "$output" "$T/bin/echo: .*$PORT.*Address already in use"
}

serve_from_workers() { # NAME
    start "$1"
    for _ in 1 2 3; do
        match "$(ask '')" '^worker [0-3]$'
    done
    # the supervisor passes it on, and ends in order once they have ended
    # shellcheck disable=SC2154 # lib.bash has it
    local pid=${background[$1]}
    pkill -TERM -P "$pid" -x "$1"
    finish "$1"
}

@test "library: the workers of hark.3, by bind and start, serve and end" {
    serve_from_workers workers
}

@test "library: the workers of hark.3, by bind_sockets, fork_processes and add_sockets, serve and end" {
    serve_from_workers steps
}

@test "library: the line server of hark.3 answers each line" {
    start lines
    equal "$(ask 'one\nthree\n\nrest')" $'line 1: 4 bytes\nline 2: 6 bytes\nline 3: 1 bytes'
    eventually has_line "$T/lines.err" '^3 lines, then eof$'
    head -c 10000 /dev/zero | timeout "$DEADLINE" nc -N localhost "$PORT" >"$T/out"
    [ ! -s "$T/out" ]
    eventually has_line "$T/lines.err" '^0 lines, then '
}

# greeting OPTION...: what a client gets that verifies the server.
greeting() {
    timeout "$DEADLINE" openssl s_client -quiet -verify_return_error -verify_hostname localhost -connect "localhost:$PORT" "$@" </dev/null 2>"$T/client.err"
}

@test "library: the TLS server of hark.3 greets who trusts it, and tells of who does not" {
    need openssl openssl
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -addext subjectAltName=DNS:localhost \
        -keyout "$T/key.pem" -out "$T/cert.pem" 2>/dev/null
    start tls "$T/cert.pem" "$T/key.pem"
    equal "$(greeting -CAfile "$T/cert.pem")" 'hello over TLSv1.3'
    equal "$(greeting -CAfile "$T/cert.pem" -tls1_2)" 'hello over TLSv1.2'
    refute greeting -no-CAfile -no-CApath
    eventually has_line "$T/tls.err" '^rejected: .*alert'
}

@test "library: the TLS server of hark.3 has a certificate of its own, and says what is wrong with another" {
    need openssl openssl
    start tls
    equal "$(timeout "$DEADLINE" openssl s_client -quiet -connect "localhost:$PORT" </dev/null 2>/dev/null)" 'hello over TLSv1.3'
    run timeout "$DEADLINE" "$T/bin/tls" /nonexistent.pem /nonexistent.pem
    equal "$status" 1
    match "$output" '/nonexistent.pem.*No such file'
}

@test "library: the client of hark.3 asks a server and prints its answer" {
    start lines
    compile client
    equal "$(timeout "$DEADLINE" "$T/bin/client" "localhost:$PORT" $'hello\n')" 'line 1: 6 bytes'
}

@test "library: the client of hark.3 says why it cannot connect" {
    compile client
    run timeout "$DEADLINE" "$T/bin/client" 'unix:/nobody' hello
    equal "$status" 1
    equal "$output" 'connect to unix:/nobody: No such file or directory'
    run timeout "$DEADLINE" "$T/bin/client" 'localhost' hello
    equal "$status" 2
    match "$output" 'no port'
}
