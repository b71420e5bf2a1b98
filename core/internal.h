/* internal.h - what the files of core/ share and nobody else sees. */
#ifndef HARK_INTERNAL_H
#define HARK_INTERNAL_H

#include <ev.h>
#include <netinet/in.h>
#include <sys/queue.h>

#include "hark.h"

#define container_of(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

enum { SCRATCH_BYTES = 64 * 1024, DEFAULT_BUFFER_BYTES = 1024 * 1024 };
enum { FIN_WAIT1 = 4, FIN_WAIT2 = 5, TIME_WAIT = 6, CLOSED = 7, CLOSE_WAIT = 8, LAST_ACK = 9, CLOSING = 11 }; /* the kernel's, of TCP */

/* ---- buffer: a byte queue in one piece; owns memory only while it holds bytes */

struct buffer {
    struct buffer_block *block; /* NULL: there are none */
};
struct buffer_block {
    size_t start, length, capacity; /* the bytes are bytes[start .. start + length) */
    char bytes[];
};
int buffer_append(struct buffer *, const void *, size_t); /* -1, ENOMEM: unchanged */
void buffer_consume(struct buffer *, size_t);
void buffer_release(struct buffer *);
static inline size_t buffer_length(const struct buffer *b)
{
    return b->block ? b->block->length : 0;
}
static inline const char *buffer_bytes(const struct buffer *b) /* NULL: there are none */
{
    return b->block ? b->block->bytes + b->block->start : NULL;
}

/* ---- memory.c: a reserve for libev's own arrays, one a thread */

int memory_reserve(void); /* sets libev's allocator, which is the same for all its loops; -1, ENOMEM */
void memory_release(void);
bool memory_is_short(void); /* the reserve was used up, and cannot be replaced yet */

/* ---- timeouts: one list a length, so that starting and restarting are two pointer moves */

struct timeout_list;
struct timeout {
    TAILQ_ENTRY(timeout) entry;
    struct timeout_list *list; /* NULL: not running */
    double due;                /* by engine_now */
};
typedef void timeout_cb(struct timeout *);
struct engine;
int timeout_start(struct engine *, struct timeout *, double seconds, timeout_cb *); /* restarts; -1, ENOMEM */
void timeout_restart(struct timeout *); /* the same length again; nothing if it is not running */
void timeout_stop(struct timeout *);
void timeout_lists_free(struct engine *); /* all stopped by now */

/* ---- engine: what all streams of one loop share */

/* Work that must not run inside the call that asked for it. */
struct deferred {
    TAILQ_ENTRY(deferred) entry;
    void (*run)(struct deferred *);
};
static inline bool is_deferred(const struct deferred *d)
{
    return d->entry.tqe_prev;
}

TAILQ_HEAD(deferred_queue, deferred);
LIST_HEAD(timeout_lists, timeout_list);

struct engine {
    struct ev_loop *loop;
    unsigned users;
    double now;                /* monotonic; 0: not asked for in this event entry */
    unsigned depth;            /* how many event entries are on the stack */
    uint32_t event;            /* how many event entries there were, from 1 */
    unsigned turn, handshakes; /* how many there were in that turn of the loop */
    char *scratch;             /* SCRATCH_BYTES: reads land here */
    struct deferred_queue queue;
    ev_idle idle; /* runs the queue when work was deferred outside an event entry */
    ev_async waker;
    int hangup_fd; /* a private epoll set that reports errors only, for sockets nobody watches */
    ev_io hangup_watcher;
    struct timeout_lists timeouts;
    struct reaper *reaper;           /* of spawn.c; NULL until needed */
    struct resolver *resolver;       /* of resolve.c; NULL until needed */
    struct splice_pool *splice_pool; /* of splice.c; NULL until needed */
    LIST_ENTRY(engine) entry;
};
struct engine *engine_get(struct ev_loop *, struct errbuf *); /* the loop's own, made when needed; pair with engine_put */
void engine_put(struct engine *);

double engine_now(struct engine *); /* seconds of CLOCK_MONOTONIC, the same throughout one event entry */

/* Every callback from libev stands between these two; the outermost leave runs what was deferred, ended streams included. */
void engine_enter(struct engine *);
void engine_leave(struct engine *);
void engine_catch_up(struct engine *); /* for what is called outside of events, while the loop's clock stands still */
void engine_defer(struct engine *, struct deferred *);
void engine_let_go(struct engine *, struct deferred *, void (*run)(struct deferred *)); /* now, or when no callback is at work any more */
void engine_run_out(struct engine *); /* all that is deferred, when the loop will not run any more */
void deferred_cancel(struct engine *, struct deferred *);

/* Reports an error or a reset of a socket without reading it, once; on request also that it can be read, as long as it can.
 * Unlike libev's own set this one forgets a socket before it is closed: a child may hold the description longer than we do. */
struct hangup {
    void (*report)(struct hangup *, unsigned events); /* of epoll(7) */
    int fd;                                           /* -1: not watched */
};
int hangup_watch(struct engine *, struct hangup *, int fd, bool readable);
void hangup_unwatch(struct engine *, struct hangup *);
/* Reports each write to an eventfd that nobody reads. Does not keep the loop running. */
int wake_watch(struct engine *, struct hangup *, int fd);
void wake_unwatch(struct engine *, struct hangup *);

/* ---- transport: how a stream's bytes move. Plain, TLS, in-memory for tests; one may wrap another */

enum { TRANSPORT_ERROR = -1, TRANSPORT_WANT_READ = -2, TRANSPORT_WANT_WRITE = -3 };

struct transport;
struct transport_ops {
    /* n > 0, 0 at the peer's orderly end, or TRANSPORT_*: ERROR with errno. */
    ssize_t (*read)(struct transport *, void *, size_t);
    /* n > 0, which may be short, or TRANSPORT_*. */
    ssize_t (*write)(struct transport *, const void *, size_t);
    int (*handshake)(struct transport *); /* 0 = done; NULL where there is none */
    /* Ends our direction: 0 = done, or TRANSPORT_*. last: the descriptor is closed right after, which says it too. */
    int (*shutdown)(struct transport *, bool last);
    bool (*pending)(struct transport *);           /* bytes that no event will announce; NULL where there are none */
    void (*watch)(struct transport *, int events); /* the set of EV_READ and EV_WRITE to report from now on */
    void (*free)(struct transport *, bool reset);  /* closes; reset: so that the peer sees a reset */
};

struct transport {
    const struct transport_ops *ops;
    int read_fd, write_fd;
    struct iostream *owner;
};
void transport_ready(struct transport *, int events); /* tells the owner; EV_ERROR: it cannot be watched */
enum { TRANSPORT_SOCKET = 1 << 8 };                   /* beside the flags of iostream_new: the descriptor is known to be a socket */
bool transport_can_splice(const struct transport *);
/* NULL: ENOMEM, nothing taken. */
struct transport *transport_plain_new(struct ev_loop *, int read_fd, int write_fd, unsigned flags);

/* tls.c: TLS over a transport, which it takes over; name: whom a client wants to talk to. NULL, nothing taken: ENOMEM, or
 * EINVAL, a client that verifies lacks a name. */
struct transport *transport_tls_new(struct transport *inner, struct tls_context *, const char *name);
struct tls_info *tls_describe(struct transport *); /* NULL: it is not TLS, or ENOMEM */
void tls_info_free(struct tls_info *);
typedef void tls_variable_cb(void *arg, const char *name, const char *value);
void tls_export(struct transport *, tls_variable_cb *, void *arg); /* the environment of a child; nothing if it is not TLS */
bool tls_is_client(const struct tls_context *);
struct tls_context *tls_context_keep(struct tls_context *); /* one user more */
/* Asked before each accept: false means not now, and that the handler was paused. unused: it was asked, and there was nothing. */
void accept_handler_gate(struct accept_handler *, bool (*ask)(void *arg), void (*unused)(void *arg));
/* Nobody can connect any more; who has connected, or is about to, can still be accepted. Whoever else has the socket is bound by it. */
void listener_let_nobody_in(int fd);
bool listener_has_handshakes(int fd); /* clients who will have connected in a moment; false also where the kernel does not tell */

/* proxied.c: one that has to begin with a PROXY header, whose end is the handshake's. NULL: ENOMEM, nothing taken. */
struct transport *transport_proxied_new(struct engine *, struct transport *inner);
struct address;
void proxied_unwrap(struct iostream *, struct address *client); /* after the handshake: the inner transport is the stream's */

/* ---- iostream */

enum read_kind { NO_READ, SOME, BYTES, INTO, UNTIL, UNTIL_MATCH, UNTIL_CLOSE, DISCARD, RELAY };

struct read_request {
    enum read_kind kind : 8;
    enum read_status status : 8;
    bool ready;   /* satisfied or failed: the callback is due */
    bool partial; /* INTO: the first bytes are enough */
    uint32_t delimiter_length;
    size_t count; /* SOME, BYTES, INTO, UNTIL, UNTIL_MATCH: how many at most; when ready, how many */
    union {
        size_t scanned; /* UNTIL: no match begins before this offset; UNTIL_MATCH: how many bytes it has seen */
        size_t filled;  /* INTO: of the memory */
    };
    union {
        char *delimiter;       /* UNTIL; our own */
        iostream_match *match; /* UNTIL_MATCH */
        char *memory;          /* INTO; the caller's */
    };
    iostream_read_cb *callback;
    void *arg;
};

/* In a ring: the stream knows the last one, and that one the first. */
struct write_mark {
    struct write_mark *next;
    uint64_t position; /* of the last byte, counted in bytes ever queued */
    iostream_write_cb *callback;
    void *arg;
};

enum out_state {
    OUT_OPEN,
    OUT_FINISHING, /* flush, then shut down */
    OUT_ENDED
};

struct handler_slot {
    iostream_cb *callback;
    void *arg;
};

/* There may be thousands of them: what few streams need is behind a pointer, and flags are bits. */
struct iostream {
    struct engine *engine;
    struct transport *transport; /* NULL once the stream has ended */
    struct deferred deferred;
    struct hangup hangup;
    size_t max_buffer_bytes;

    struct buffer in, out;
    struct read_request read;
    struct write_mark *last_mark; /* NULL: there are none */
    uint64_t bytes_in, bytes_out;

    struct iostream *relay_to, *relay_from;
    struct splice_pipe *piped; /* queued before what is in `out`: see splice.c; or NULL */

    struct handler_slot on_eof, on_close, on_open; /* on_open: after the handshake; or iostream_try_again's */
    void *data;
    struct time_limits *limits; /* NULL: it never had any */
    float moved_step;           /* seconds in which moved bytes do not restart timers again; 0: there are none */

    int error;
    enum out_state out_state : 8;
    enum close_reason reason : 8;   /* CLOSE_NONE: open */
    enum close_reason close_as : 8; /* the reason that an orderly end will have; CLOSE_NONE: by which side ended first */
    unsigned char watching;         /* events asked of the transport */
    unsigned char read_want, write_want, handshake_want; /* which event each is waiting for */
    unsigned char bulky;                                 /* whether its relay should splice: see splice.c */
    bool handshaking : 1;
    bool fresh : 1;         /* accepted just now: what the peer sent along with connecting is here most often */
    bool in_ended : 1;      /* the peer's EOF was read from the transport */
    bool eof_again : 1;     /* and then an event reported it once more */
    bool out_first : 1;     /* our side ended before the peer's */
    bool eof_told : 1;      /* on_eof was called */
    bool dropping : 1;      /* closing: input is read and dropped until the end */
    bool dry_is_eof : 1;    /* who wrote here is gone: an empty pipe is its end, whoever else holds it open */
    bool write_may_end : 1; /* a child need not read all it is given: an end of its stdin is no failure */
    bool was_lent : 1;      /* so its bytes are counted by the kernel only */
    bool lent : 1;          /* the socket is for a child: neither read nor written here */
    bool peer_gone : 1;     /* it has reset the connection: there is no telling it anything */
    bool is_socket : 1;     /* a reset can be sent, and learned of without reading */
    bool served : 1;        /* handle_stream was called with it */
    bool counted : 1;       /* among the streams from its peer's address */
    bool waiting : 1;       /* iostream_try_again: on_open is to be called */

    struct tcpserver *server; /* the one it came from, or NULL */
    LIST_ENTRY(iostream) server_entry;
    struct child *child; /* the one that has its socket, or NULL */
    struct child_result *child_result;
    struct tls_info *tls_info; /* made when asked for, and at the end */
    uint64_t id;
    double opened; /* by engine_now */
    union {
        struct sockaddr any;
        struct {
            sa_family_t family; /* AF_UNIX */
            bool known;         /* the credentials were asked for */
            struct ucred credentials;
        } local;
        struct sockaddr_in in4;
        struct sockaddr_in6 in6;
    } peer;
    uint32_t header_bytes; /* of the PROXY header, which are none of bytes_in */
};

/* limits.c: for how long a stream may do what */
struct time_limits {
    struct iostream *stream;
    struct timeout timers[IOSTREAM_TIMERS], linger; /* linger: the handshake, or the end, takes too long */
    float seconds[IOSTREAM_TIMERS];
    uint32_t moved_event;                  /* the engine's event entry in which bytes moved last */
    double moved_at, moved_until;          /* when bytes that moved restarted timers, by ev_now, and until when they do not again */
    uint64_t moved_bytes[IOSTREAM_TIMERS]; /* in and out, when a timer was started */
    double half_closed_at;                 /* by engine_now; of a lent socket, when that was first seen */
};
static inline bool is_lingering(const struct iostream *s)
{
    return s->limits && s->limits->linger.list;
}
int linger_start(struct iostream *, double seconds, timeout_cb *); /* restarts; -1, ENOMEM */
void time_limits_moved(struct time_limits *, struct engine *);
/* Bytes went through: idle time begins anew. Twice a message, so it is cheap: the clock is looked at once an event. */
static inline void iostream_moved(struct iostream *s)
{
    if (s->limits && s->limits->moved_event != s->engine->event)
        time_limits_moved(s->limits, s->engine);
}
void iostream_direction_ended(struct iostream *);   /* half-closed time begins, or is over; so it is when the socket is lent */
void time_limits_stop(struct iostream *, bool all); /* else those of idle and half-closed time */

/* iostream.c */
struct iostream *iostream_over(struct engine *, struct transport *, const struct iostream_options *); /* NULL: ENOMEM, nothing taken */
void iostream_set_peer(struct iostream *, const struct sockaddr *, socklen_t);
void iostream_update(struct iostream *);                             /* works out what to wait for, after any change */
void iostream_settle(struct iostream *);                             /* ends the stream if both directions have */
void iostream_fail(struct iostream *, enum close_reason, int error); /* ends it; later calls do nothing */
void iostream_fail_io(struct iostream *, int error);                 /* picks the reason by errno */
void iostream_wind_up(struct iostream *, enum close_reason);         /* drops input; once our side is finished, end with this reason */
void iostream_hang_up(struct iostream *, enum close_reason);         /* flush, then end with this reason; input is dropped */
void iostream_flushed(struct iostream *);                            /* while closing: all is out */
void iostream_count_lent(struct iostream *);                     /* what a child moved through the socket, only the kernel has counted */
void iostream_release_child(struct iostream *, bool delivering); /* its child is gone: deliver, and end */

/* handshake.c */
void iostream_start(struct iostream *, double seconds, iostream_cb *on_open, void *arg); /* handshake if there is one, then on_open */
int handshake_start(struct iostream *, int want, double seconds, iostream_cb *on_open, void *arg); /* -1: ENOMEM */
void handshake_go_on(struct iostream *);

/* read.c */
bool read_wanted(const struct iostream *); /* should the transport be read? */
void read_take(struct iostream *);         /* the transport may have bytes: read, satisfy, relay or drop */
void read_deliver(struct iostream *);      /* the callback of a ready request, then on_eof */
void read_close(struct iostream *);        /* what is pending ends unsatisfied; its callback is due */
void read_fail(struct iostream *);         /* at the stream's end */
void read_discard(struct iostream *);      /* from now on; nothing is pending */
void read_release(struct iostream *);      /* what the request owns */

/* write.c */
void write_bytes(struct iostream *, const void *, size_t); /* sends, queues the rest, or fails the stream */
bool write_wanted(const struct iostream *);
void write_flush(struct iostream *);         /* the transport may take bytes */
void write_moved(struct iostream *, size_t); /* so many bytes are with the kernel */
void write_abandon(struct iostream *);       /* nobody will read what is written: that direction has ended */
void write_complete(struct iostream *);      /* callbacks of the writes that are with the kernel, or with an ended stream, all */

/* relay.c */
void relay_input(struct iostream *from, const char *, size_t); /* bytes read for the relay */
void relay_eof(struct iostream *from);
void relay_starve(struct iostream *to);   /* it takes no more: what else comes is dropped */
void relay_resume(struct iostream *to);   /* its queue is empty again */
void relay_unlink(struct iostream *from); /* it is relayed no more, and nothing else happens */
void relay_break(struct iostream *);      /* it ends or closes: tell the streams it is joined with */

/* splice.c */
void splice_notice(struct iostream *from, size_t bytes); /* so many were read and copied */
bool splice_is_worth_it(struct iostream *from);          /* then splice_take reads for its relay */
ssize_t splice_take(struct iostream *from);              /* as a transport's read, but the bytes are passed on already */
bool splice_flush(struct iostream *to);                  /* false: there is more, or it failed */
size_t splice_pending(const struct iostream *to);
void splice_drop(struct iostream *to);
void splice_pool_free(struct engine *);
bool sigpipe_is_off(void); /* ignored or blocked: a system call that may raise it does no harm */

/* tcpserver.c */
void tcpserver_stream_ended(struct iostream *);
void tcpserver_count_child(struct tcpserver *); /* one of its streams has got a program */

/* child.c */
void child_orphaned(struct iostream *); /* the stream of a living child has ended */
void child_end_now(struct child *);     /* the server ends */

/* netutil.c: an IP address without its port, IPv4 as IPv4-mapped, so that both spellings are one. false: it is none */
bool address_key(const struct sockaddr *, struct in6_addr *key);

/* environment.c: what a child finds in its environment */
struct environment;
/* Of this process (unless clear), less what a connection sets, with variables in their place. NULL: ENOMEM. */
struct environment *environment_new(bool clear, char *const *variables);
char **environment_for(struct environment *, struct iostream *); /* valid until the next call; NULL: of no connection */
void environment_free(struct environment *);

/* lines.c: a child's standard error, line by line */
struct line_reader;
LIST_HEAD(line_readers, line_reader);
typedef void line_cb(void *arg, uint64_t id, const char *line, size_t length);
/* Is in the list until it frees itself at EOF. NULL: ENOMEM. */
struct line_reader *line_reader_new(struct engine *, struct line_readers *, int fd, uint64_t id, line_cb *, void *arg);
void line_readers_end(struct line_readers *);
void line_reader_set_id(struct line_reader *, uint64_t);
void line_reader_catch_up(struct line_reader *);                      /* reads what is there now */
void line_reader_end(struct line_reader *);                           /* without a word */
void line_reader_on_end(struct line_reader *, struct line_reader **); /* sets the pointer to NULL when it frees itself */

/* bundle.c */
enum bundle_kind { BUNDLE_REGULAR, BUNDLE_DIRECTORY, BUNDLE_OTHER }; /* other: a pipe, say */
struct bundle_file {
    enum bundle_kind kind;
    char *bytes; /* of a directory: the names in it, sorted, each with its NUL */
    size_t length;
};
/* The answer is the bundle's; it never changes. NULL: text begins with the path in quotes. */
const struct bundle_file *bundle_file(struct bundle *, const char *path, struct errbuf *);

/* resolve.c */
void resolver_release(struct engine *);

#endif
