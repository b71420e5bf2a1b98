/* pattern.c - random bytes with a prime period, so that no chunk can take another one's place unseen. */
#include <string.h>

#include "load.h"

enum { PERIOD = 65521 };

static char pattern[PERIOD + PATTERN_CHUNK];

static void make(void)
{
    uint32_t state = 2463534242;
    for (size_t i = 0; i < PERIOD; i++) {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        pattern[i] = (char)state;
    }
    for (size_t i = PERIOD; i < sizeof pattern; i++)
        pattern[i] = pattern[i - PERIOD];
}

const char *pattern_at(uint64_t offset)
{
    static bool made;
    if (!made)
        make();
    made = true;
    return pattern + offset % PERIOD;
}

void pattern_check(const char *bytes, size_t length, uint64_t offset)
{
    if (memcmp(bytes, pattern_at(offset), length) != 0)
        die("wrong bytes came back, at offset %ju or a little later", (uintmax_t)offset);
}
