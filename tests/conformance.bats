#!/usr/bin/env bats
# What Tornado's own tests say, held against hark: tests/conformance.rows has the rows, tests/unit/test_conformance_*.c most of the tests.

load lib

setup() {
    cd "$BATS_TEST_DIRNAME/.." || return
}

# The tests of a program: its table has them between "{" and "};".
tests_of() { # FILE
    sed -n '/CMUnitTest tests\[\]/,/};/s/^ *[A-Z_]*(\([a-z0-9_]*\).*/\1/p' "$1"
}

@test "conformance: every row's test passes, and CONFORMANCE.md says so" {
    tests/conformance --build "$HARK_BUILD" >"$T/table"
    echo "# note: conformance: $(sed -n 4p "$T/table")" >&3
    diff tests/CONFORMANCE.md "$T/table"
}

@test "conformance: no conformance test is without a row" {
    for file in tests/unit/test_conformance_*.c; do
        program=${file##*/test_}
        for name in $(tests_of "$file"); do
            grep -qE "(^|\.)$name \|.*\| *(.* )?${program%.c}( |\$)|${program%.c}:$name( |\$)" tests/conformance.rows ||
                fail "$file: $name is in no row of tests/conformance.rows"
        done
    done
}
