/* number.h - numbers as people type them. */
#ifndef HARK_NUMBER_H
#define HARK_NUMBER_H

#include <stdlib.h>
#include <string.h>

/* Digits of that base (8 or 10) and nothing else, not even a sign; -1 otherwise. Too many of them make LLONG_MAX. */
static inline long long whole_number(const char *text, int base)
{
    if (!*text || text[strspn(text, base == 8 ? "01234567" : "0123456789")])
        return -1;
    return strtoll(text, NULL, base);
}

#endif
