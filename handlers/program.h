/* program.h - what exec and shell have in common: a program on each connection. */
#ifndef HARK_PROGRAM_H
#define HARK_PROGRAM_H

#include "handlers.h"

enum {
    PROGRAM_CONNECTIONS = 100, /* the default limit: each is a process */
    PROGRAM_DESCRIPTORS = 6    /* of each: the socket, three pipes, the pidfd, and one for a moment */
};
/* The configuration is the program's argv. */
int program_examine(void *config, const struct handler_options *, struct errbuf *);
int program_open(struct handler_run *, struct errbuf *);
int program_serve(struct handler_run *, struct iostream *);
void program_close(struct handler_run *);

/* What their entries share. */
#define PROGRAM_HANDLER                                                                                         \
    .flags = HANDLER_RUNS_PROGRAMS, .max_connections = PROGRAM_CONNECTIONS, .descriptors = PROGRAM_DESCRIPTORS, \
    .examine = program_examine, .open = program_open, .serve = program_serve, .close = program_close

#endif
