/* exec.c - runs a program, connected to its stdin and stdout. */
#include <limits.h>

#include "program.h"

static int configure(char **arguments, const struct handler_options *options, bool resolve, void **config, struct errbuf *err)
{
    (void)options, (void)resolve;
    char path[PATH_MAX];
    *config = arguments;
    return spawn_find_program(arguments[0], path, sizeof path, err);
}

const struct handler exec_handler = {.name = "exec",
                                     .arguments = "PROGRAM [ARG]...",
                                     .summary = "runs a program, connected to its stdin and stdout",
                                     .configure = configure,
                                     PROGRAM_HANDLER};
