#!/usr/bin/env bats
# Each call that hark makes fails, in one life after the other: see faults.py.
#
# shellcheck disable=SC2034,SC2154 # variables of lib.bash

load ../lib

setup() {
    [ -z "${HARK_VALGRIND:-}" ] || skip "valgrind would load the injector, too"
}

# The injector comes before AddressSanitizer's library, which it calls on; and what fails may leave memory to the end of the process.
export ASAN_OPTIONS=$NO_LEAK_CHECK:verify_asan_link_order=0

@test "faults: whatever call fails, hark says so or goes on" {
    chmod 755 "$T" # another user looks in here
    [ "$(id -u)" -eq 0 ] || skip "only root can give up the rights of root"
    grep -q __asan_init "$HARK" && export HARK_FAULTS=${HARK_FAULTS:-1} # it takes its time to start
    run timeout 380 "$PYTHON" -SE "$TESTS/long/faults.py" "$HARK" "$HARK_BUILD/inject.so" "$T"
    echo "# note: ${output##*$'\n'}" >&3
    [ "$status" -eq 0 ] || fail "$output"
}

@test "faults: every system call of hark has a row" {
    without_sanitizers
    nm -D --undefined-only "$HARK" | sed -E 's/.* //; s/@.*//; s/^__(recv|read)_chk$/\1/' >"$T/imported"
    echo '#include <sys/syscall.h>' | gcc -dM -E - | sed -nE 's/^#define SYS_([a-z0-9_]+).*/\1/p' >"$T/system"
    printf '%s\n' recv send waitpid >>"$T/system"
    # they cannot fail: with what hark gives them, or at all
    printf '%s\n' clock_gettime getegid geteuid getpid getppid sched_yield pause >"$T/known"
    sed 's/ .*//' "$TESTS/long/faults.rows" >>"$T/known"
    sort -u "$T/imported" | grep -xFf "$T/system" | grep -vxFf "$T/known" >"$T/missing" || true
    [ ! -s "$T/missing" ] || fail "without a row: $(tr '\n' ' ' <"$T/missing")"
}
