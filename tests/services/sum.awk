#!/usr/bin/awk -f
# sum.awk - adds up a column of numbers: hark --port 4002 --handler exec tests/services/sum.awk
#
# The answer comes after the end of the input: the client has to end its side, as nc -N does. What is no number is said on standard
# error, which is hark's log.

/^[[:space:]]*$/ {
    next
}

$1 ~ /^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)\r?$/ {
    sum += $1
    count++
    next
}

{
    print "sum.awk: line " NR " is no number" >"/dev/stderr"
    bad++
}

END {
    printf "%d %s, %.15g\n", count, count == 1 ? "number" : "numbers", sum
    exit bad > 0
}
