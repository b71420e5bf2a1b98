/* child.h - what spawn.c, child.c and warm.c share. */
#ifndef HARK_CHILD_H
#define HARK_CHILD_H

#include <sys/resource.h>

#include "internal.h"
#include "launch.h"

struct child;
LIST_HEAD(child_list, child);

struct spawner {
    struct engine *engine;
    struct spawner_options options;
    char *path;
    struct environment *environment;
    struct launcher *launcher;
    struct line_readers readers; /* also those whose child has gone: background processes may write on */
    int null_fd;                 /* with SPAWN_STDERR_NULL, else -1 */
    unsigned children;           /* on streams */

    struct child_list warm; /* started ahead, waiting for a stream */
    unsigned warm_count;
    ev_timer refill;
    bool warm_failed; /* said so already */

    bool freed; /* by a callback that is at work still */
    struct deferred release;
};

struct child {
    pid_t pid; /* first: the key in the reaper's tree */
    struct spawner *spawner;
    struct iostream *stream;           /* NULL: it waits for one */
    struct iostream *pipes;            /* our ends of its stdin and stdout; NULL: it has the socket, or they have ended */
    struct line_reader *stderr_reader; /* NULL when there is none any more */
    ev_io exit_watcher;                /* its pidfd; fd -1: SIGCHLD tells */
    struct timeout timer;
    bool terminated;         /* TERM was sent, KILL is next */
    LIST_ENTRY(child) entry; /* in warm */
};

/* child.c */
int reaper_get(struct engine *); /* -1: ENOMEM */
void reaper_put(struct engine *);
int child_watch(struct child *);                     /* -1: ENOMEM, it was killed */
void child_forget(struct child *);                   /* it has been reaped: no more of it is known */
void child_relay(struct child *, struct iostream *); /* joins its pipes with the stream */

/* spawn.c: a child with its pipes not yet joined with anything, or with socket_fd as its stdin and stdout. NULL with errno. */
struct child *child_start(struct spawner *, struct iostream *, int socket_fd);

/* warm.c */
void warm_init(struct spawner *);
struct child *warm_take(struct spawner *); /* NULL: none is there */
void warm_exited(struct child *);
void warm_hold_back(struct spawner *); /* a connection began or ended: refill after a moment of quiet */
void warm_release(struct spawner *);

#endif
