/* internal.h - what the files of core/ share and nobody else sees. */
#ifndef HARK_INTERNAL_H
#define HARK_INTERNAL_H

#include <ev.h>
#include <netinet/in.h>
#include <sys/queue.h>

#include "hark.h"

/* <sys/queue.h> of glibc lacks the loop that allows removal. */
#define LIST_WALK_SAFE(var, head, field, next) for ((var) = LIST_FIRST(head); (var) && ((next) = LIST_NEXT(var, field), 1); (var) = (next))

#define container_of(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

enum { SCRATCH_BYTES = 64 * 1024, DEFAULT_BUFFER_BYTES = 1024 * 1024 };

/* ---- buffer: a byte queue in one piece; owns memory only while it holds bytes */

struct buffer {
    char *data;
    size_t start, length, capacity; /* the bytes are data[start .. start + length) */
};
int buffer_append(struct buffer *, const void *, size_t); /* -1, ENOMEM: unchanged */
void buffer_consume(struct buffer *, size_t);
void buffer_release(struct buffer *);
static inline const char *buffer_bytes(const struct buffer *b)
{
    return b->data + b->start;
}

/* ---- timeouts: one list a length, so that starting and restarting are two pointer moves */

struct timeout_list;
struct timeout {
    TAILQ_ENTRY(timeout) entry;
    struct timeout_list *list; /* NULL: not running */
    ev_tstamp due;
};
typedef void timeout_cb(struct timeout *);
struct engine;
int timeout_start(struct engine *, struct timeout *, double seconds, timeout_cb *); /* restarts; -1, ENOMEM */
void timeout_restart(struct timeout *); /* the same length again; nothing if it is not running */
void timeout_stop(struct timeout *);

/* ---- engine: what all streams of one loop share */

/* Work that must not run inside the call that asked for it. */
struct deferred {
    TAILQ_ENTRY(deferred) entry;
    void (*run)(struct deferred *);
    bool queued;
};

TAILQ_HEAD(deferred_queue, deferred);
LIST_HEAD(timeout_lists, timeout_list);

struct engine {
    struct ev_loop *loop;
    unsigned users;
    unsigned depth; /* how many event entries are on the stack */
    char *scratch;  /* SCRATCH_BYTES: reads land here */
    struct deferred_queue queue;
    ev_idle idle;  /* runs the queue when work was deferred outside an event entry */
    int hangup_fd; /* a private epoll set that reports errors only, for sockets nobody watches */
    ev_io hangup_watcher;
    struct timeout_lists timeouts;
    struct children *children; /* of spawn.c; NULL until needed */
    LIST_ENTRY(engine) entry;
};
struct engine *engine_get(struct ev_loop *, struct errbuf *); /* the loop's own, made when needed; pair with engine_put */
void engine_put(struct engine *);

/* Every callback from libev stands between these two; the outermost leave runs what was deferred, ended streams included. */
void engine_enter(struct engine *);
void engine_leave(struct engine *);
void engine_defer(struct engine *, struct deferred *);
void deferred_cancel(struct engine *, struct deferred *);

/* Reports an error or a reset of a socket without reading it, once. */
struct hangup {
    void (*report)(struct hangup *);
    int fd; /* -1: not watched */
};
int hangup_watch(struct engine *, struct hangup *, int fd);
void hangup_unwatch(struct engine *, struct hangup *); /* before the descriptor is closed: a child may share the description */

/* ---- transport: how a stream's bytes move. Plain, TLS, in-memory for tests; one may wrap another */

enum { TRANSPORT_ERROR = -1, TRANSPORT_WANT_READ = -2, TRANSPORT_WANT_WRITE = -3 };

struct transport;
struct transport_ops {
    /* n > 0, 0 at the peer's orderly end, or TRANSPORT_*: ERROR with errno. */
    ssize_t (*read)(struct transport *, void *, size_t);
    /* n > 0, which may be short, or TRANSPORT_*. */
    ssize_t (*write)(struct transport *, const void *, size_t);
    int (*handshake)(struct transport *);          /* 0 = done; NULL where there is none */
    int (*shutdown)(struct transport *);           /* ends our direction: 0 = done */
    bool (*pending)(struct transport *);           /* bytes that no event will announce; NULL where there are none */
    void (*watch)(struct transport *, int events); /* the set of EV_READ and EV_WRITE to report from now on */
    void (*free)(struct transport *, bool reset);  /* closes; reset: so that the peer sees a reset */
};

struct transport {
    const struct transport_ops *ops;
    int read_fd, write_fd;
    void (*ready)(struct transport *, int events); /* set by the stream */
};
struct transport *transport_plain_new(struct ev_loop *, int read_fd, int write_fd, bool borrow);

/* ---- iostream */

enum read_kind { NO_READ, SOME, BYTES, UNTIL, UNTIL_CLOSE, RELAY };

struct read_request {
    enum read_kind kind;
    bool ready; /* satisfied or failed: the callback is due */
    enum read_status status;
    size_t count;   /* SOME, BYTES, UNTIL: how many at most; when ready, how many */
    size_t scanned; /* UNTIL: no match begins before this offset */
    char *delimiter;
    size_t delimiter_length;
    iostream_read_cb *callback;
    void *arg;
};

struct write_mark {
    STAILQ_ENTRY(write_mark) entry;
    uint64_t position; /* of the last byte, counted in bytes ever queued */
    iostream_write_cb *callback;
    void *arg;
};
STAILQ_HEAD(write_marks, write_mark);

enum out_state {
    OUT_OPEN,
    OUT_FINISHING, /* flush, then shut down */
    OUT_ENDED
};

struct handler_slot {
    iostream_cb *callback;
    void *arg;
};

struct iostream {
    struct engine *engine;
    struct transport *transport;
    struct deferred deferred;
    struct hangup hangup;
    size_t max_buffer_bytes;

    struct buffer in, out;
    struct read_request read;
    struct write_marks marks;
    uint64_t bytes_in, bytes_out, bytes_queued;

    struct iostream *relay_to, *relay_from;

    struct handler_slot on_eof, on_close;
    void *data;
    struct timeout timers[IOSTREAM_TIMERS], linger;

    enum out_state out_state;
    enum close_reason reason;
    int error, child_status;
    int watching;              /* events asked of the transport */
    int read_want, write_want; /* what the last read, write was waiting for */
    bool in_ended;             /* the peer's EOF was read from the transport */
    bool eof_told;             /* on_eof was called */
    bool dropping;             /* iostream_close: input is read and dropped */
    bool reset_after_flush;    /* the other end of a relay was reset: end like it once all is out */
    bool lent;                 /* the socket is a child's: neither read nor written here */
    bool sendable;             /* a socket: resets can be sent and hangups watched */

    /* of the server it came from */
    struct tcpserver *server;
    LIST_ENTRY(iostream) server_entry;
    struct child *child;
    uint64_t id;
    ev_tstamp opened;
    union {
        struct sockaddr any;
        struct sockaddr_in in4;
        struct sockaddr_in6 in6;
    } peer;
};

struct iostream *iostream_over(struct engine *, struct transport *, const struct iostream_options *); /* NULL: ENOMEM, nothing taken */
void iostream_set_peer(struct iostream *, const struct sockaddr *, socklen_t);
void iostream_update(struct iostream *);                             /* works out what to wait for, after any change */
void iostream_fail(struct iostream *, enum close_reason, int error); /* ends it; later calls do nothing */
void iostream_fail_io(struct iostream *, int error);                 /* picks the reason by errno */
void iostream_moved(struct iostream *);                              /* bytes went through: idle time begins anew */
bool iostream_is_socket(const struct iostream *);

/* read.c */
void read_take(struct iostream *);         /* the transport may have bytes: read, satisfy, relay or drop */
void read_finish(struct iostream *);       /* the callback of a ready request, then on_eof */
void read_fail(struct iostream *);         /* at the stream's end */
bool read_wanted(const struct iostream *); /* should the transport be read? */
void read_settle(struct iostream *);       /* looks again at the request after something changed */

/* write.c */
int write_bytes(struct iostream *, const void *, size_t); /* sends, queues the rest; -1: the stream has failed */
void write_flush(struct iostream *);                      /* the transport may take bytes */
void write_end(struct iostream *);                        /* flushed and finishing: shut down */
void write_complete(struct iostream *, int error);        /* callbacks whose bytes are with the kernel; with an error, all */

/* relay.c */
void relay_input(struct iostream *from, const char *, size_t); /* bytes read for the relay */
void relay_eof(struct iostream *from);
void relay_unlink(struct iostream *); /* at the stream's end: tells the other ends */

/* tcpserver.c */
void tcpserver_stream_ended(struct iostream *);

/* spawn.c */
void child_stream_ended(struct iostream *);

#endif
