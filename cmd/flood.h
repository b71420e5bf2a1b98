/* flood.h - how often lines of one kind may be written that others can cause as often as they like. */
#ifndef HARK_FLOOD_H
#define HARK_FLOOD_H

#include <stdbool.h>
#include <stdint.h>

enum { FLOOD_LINES = 10, FLOOD_SECONDS = 5 }; /* so many in so long */

/* All zero at first. The time is of a clock that never goes back. */
struct flood {
    double began;
    unsigned lines;
    uint64_t suppressed;
};
bool flood_allows(struct flood *, double now); /* one more line */
/* How many were not allowed, once their time is over, or (last) at the end: told once. */
uint64_t flood_suppressed(struct flood *, double now, bool last);

#endif
