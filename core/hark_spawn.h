/* hark_spawn.h - the part of hark.h that is about children: one program on a stream. */
#ifndef HARK_SPAWN_H
#define HARK_SPAWN_H

#include "hark.h"

struct spawner;
enum spawn_io {
    SPAWN_SOCKET, /* the child gets the stream's socket itself; for streams of a server with `blocking` */
    SPAWN_PIPES   /* bytes are relayed through two pipes: for every stream, and each direction ends by itself */
};
enum spawn_stderr { SPAWN_STDERR_LINES, SPAWN_STDERR_CLIENT, SPAWN_STDERR_NULL };
struct spawner_options {
    char *const *argv; /* NULL-terminated; argv[0] is looked up in PATH, once */
    enum spawn_io io;
    enum spawn_stderr stderr_to;
    size_t max_buffer_bytes;   /* of the pipes; 0 = 1 MiB */
    const char *directory;     /* to run in; NULL: ours */
    bool clear_environment;    /* nothing is inherited */
    char *const *variables;    /* NAME=VALUE, in place of inherited ones; NULL-terminated; may be NULL */
    unsigned warm;             /* children kept started ahead; they lack the per-connection variables; needs SPAWN_PIPES */
    double kill_after_seconds; /* from the stream's failure to SIGTERM for the child's process group, and again to SIGKILL; 0: never */
    int null_fd;               /* /dev/null for SPAWN_STDERR_NULL, where it cannot be opened; the caller's. 0: it can */
    unsigned long max_files;   /* soft RLIMIT_NOFILE of a child; 0 = as it is */
    void (*on_stderr)(void *arg, uint64_t stream_id, const char *line, size_t length); /* with SPAWN_STDERR_LINES; 0: not yet connected */
    void (*on_failure)(void *arg, const char *why); /* a child could not be started ahead, or did not wait; may be NULL */
    void *arg;
};
/* What it takes to start children on one loop: program path, environment, pipes. Call it with the process's signal set-up done. As
 * pid 1 it also reaps what was orphaned. */
struct spawner *spawner_new(struct ev_loop *, const struct spawner_options *, struct errbuf *);
/* Where argv[0] is, for a check at start: an absolute path, or -1 with the reason (missing, directory, no execute permission,
 * interpreter missing, also for env(1) in the PATH of the child, or no interpreter line). */
int spawn_find_program(const struct spawner_options *, char *path, size_t size, struct errbuf *);
/* Is it NAME=VALUE, and not a name that the connection itself sets? */
int spawn_check_variable(const char *variable, struct errbuf *);
/* Runs the program on the stream, on which only enders are legal from then on. When the child exits, what it wrote is delivered, FIN
 * sent, and the stream ends with CLOSE_CHILD. If the client resets or the stream is ended before, the child's process group gets
 * SIGTERM after kill_after_seconds, and on_close waits for the child. -1 with errno (EAGAIN, ENOMEM, ...): nothing was started. */
int spawner_start(struct spawner *, struct iostream *);
unsigned spawner_children(const struct spawner *); /* on streams; of one that on_stderr hears the last words of, no more */
/* Once no stream has a child, inside every callback; those that wait are killed, and what they had begun to say comes to on_stderr in here. */
void spawner_free(struct spawner *);

#endif
