#!/usr/bin/env bats
# man/hark.1 against the source: what the program logs, sets and can be connected to is there, and nothing else; and `make install`.

load lib

setup() {
    ROOT=$(cd "$BATS_TEST_DIRNAME/.." && pwd)
    cd "$ROOT" || return
}

# section NAME: its lines.
section() {
    sed -n "/^\.Sh $1\$/,/^\.Sh /p" man/hark.1
}

@test "manual: LOG has every event that there is, and no other" {
    diff <(sed -n 's/.*report_begin([^,]*, "\([a-z]*\)").*/\1/p' cmd/*.c | sort -u) \
        <(section LOG | sed -n 's/^\.It Li \([a-z]*\) .*=.*/\1/p' | sort -u)
}

@test "manual: LOG has every key that there is, and no other" {
    diff <(grep -ohE 'report_(text|number|seconds|bytes)\([^,]*, "[a-z_]+"' cmd/*.c | sed 's/.*"\(.*\)"/\1/' | grep -v '^\(message\|time\)$' | sort -u) \
        <(section LOG | grep '^\.' | grep -oE '\b[a-z_]+=' | grep -v '^key=' | tr -d = | sort -u)
}

@test "manual: LOG has only reasons that there are" {
    for reason in $(section LOG | sed -n '/one of:$/,$s/^\.It Li //p'); do
        grep -q "\"$reason\"" core/*.c || fail "no such reason: $reason"
    done
}

@test "manual: ENVIRONMENT has every variable that a program finds" {
    diff <(grep -ohE '(set|export|export_and_free)\(&?e, "[A-Z_]+' core/environment.c core/tls_info.c | sed 's/.*"//' | sort -u) \
        <(section ENVIRONMENT | sed -n 's/^\.It Ev //p' | sed 's/ , /\n/g' | sort -u)
}

@test "manual: DESCRIPTION has a paragraph for every handler" {
    diff <(grep -oh '\.name = "[a-z]*"' handlers/*.c | cut -d '"' -f 2 | sort) \
        <(sed -n '/^\.Ss Handlers/,/^\.El/p' man/hark.1 | sed -n '1,/^\.El/s/^\.It Cm \([a-z]*\).*/\1/p' | sort -u)
}

@test "install: program, manual, completions and units are where they belong, and the program runs" {
    env -u MAKEFLAGS -u MAKELEVEL -u SAN make install install-dev DESTDIR="$T/root" PREFIX=/usr BUILD="${HARK_BUILD#"$ROOT"/}" >"$T/make.log" 2>&1
    diff <(cd "$T/root" && find . -type f | sort) - <<'END'
./usr/bin/hark
./usr/include/hark.h
./usr/include/hark_files.h
./usr/include/hark_process.h
./usr/include/hark_shared.h
./usr/include/hark_spawn.h
./usr/include/hark_tls.h
./usr/lib/libhark.a
./usr/lib/pkgconfig/hark.pc
./usr/lib/systemd/system/hark-each.socket
./usr/lib/systemd/system/hark-each@.service
./usr/lib/systemd/system/hark@.service
./usr/lib/systemd/system/hark@.socket
./usr/share/bash-completion/completions/hark
./usr/share/fish/vendor_completions.d/hark.fish
./usr/share/man/man1/hark.1
./usr/share/man/man3/hark.3
./usr/share/zsh/site-functions/_hark
END
    equal "$("$T/root/usr/bin/hark" --version)" "$("$HARK" --version)"
    diff man/hark.1 "$T/root/usr/share/man/man1/hark.1"
    grep -qx 'ExecStart=/usr/bin/hark $OPTIONS' "$T/root/usr/lib/systemd/system/hark@.service"
}
