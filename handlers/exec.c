/* exec.c - runs a program on each connection: its stdin and stdout are the connection itself, its stderr goes to the log. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "handlers.h"

enum { DEFAULT_CONNECTIONS = 100 };
static const double KILL_AFTER_SECONDS = 5;

static int configure(char **arguments, const struct handler_options *options, bool resolve, void **config, struct errbuf *err)
{
    (void)options, (void)resolve;
    char path[PATH_MAX];
    if (!arguments[0])
        return errbuf_set(err, "exec needs a program to run: --handler exec PROGRAM [ARG]...");
    *config = arguments;
    return spawn_find_program(arguments[0], path, sizeof path, err);
}

static int open_spawner(struct handler_run *run, struct errbuf *err)
{
    struct spawner_options options = {.argv = run->config,
                                      .kill_after_seconds = KILL_AFTER_SECONDS,
                                      .max_files = run->options->max_files,
                                      .on_stderr = run->host->child_line};
    run->state = spawner_new(run->loop, &options, err);
    return run->state ? 0 : -1;
}

static int serve(struct handler_run *run, struct iostream *stream)
{
    char **argv = run->config;
    if (spawner_start(run->state, stream) == 0)
        return 0;
    run->host->error("cannot run \"%s\": %s", argv[0], strerror(errno));
    return -1;
}

static void close_spawner(struct handler_run *run)
{
    spawner_free(run->state);
}

const struct handler exec_handler = {.name = "exec",
                                     .arguments = "PROGRAM [ARG]...",
                                     .summary = "runs a program, connected to its stdin and stdout",
                                     .flags = HANDLER_BLOCKING | HANDLER_RUNS_PROGRAMS,
                                     .max_connections = DEFAULT_CONNECTIONS,
                                     .descriptors = 2,
                                     .configure = configure,
                                     .open = open_spawner,
                                     .serve = serve,
                                     .close = close_spawner};
