/* valgrind.h - it does some system calls its own way, and everything slowly. */
#ifndef TEST_VALGRIND_H
#define TEST_VALGRIND_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline bool is_on_valgrind(void)
{
    const char *preloaded = getenv("LD_PRELOAD");
    return preloaded && strstr(preloaded, "vgpreload");
}

/* What takes longer than that hangs, and is ended by SIGALRM. */
static inline void limit_time(unsigned seconds)
{
    alarm(is_on_valgrind() ? 30 * seconds : seconds);
}

#endif
