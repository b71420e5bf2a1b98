/* list.c - the handlers there are. */
#include <string.h>

#include "handlers.h"

const struct handler *const handlers[] = {&echo_handler,    &discard_handler, &exec_handler, &shell_handler,
                                          &forward_handler, &stdio_handler,   NULL};

const struct handler *handler_find(const char *name)
{
    for (const struct handler *const *h = handlers; *h; h++) {
        if (strcmp((*h)->name, name) == 0)
            return *h;
    }
    return NULL;
}
