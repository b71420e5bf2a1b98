# leaves.bash - what is left behind by many connections: nothing.
# shellcheck shell=bash disable=SC2153,SC2154 # variables of lib.bash

# leaves_nothing WARM COUNT KIB [ADDRESS]: after WARM connections, COUNT more leave descriptors, memory and zombies where they were.
leaves_nothing() {
    local descriptors address=${4:-$PORT}
    crowd "$address" serial 1
    eventually no_children "$HARK_PID"
    eventually at_rest
    descriptors=$(descriptors "$HARK_PID")
    crowd "$address" serial "$1"
    crowd "$address" reset "$(($2 / 10))" # as many as later: how many are there at once decides what is kept
    eventually has_descriptors "$HARK_PID" "$descriptors"
    leaves_memory "$2" "$3"
    equal "$(zombies "$HARK_PID")" 0 zombies
    stop_hark
}

# What is lost with each connection is lost every time. On a busy machine more of them may be there at once than ever before, and the
# heap takes one step up: so one of three times has to be level.
leaves_memory() { # COUNT KIB
    local memory more time
    for time in 1 2 3; do
        memory=$(private_kib "$HARK_PID")
        run crowd "$address" serial "$1"
        equal "$output" "done $1"
        crowd "$address" reset "$(($1 / 10))"
        eventually no_children "$HARK_PID"
        eventually has_descriptors "$HARK_PID" "$descriptors"
        more=$(($(private_kib "$HARK_PID") - memory))
        echo "KiB more, time $time: $more"
        if ((more <= $2)) || grep -q __asan_init "$HARK"; then
            return
        fi
    done
    fail "$1 connections took more than $2 KiB three times"
}

# No socket is connected: hark has only the one that listens.
at_rest() {
    [ "$(find "/proc/$HARK_PID/fd" -lname 'socket:*' | wc -l)" -eq 1 ]
}
