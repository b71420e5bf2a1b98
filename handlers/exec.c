/* exec.c - runs a program, connected to its stdin and stdout. */
#include "program.h"

static int configure(char **arguments, const struct handler_options *options, bool resolve, void **config, struct errbuf *err)
{
    (void)options, (void)resolve, (void)err;
    *config = arguments;
    return 0;
}

const struct handler exec_handler = {.name = "exec",
                                     .arguments = "PROGRAM [ARG]...",
                                     .summary = "runs a program, connected to its stdin and stdout",
                                     .configure = configure,
                                     PROGRAM_HANDLER};
