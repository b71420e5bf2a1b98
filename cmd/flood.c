/* flood.c - so many lines in so long, and a count of the others. */
#include "flood.h"

bool flood_allows(struct flood *f, double now)
{
    if (f->lines == 0 || now - f->began >= FLOOD_SECONDS) {
        f->began = now;
        f->lines = 0;
    }
    if (f->lines < FLOOD_LINES) {
        f->lines++;
        return true;
    }
    f->suppressed++;
    return false;
}

uint64_t flood_suppressed(struct flood *f, double now, bool last)
{
    uint64_t count = f->suppressed;
    if (!last && now - f->began < FLOOD_SECONDS)
        return 0;
    f->suppressed = 0;
    return count;
}
