#!/usr/bin/env bats
# What is made from the option table: --help, the OPTIONS of man/hark.1 and the completions say the same, and it is true.

load lib

setup() {
    cd "$BATS_TEST_DIRNAME/.." || return
    optdoc=$(realpath "$HARK_BUILD/optdoc")
    program=$(realpath "$HARK")
}

# The names in the table, read without the program.
table() {
    sed -n 's/^OPTION([A-Z]*, [^,]*, "\([a-z0-9-]*\)".*/\1/p' cmd/options.def | sort
}

handler_names() {
    grep -oh '\.name = "[a-z]*"' handlers/*.c | cut -d '"' -f 2 | sort | xargs
}

# complete_in_bash WORD...: what bash offers for the last word.
complete_in_bash() {
    bash --norc -c '
        source cmd/completions/hark.bash
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _hark
        printf "%s\n" "${COMPREPLY[@]}"' bash "$@" | sort | xargs
}

complete_in_fish() {
    # shellcheck disable=SC2016 # fish expands it
    fish --no-config -c 'source cmd/completions/hark.fish; complete -C "$argv"' -- "$1" | cut -f 1 | sort | xargs
}

@test "optdoc: what is committed is what the table says" {
    mkdir -p "$BATS_TEST_TMPDIR/cmd" "$BATS_TEST_TMPDIR/man"
    cp -r cmd/completions "$BATS_TEST_TMPDIR/cmd/"
    [ ! -e man/hark.1 ] || cp man/hark.1 "$BATS_TEST_TMPDIR/man/"

    "$BATS_TEST_TMPDIR/cmd/completions/generate" "$optdoc"
    diff -r cmd/completions "$BATS_TEST_TMPDIR/cmd/completions"
    [ ! -e man/hark.1 ] || diff man/hark.1 "$BATS_TEST_TMPDIR/man/hark.1"
}

@test "optdoc: generate leaves a manual without its two marks alone" {
    mkdir -p "$BATS_TEST_TMPDIR/cmd" "$BATS_TEST_TMPDIR/man"
    cp -r cmd/completions "$BATS_TEST_TMPDIR/cmd/"
    printf '.\\" begin options\nkept\n' >"$BATS_TEST_TMPDIR/man/hark.1"

    run "$BATS_TEST_TMPDIR/cmd/completions/generate" "$optdoc"
    [ "$status" -eq 1 ]
    [[ "$output" == *"man/hark.1 lacks the lines"* ]]
    [ "$(tail -n 1 "$BATS_TEST_TMPDIR/man/hark.1")" = kept ]
}

@test "optdoc: help, manual and completions have the options of the table and no others" {
    [ "$(table | wc -l)" -eq "$(grep -c '^OPTION(' cmd/options.def)" ]
    diff <(table) <("$program" --help | sed -n 's/^ \{2,6\}\(-., \)\{0,1\}--\([a-z0-9-]*\).*/\2/p' | sort)
    diff <(table) <("$optdoc" bash | sed -n "s/^    local options='\(.*\)'/\1/p" | tr ' ' '\n' | sed 's/^--//' | sort)
    diff <(table) <("$optdoc" zsh | sed -n 's/^    .*--\([a-z0-9-]*\)[=}'\''].*/\1/p' | sort)
    diff <(table) <("$optdoc" fish | sed -n 's/.* -l \([a-z0-9-]*\) .*/\1/p' | sort)
    diff <(table) <("$optdoc" mdoc | sed -n 's/^\.It .*Fl -\([a-z0-9-]*\).*/\1/p' | sort)
}

@test "optdoc: the program knows every option of the table" {
    for name in $(table); do
        run "$program" "--$name"
        [[ "$output" != *"unknown option"* ]]
    done
    run "$program" --no-such-option
    [ "$status" -eq 2 ]
    [[ "$output" == *"unknown option"* ]]
}

@test "optdoc: help begins with four examples that are right, names every handler, and fits 80 columns" {
    "$program" --help >"$BATS_TEST_TMPDIR/help"
    run awk 'length > 80' "$BATS_TEST_TMPDIR/help"
    [ -z "$output" ]
    for name in $(handler_names); do
        grep -q "^      $name " "$BATS_TEST_TMPDIR/help"
        "$optdoc" mdoc | grep -qE "^\.It Cm $name( |$)"
    done

    mapfile -t examples < <(sed -n '/^Examples:/,/^$/s/^  \(hark .*[^ ]\)  .*/\1/p' "$BATS_TEST_TMPDIR/help")
    [ "${#examples[@]}" -eq 4 ]
    cd "$BATS_TEST_TMPDIR"
    hark() { "$program" --check "$@"; }
    for example in "${examples[@]}"; do
        eval "$example"
    done
}

@test "optdoc: mandoc finds nothing to complain about" {
    command -v mandoc >/dev/null || skip "no mandoc"
    {
        printf '.Dd January 1, 2026\n.Dt HARK 1\n.Os\n.Sh NAME\n.Nm hark\n.Nd serve\n.Sh SYNOPSIS\n.Nm\n.Sh DESCRIPTION\nServes.\n'
        "$optdoc" mdoc
    } >"$BATS_TEST_TMPDIR/hark.1"
    run mandoc -Tlint "$BATS_TEST_TMPDIR/hark.1"
    [ "$status" -eq 0 ]
    [ -z "$output" ]
}

@test "optdoc: the shells can read their completions" {
    bash -n cmd/completions/hark.bash
    ! command -v zsh >/dev/null || zsh -n cmd/completions/_hark
    ! command -v fish >/dev/null || fish -n cmd/completions/hark.fish
}

@test "optdoc: bash completes" {
    [ "$(complete_in_bash hark --max-)" = "--max-accepts --max-buffer-size --max-connections --max-handshakes --max-lifetime --max-per-ip --max-rate --max-restarts" ]
    [ "$(complete_in_bash hark -p 1 --handler '')" = "$(handler_names)" ]
    [ "$(complete_in_bash hark -p 1 -H f)" = forward ]
    [ "$(complete_in_bash hark --handler = d)" = discard ]
    [ "$(complete_in_bash hark --log-format =)" = "json text" ]
    [ "$(complete_in_bash hark --log-format = j)" = json ]
    [ -z "$(complete_in_bash hark --port --o)" ]
    touch "$BATS_TEST_TMPDIR/a socket"
    [ "$(complete_in_bash hark -U "$BATS_TEST_TMPDIR/a")" = "$BATS_TEST_TMPDIR/a socket" ]
    # After the options come the handler's words.
    [ -z "$(complete_in_bash hark -H forward host --o)" ]
    [ -z "$(complete_in_bash hark -- --o)" ]
    [[ " $(complete_in_bash hark -H exec bas) " == *" bash "* ]]
    [ -z "$(complete_in_bash hark -H exec bash --o)" ]
}

@test "optdoc: fish completes" {
    command -v fish >/dev/null || skip "no fish"
    [ "$(complete_in_fish 'hark --max-')" = "--max-accepts --max-buffer-size --max-connections --max-handshakes --max-lifetime --max-per-ip --max-rate --max-restarts" ]
    [ "$(complete_in_fish 'hark -p 1 --handler ')" = "$(handler_names)" ]
    [ "$(complete_in_fish 'hark --log-format=')" = "--log-format=json --log-format=text" ]
    [[ " $(complete_in_fish 'hark -H exec bas') " == *" bash "* ]]
}
