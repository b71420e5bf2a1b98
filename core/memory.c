/* memory.c - a reserve for libev, which ends the program when one of its arrays cannot grow.
 *
 * It is given back to the system then, which leaves room for that array, and until there is a new one memory counts as short and the
 * listeners rest. Every array doubles when it grows: a reserve of twice the largest has room for both. */
#include <ev.h>
#include <stdlib.h>

#include "internal.h"

static const size_t least_bytes = 65536;

static _Thread_local void *reserve;
static _Thread_local size_t reserve_bytes, largest_bytes;

/* As libev wants it: free with size 0, else realloc. */
static void *for_libev(void *block, long size)
{
    if (size == 0) {
        free(block);
        return NULL;
    }
    void *grown = realloc(block, (size_t)size);
    if (!grown && reserve) {
        free(reserve);
        reserve = NULL;
        grown = realloc(block, (size_t)size);
    }
    if (grown && (size_t)size > largest_bytes)
        largest_bytes = (size_t)size;
    return grown;
}

bool memory_is_short(void)
{
    size_t wanted = 2 * largest_bytes > least_bytes ? 2 * largest_bytes : least_bytes;
    if (!reserve || reserve_bytes < wanted) {
        free(reserve);
        reserve = malloc(wanted); /* never touched, so it costs addresses rather than memory */
        reserve_bytes = wanted;
    }
    return !reserve;
}

int memory_reserve(void)
{
    ev_set_allocator(for_libev);
    return memory_is_short() ? -1 : 0;
}

void memory_release(void)
{
    free(reserve);
    reserve = NULL;
}
