#!/usr/bin/env bats
# All that hark's own tests have echo, discard and forward do, done in the sandbox.

load ../lib

# in_sandbox FILE [TEST]...: the tests of that file, with a hark that adds --sandbox where it may. All have to pass but those named: they
# look at the process that they have started, or at what it says when it serves alone, and there is a supervisor here.
in_sandbox() {
    cat >"$T/sandboxed" <<'SCRIPT'
#!/bin/bash
for word; do
    case $word in exec | shell | stdio | -h | -V | --help | --version) exec "$HARK_BUILD/hark" "$@" ;; esac
done
exec "$HARK_BUILD/hark" --sandbox "$@"
SCRIPT
    chmod +x "$T/sandboxed"
    # LeakSanitizer would look at its process by ptrace(2), and be killed for it
    env -i HOME="$HOME" PATH="$PATH" LC_ALL="$LC_ALL" CI="${CI:-}" HARK_BUILD="$HARK_BUILD" HARK="$T/sandboxed" \
        ASAN_OPTIONS="${ASAN_OPTIONS:-}:detect_leaks=0" bats --tap "$TESTS/$1.bats" >"$T/tap" 2>&1 || true
    shift
    printf '%s\n' '' "$@" >"$T/others"
    cat "$T/tap"
    refute grep -qvxFf "$T/others" <(sed -n 's/^not ok [0-9]* //p' "$T/tap")
    equal "$(grep -cE '^(not )?ok ' "$T/tap")" "$(sed -n '1s/^1\.\.//p' "$T/tap")" "the number of tests that have ended"
}

@test "in the sandbox: echo, discard, forward" {
    in_sandbox echo
    in_sandbox discard
    in_sandbox forward
    in_sandbox targets "targets: our own lack of descriptors is nobody's fault"
}

@test "in the sandbox: TLS" {
    in_sandbox tls
    in_sandbox tls-certs
    in_sandbox tls-resume
    in_sandbox tls-bad
}

@test "in the sandbox: ends, drain, signals, reload" {
    in_sandbox halfclose
    in_sandbox drain
    in_sandbox signals "signals: TERM stops accepting, lets connections end, and exits 0"
    in_sandbox tls-reload "reload: while it ends, nothing happens"
    in_sandbox log-to
}

@test "in the sandbox: access, PROXY headers, limits" {
    in_sandbox access
    in_sandbox proxy
    in_sandbox timeouts
    in_sandbox limits
    in_sandbox totals
    in_sandbox processes
    in_sandbox backpressure
}
