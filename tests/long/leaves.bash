# leaves.bash - what is left behind by many connections: nothing.
# shellcheck shell=bash disable=SC2153,SC2154 # variables of lib.bash

# leaves_nothing WARM COUNT KIB [ADDRESS]: after WARM connections, COUNT more leave descriptors, memory and zombies where they were.
leaves_nothing() {
    local descriptors memory address=${4:-$PORT}
    crowd "$address" serial 1
    eventually no_children "$HARK_PID"
    eventually at_rest
    descriptors=$(descriptors "$HARK_PID")
    crowd "$address" serial "$1"
    crowd "$address" reset "$(($2 / 10))" # as many as later: how many are there at once decides what is kept
    eventually has_descriptors "$HARK_PID" "$descriptors"
    memory=$(private_kib "$HARK_PID")
    run crowd "$address" serial "$2"
    equal "$output" "done $2"
    crowd "$address" reset "$(($2 / 10))"
    eventually no_children "$HARK_PID"
    eventually has_descriptors "$HARK_PID" "$descriptors"
    if ! grep -q __asan_init "$HARK"; then
        at_most $(($(private_kib "$HARK_PID") - memory)) "$3" "KiB more"
    fi
    equal "$(zombies "$HARK_PID")" 0 zombies
    stop_hark
}

# No socket is connected: hark has only the one that listens.
at_rest() {
    [ "$(find "/proc/$HARK_PID/fd" -lname 'socket:*' | wc -l)" -eq 1 ]
}
