#!/bin/sh
# guess.sh - a number from 1 to 100 to guess, in a dialogue of lines: hark --port 4000 --handler exec tests/services/guess.sh
#
# The shell reads its input a line at a time and writes each answer at once, so that nothing has to be done for the dialogue to flow.

random() {
    od -An -N2 -tu2 /dev/urandom
}

secret=${SECRET:-$(($(random) % 100 + 1))}
guesses=0

echo "I think of a number from 1 to 100. Which one?"
while IFS= read -r guess; do
    guess=${guess%"$(printf '\r')"} # telnet ends its lines so
    case $guess in
        quit)
            echo "It was $secret."
            exit 0
            ;;
        '' | *[!0-9]* | ????*)
            echo "A number, please, or quit."
            continue
            ;;
    esac
    while [ "${guess#0}" != "$guess" ]; do
        guess=${guess#0} # 08 would be an octal number
    done
    guess=${guess:-0}
    guesses=$((guesses + 1))
    if [ "$guess" -lt "$secret" ]; then
        echo "More."
    elif [ "$guess" -gt "$secret" ]; then
        echo "Less."
    else
        echo "Yes, after $guesses."
        exit 0
    fi
done

echo "guess.sh: gave up after $guesses" >&2
exit 1
