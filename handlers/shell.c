/* shell.c - runs a shell command, connected to its stdin and stdout. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"

static char shell[] = "/bin/sh", option[] = "-c";

static int configure(char **arguments, const struct handler_options *options, bool resolve, void **config, struct errbuf *err)
{
    (void)options, (void)resolve;
    if (arguments[0][strspn(arguments[0], " \t\n")] == '\0')
        return errbuf_set(err, "shell needs a command: --handler shell 'COMMAND'");
    if (arguments[1])
        return errbuf_set(err, "shell takes one command, \"%s\" is one word too many: quote the whole command", arguments[1]);
    char **argv = calloc(4, sizeof *argv);
    if (!argv)
        return errbuf_set(err, "cannot prepare the command: %s", strerror(errno));
    argv[0] = shell;
    argv[1] = option;
    argv[2] = arguments[0];
    *config = argv;
    return 0;
}

const struct handler shell_handler = {.name = "shell",
                                      .arguments = "COMMAND",
                                      .summary = "runs a command with /bin/sh -c",
                                      .configure = configure,
                                      .release = free,
                                      PROGRAM_HANDLER};
