/* handlers.h - what a connection can be connected to.
 *
 * Adding a handler
 *  1. Write handlers/NAME.c against core/hark.h and this header alone; it ends in one `const struct handler NAME_handler`.
 *  2. Declare it below and list it in handlers/list.c.
 *  3. Options that belong to it go into cmd/options.def, with the handler's name, and into struct handler_options.
 *  4. Give it a tests/NAME.bats, a recipe in README.md and, if it needs words, a paragraph in man/hark.1. */
#ifndef HARK_HANDLERS_H
#define HARK_HANDLERS_H

#include "../core/hark.h"

/* What the command line says to handlers. */
struct handler_options {
    size_t max_buffer_bytes;
    int exec_io;                                   /* exec, shell: 0 auto, 1 socket, 2 pipe */
    bool watch_bytes;                              /* exec, shell: auto is pipe */
    struct spawner_options spawn;                  /* exec, shell: what the command line says of it */
    bool recv_only, send_only;                     /* stdio */
    int send_proxy;                                /* forward: version of the PROXY header; 0 = none */
    bool tls;                                      /* connections are encrypted */
    bool forward_tls, forward_insecure;            /* forward: TLS to the target; unverified */
    const char *forward_tls_ca, *forward_tls_name; /* forward; NULL: the system's, the target's */
    int balance;                                   /* forward: an enum balance_policy */
    double connect_timeout;                        /* forward: seconds; 0 = no limit */
    bool once;                                     /* one connection will be served, no more */
    const char *root;                              /* serving processes see what is in that directory only; NULL: everything */
    bool show_progress;                            /* there is a terminal to show it on, and it is wanted */
};

/* What handlers may ask of the program around them. */
struct handler_host {
    void (*error)(const char *format, ...) __attribute__((format(printf, 1, 2)));          /* an `error:` line */
    void (*child_line)(void *unused, uint64_t stream_id, const char *line, size_t length); /* a `stderr` line */
    /* A `target` line: it is down for now, and why; seconds 0: it can be reached again. */
    void (*target)(const char *name, double retry_seconds, const char *why);
    void (*target_connections)(unsigned target, unsigned connections); /* how many its targets, numbered as its arguments are, have now */
    void (*progress)(const char *text);                                /* replaces the progress line on the terminal; NULL removes it */
    void (*idle)(void);                                                /* what `busy` tells has changed to false */
    void (*fail)(void); /* a failure that ends the program with exit status 1: streams end, then the loop */
};

/* One handler at work in one serving process. */
struct handler_run {
    const struct handler_options *options;
    const struct handler_host *host;
    struct ev_loop *loop;
    void *config;       /* made by configure */
    void *state;        /* made by open */
    bool lends_sockets; /* set by open: accepted sockets are handed to children, and stay blocking */
};

enum {
    HANDLER_ONE_AT_A_TIME = 1, /* the next connection is served when the one before has ended; one process only */
    HANDLER_RUNS_PROGRAMS = 2  /* lets clients run something: warned about when open to everyone */
};

struct handler {
    const char *name;
    const char *arguments; /* for --help, "" if none */
    const char *summary;
    unsigned flags;
    unsigned max_connections; /* the default; 0 = what the descriptor limit allows */
    unsigned descriptors;     /* how many a connection takes */
    /* All but serve may be NULL. configure checks the arguments at start, before anything is bound; there are some if `arguments`
     * says so. resolve: names too (--check). */
    int (*configure)(char **arguments, const struct handler_options *, bool resolve, void **config, struct errbuf *);
    /* At start, too, but with the rights and the root directory of serving processes: is there what they will use? */
    int (*examine)(void *config, const struct handler_options *, struct errbuf *);
    int (*prepare)(struct handler_run *, struct errbuf *); /* in each serving process, before rights are given up */
    int (*open)(struct handler_run *, struct errbuf *);    /* and after that, with its loop */
    int (*serve)(struct handler_run *, struct iostream *); /* a handle_stream_cb */
    bool (*busy)(const struct handler_run *);              /* something outlives the streams */
    void (*close)(struct handler_run *);
    void (*release)(void *config);
};

extern const struct handler echo_handler, discard_handler, exec_handler, shell_handler, forward_handler, stdio_handler;

extern const struct handler *const handlers[]; /* ends with NULL; the first is the default */
const struct handler *handler_find(const char *name);

#endif
