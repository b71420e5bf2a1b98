/* worker.h - the life of one serving process. */
#ifndef HARK_WORKER_H
#define HARK_WORKER_H

#include "board.h"
#include "files.h"
#include "listen.h"
#include "ssl.h"

struct worker_job {
    const struct settings *settings;
    const struct handler_options *handler_options;
    void *handler_config;
    struct ssl *ssl;
    struct listeners *listeners;             /* taken over */
    struct files *files;                     /* read, and read again on SIGHUP */
    struct shared *shared;                   /* by all processes */
    struct board *board;                     /* NULL: there are no metrics */
    unsigned max_connections;                /* of this process */
    bool supervised;                         /* a parent restarts us, and logs what concerns all */
    bool hangup_ignored;                     /* SIGHUP was ignored at start (nohup) */
    bool (*hangup_is_term)(void *);          /* a SIGHUP that comes because the terminal has gone */
    int (*confine)(void *, struct errbuf *); /* what serves may do less from now on */
    void (*serving)(void *);                 /* everything stands */
    void *arg;
};

/* Serves until there is nothing left to do. Returns the exit status; 128 + SIGINT asks for a death by that signal. */
int worker_run(const struct worker_job *);

#endif
