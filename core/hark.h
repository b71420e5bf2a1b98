/* hark.h - serve stream connections on a libev loop, with the names and semantics of Tornado's TCPServer.
 *
 * This is the one to include: it brings hark_files.h, hark_process.h, hark_shared.h, hark_spawn.h and hark_tls.h.
 *
 * Rules that hold for every function here
 * - A constructor returns NULL (or -1) on failure and fills `struct errbuf` with a sentence a user can act on. From success on it
 *   owns the descriptors it was given. Other functions return 0, or -1 with errno.
 * - A call that returns an error never calls its callback. A callback never runs inside the call that registered it, nor inside one
 *   that ends streams, but later, from the loop; the few that accept at once, free a spawner or destroy a loop say so.
 * - Every function is legal inside every callback, what ends things too: iostream_finish, _close and _abort, of that stream and others;
 *   tcpserver_stop, _drain, _abort and _free, and shared_free after that; remove_accept_handler, connect_cancel. After tcpserver_free no
 *   callback into the server runs, and what the one it is called in returns does not matter. But iostream_match touches no stream, a
 *   spawner outlives the children on streams, and a server that made its loop is not freed from that.
 * - A loop is destroyed after all that was on it has ended: run it once more after tcpserver_free or iostream_abort.
 * - Times are seconds (double), sizes are bytes; the name says so. 0 means "no limit" for either.
 * - Nothing here prints, exits, changes the process's signal set-up or uses the default loop. Sends never raise SIGPIPE on sockets;
 *   who writes to pipes ignores or blocks SIGPIPE; so does who wants relays to splice(2). One loop belongs to one thread. libev gets
 *   an allocator (ev_set_allocator) that has a reserve, and loops a release callback (ev_set_loop_release_cb). */
#ifndef HARK_H
#define HARK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

struct bundle;
struct ev_loop;
struct iostream;
struct shared;
struct tcpserver;
struct tls_context;

struct errbuf {
    char text[512];
};
/* Always returns -1, so that a failing function can end with it. */
int errbuf_set(struct errbuf *, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- iostream: one connection ------------------------------------------------------------------------------------------------
 *
 * A stream has two directions, which end by themselves. The peer's EOF ends only what comes in; what is on its way out still goes.
 * iostream_finish ends only what goes out. When both have ended and all queued bytes are with the kernel, the stream ends.
 * It frees itself after on_close, which runs exactly once, last; pointers to it are dead from then on. */

enum close_reason {
    CLOSE_NONE,     /* still open */
    CLOSE_EOF,      /* the peer ended first, everything was delivered */
    CLOSE_FINISHED, /* our side ended first */
    CLOSE_CHILD,    /* the child on it exited: iostream_child */
    CLOSE_TIMEOUT,  /* a time limit struck */
    CLOSE_LIMIT,    /* a read went over max_bytes or the stream's buffer */
    CLOSE_DENIED,   /* the server's rules refused it */
    CLOSE_PROXY,    /* the PROXY header that it has to begin with is missing or wrong */
    CLOSE_RESET,    /* the peer, or the other end of a relay, reset it */
    CLOSE_TLS,      /* a TLS error, or an end without close_notify */
    CLOSE_ERROR,    /* a system call failed: iostream_error */
    CLOSE_SHUTDOWN  /* the server ended it */
};
const char *close_reason_name(enum close_reason); /* the word for log lines */

/* For descriptors that other programs use too (stdin and stdout). */
enum {
    IOSTREAM_SHARED = 1, /* never made non-blocking, since others would see it */
    IOSTREAM_KEEP = 2    /* never closed */
};

struct iostream_options {
    size_t max_buffer_bytes; /* most bytes held for one direction; 0 = 1 MiB */
    unsigned flags;
};

/* A stream over a socket (both descriptors the same) or a pair of pipes, files or terminals. Registers nothing with the loop until
 * an operation needs it. options may be NULL. */
struct iostream *iostream_new(struct ev_loop *, int read_fd, int write_fd, const struct iostream_options *, struct errbuf *);

/* How a read ended. */
enum read_status {
    READ_OK,    /* satisfied */
    READ_EOF,   /* the peer ended before it could be; what came stays in the buffer for read_some and read_until_close */
    READ_LIMIT, /* more than allowed without a match: unless the callback closes it, the stream ends with CLOSE_LIMIT */
    READ_CLOSED /* the stream ended (iostream_reason, iostream_error), or the read was cancelled by its end */
};
/* data is valid during the callback only, and does not end with NUL; unless READ_OK, length is 0 (but see read_into). */
typedef void iostream_read_cb(struct iostream *, void *arg, enum read_status, const char *data, size_t length);
typedef void iostream_write_cb(struct iostream *, void *arg, int error); /* error: 0 or an errno */
typedef void iostream_cb(struct iostream *, void *arg);

/* One read may be pending: a second one is EBUSY. On a stream that has ended, or is being closed: EPIPE. The peer is read only while
 * a read asks for more than the buffer holds (that is the back-pressure), and one piece ahead to notice its end. */
int iostream_read_some(struct iostream *, size_t max_bytes, iostream_read_cb *, void *arg); /* 1..max_bytes, as they come */
int iostream_read_bytes(struct iostream *, size_t count, iostream_read_cb *, void *arg);    /* exactly count; 0 is satisfied at once */
/* The same (partial: 1..size, else size), into the caller's memory, which has to stay until the callback and may be larger than the
 * stream's buffer. Whatever the status, data is that memory, and length how much of it was filled; a cancel takes these bytes back. */
int iostream_read_into(struct iostream *, void *memory, size_t size, bool partial, iostream_read_cb *, void *arg);
/* Up to and including the delimiter, whose match has to end within max_bytes (0: the buffer's size). EINVAL: an empty delimiter. */
int iostream_read_until(struct iostream *, const void *delimiter, size_t length, size_t max_bytes, iostream_read_cb *, void *arg);
/* The same, up to where match (with arg) says that the first match ends; 0: none is here yet. `seen` of the bytes it was shown before.
 * It runs even inside the call, and touches no stream. */
typedef size_t iostream_match(void *arg, const char *data, size_t length, size_t seen);
int iostream_read_until_match(struct iostream *, iostream_match *, size_t max_bytes, iostream_read_cb *, void *arg);
/* Everything up to the peer's EOF, as READ_OK; after a reset it is READ_CLOSED, over the buffer's size READ_LIMIT. */
int iostream_read_until_close(struct iostream *, iostream_read_cb *, void *arg);
/* Reads and drops whatever comes, to the peer's EOF, which on_eof tells. Like a read that lasts. */
int iostream_discard(struct iostream *);
/* No more is wanted from this pipe, file or terminal: its end counts as seen. EINVAL on a socket, whose peer would be reset for what
 * stays unread: discard there. */
int iostream_stop_reading(struct iostream *);
/* Takes a pending read or discard back: its callback never runs, the bytes stay. ENOENT: none was pending. */
int iostream_read_cancel(struct iostream *);

/* Copies data, sends what the kernel takes at once and queues the rest. The callback (may be NULL) runs when the kernel has taken
 * every byte up to here, in the order of the writes. ENOBUFS: the queue would pass max_buffer_bytes, nothing was taken (write less,
 * or wait for a callback). EPIPE: finished, closed or ended, or a relay feeds it. */
int iostream_write(struct iostream *, const void *data, size_t length, iostream_write_cb *, void *arg);
size_t iostream_write_pending(const struct iostream *); /* bytes queued */

/* The enders. */
void iostream_finish(struct iostream *); /* flush, then FIN or close_notify; reading goes on */
/* Flush (for as long as some byte moves every 30 s), finish, drop what still comes until the peer ends, 2 s at most, so that unread
 * input does not turn the end into a reset that destroys the answer, and end. */
void iostream_close(struct iostream *);
void iostream_abort(struct iostream *, enum close_reason); /* end now: queued bytes are dropped, the peer sees a reset */

/* on_eof runs once, when the peer has ended and every byte before that was handed out; without it only reads report it. Our side does
 * not end by that: who is told answers with iostream_finish or iostream_close. A later set replaces an earlier one. */
void iostream_on_eof(struct iostream *, iostream_cb *, void *arg);
void iostream_on_close(struct iostream *, iostream_cb *, void *arg);

/* Copies all that `from` reads to `to`, which may be the same stream, and finishes `to` after from's EOF. Bytes already buffered go
 * first. Reading waits while `to` has bytes queued, so at most one piece of max_buffer_bytes is held. A reset or failure of one
 * stream resets the other, unless that one's direction had ended: then what is queued is delivered first. Two calls join two
 * streams both ways. EBUSY: a read or relay is pending on `from`, or a relay feeds `to`. */
int iostream_relay(struct iostream *from, struct iostream *to);

/* Time limits; the stream ends with CLOSE_TIMEOUT. 0 takes a limit away. */
enum iostream_timer {
    TIMER_IDLE,       /* no byte moved, either way */
    TIMER_HALF_CLOSE, /* one direction has ended and no byte moved in the other */
    TIMER_LIFETIME,   /* from now on, whatever happens */
    IOSTREAM_TIMERS
};
int iostream_set_timer(struct iostream *, enum iostream_timer, double seconds); /* ENOMEM */

int iostream_set_nodelay(struct iostream *, bool); /* TCP_NODELAY; nothing on other kinds of stream */

/* From now on a reset is noticed even while nothing is read or written. A stream that was read or written once is watched anyway; for
 * a new one this costs a system call. */
void iostream_watch(struct iostream *);

/* What is known of it. */
struct ev_loop *iostream_loop(const struct iostream *);
uint64_t iostream_id(const struct iostream *); /* 0 unless the server counts */
uint64_t iostream_bytes_in(const struct iostream *);
uint64_t iostream_bytes_out(const struct iostream *);
double iostream_seconds(const struct iostream *);           /* since it was made */
enum close_reason iostream_reason(const struct iostream *); /* CLOSE_NONE while open */
int iostream_error(const struct iostream *);                /* errno behind CLOSE_ERROR and CLOSE_RESET, or 0 */
/* What became of the child it had; NULL if it had none, or has it still. */
struct child_result {
    int status;         /* of wait(2) */
    double cpu_seconds; /* user and system, with the children it waited for */
    long max_rss_kib;   /* its peak memory */
};
const struct child_result *iostream_child(const struct iostream *);
bool iostream_read_ended(const struct iostream *);                                   /* the peer's EOF was seen */
const struct sockaddr *iostream_peer(const struct iostream *, socklen_t *);          /* as accept gave it; AF_UNSPEC if unknown */
int iostream_local(const struct iostream *, struct sockaddr_storage *, socklen_t *); /* a system call */
/* Of who called connect(2) on a unix socket; asked once and kept, so that it can be asked in on_close again. */
int iostream_peer_credentials(struct iostream *, pid_t *, uid_t *, gid_t *);
void *iostream_data(const struct iostream *); /* the caller's own pointer, NULL at first */
void iostream_set_data(struct iostream *, void *);

/* ---- addresses and listening sockets ------------------------------------------------------------------------------------------ */

enum { ADDRESS_TEXT = 128 }; /* room for any address as text */
/* "192.0.2.1", "2001:db8::1", "fe80::1%eth0" or a unix path ("@name" when abstract, "" when unnamed); IPv4-mapped is
 * shown as IPv4; "unknown" is what is none of these. */
const char *address_host(const struct sockaddr *, socklen_t, char *text, size_t size);
/* "192.0.2.1:80", "[2001:db8::1]:80" or "unix:PATH". */
const char *address_text(const struct sockaddr *, socklen_t, char *text, size_t size);
unsigned address_port(const struct sockaddr *); /* 0 for unix */

struct bind_options {
    int family;            /* AF_UNSPEC, AF_INET, AF_INET6 */
    int backlog;           /* 0 = SOMAXCONN */
    bool reuse_port;       /* SO_REUSEPORT */
    const char *interface; /* SO_BINDTODEVICE; NULL: any */
    /* TCP keepalive of what is accepted, in seconds: from the last byte to the first probe, and between probes; 0 = none, and for the
     * other two the system's. */
    int keepalive_idle, keepalive_interval, keepalive_count;
};
/* Binds and listens on every address of host (NULL: every interface, IPv4 and IPv6, a family the kernel lacks is left out) and port
 * (a number or service name; "0": one free port for all). IPv6 sockets are IPv6 only; duplicates are dropped; ::1 of "localhost" may
 * be missing. Non-blocking, close-on-exec, SO_REUSEADDR, TCP_NODELAY (inherited by what is accepted). Returns how many descriptors
 * it stored, sorted by family, or -1 with none left open. Resolving blocks. options may be NULL. */
int bind_sockets(const char *host, const char *port, const struct bind_options *, int *fds, int max_fds, struct errbuf *);

/* The file that a unix socket is bound to; an abstract one has none. */
struct unix_file {
    dev_t device;
    ino_t inode;
};
/* One listening unix socket; "@name" is abstract. A socket nobody answers on is removed first; a live one (EADDRINUSE) and anything
 * that is no socket (EEXIST) are left alone. The file never grants more than mode, whatever the umask, and all of it before anyone
 * can connect. backlog: 0 = SOMAXCONN. *file is filled in for unlink_unix_socket. */
int bind_unix_socket(const char *path, mode_t mode, int backlog, struct unix_file *file, struct errbuf *);
/* Removes path if it is still that file; -1: it may be, and cannot be removed. Call it while the socket is open: once it is closed, the
 * inode number may be given to another file. */
int unlink_unix_socket(const char *path, const struct unix_file *);

struct accept_handler;
typedef void accept_cb(void *arg, int fd, const struct sockaddr *, socklen_t);
/* Calls back for each connection accepted on the listening socket fd, in bounded bursts; the callback owns the new descriptor, which
 * is close-on-exec, and non-blocking unless accept_handler_blocking. When descriptors or memory run out (EMFILE, ENFILE, ENOBUFS,
 * ENOMEM) accepting rests for a while and `exhausted` (may be NULL) is told the errno, once until it works again. */
struct accept_handler *add_accept_handler(struct ev_loop *, int fd, accept_cb *, void (*exhausted)(void *arg, int error), void *arg,
                                          struct errbuf *);
void accept_handler_blocking(struct accept_handler *, bool);
void accept_handler_pause(struct accept_handler *, bool);          /* true: rest, clients wait in the backlog */
void accept_handler_exhausted(struct accept_handler *, int error); /* from the callback: it was short itself; rest as if accepting was */
bool accept_handler_drain(struct accept_handler *);                /* accepts all that waits, now; true: means are short for some */
void remove_accept_handler(struct accept_handler *);               /* no callback after this; fd stays open */

/* ---- tcpserver ---------------------------------------------------------------------------------------------------------------- */

/* Called for each connection, ready to talk. It owns the stream until that ends by itself; a result other than 0 aborts it with
 * CLOSE_ERROR, and if it set errno to a shortage (EMFILE, ENFILE, ENOBUFS, ENOMEM, EAGAIN) accepting rests. It never sees a
 * connection that `refuse` refused. From where `is_proxied` says so, a connection has 5 s to send its header. Who that names is the peer
 * from then on, is counted, and may be refused; if it names nobody, the proxy itself is the peer, not counted and not refused. */
typedef int handle_stream_cb(struct tcpserver *, struct iostream *, void *arg);

enum reject_reason { REJECT_DENIED, REJECT_LIMIT, REJECT_PROXY, REJECT_HANDSHAKE, REJECT_REASONS };
const char *reject_reason_name(enum reject_reason); /* the word for log lines */

struct tcpserver_options {
    size_t max_buffer_bytes;        /* of each stream */
    unsigned max_connections;       /* of this process; at the limit its listeners rest */
    struct shared *shared;          /* limits over all processes, ids that are unique there; NULL: its own, without limits */
    bool count_addresses;           /* tcpserver_connections_from is asked for */
    bool blocking;                  /* accepted sockets stay blocking, for spawn; their streams can only be spawned on or ended */
    double timers[IOSTREAM_TIMERS]; /* of each stream, from handle_stream on; 0 = none */
    struct tls_context *tls;        /* kept by the server; NULL: plain */
    double handshake_seconds;       /* for each TLS handshake; 0 = 10 */
    unsigned max_handshakes;        /* under way at once; at the limit the listeners rest */
    bool (*refuse)(const struct sockaddr *, socklen_t, void *arg);     /* before anything is spent on it; may be NULL */
    bool (*is_proxied)(const struct sockaddr *, socklen_t, void *arg); /* begins with a PROXY header (1 or 2); may be NULL */
    void (*refused)(const struct sockaddr *, socklen_t, enum reject_reason, void *arg); /* denied, or at a limit; may be NULL */
    void (*rejected)(struct iostream *, void *arg);      /* one that never came to handle_stream has ended; may be NULL */
    void (*stream_closed)(struct iostream *, void *arg); /* just before the stream's own on_close; may be NULL */
    void (*exhausted)(void *arg, int error);             /* as in add_accept_handler; may be NULL */
    void (*empty)(void *arg); /* the last stream has ended, or there was none, and nothing listens any more; may be NULL */
};

/* loop NULL: only for bind + start, which makes one in each process. arg goes to every callback. options may be NULL. */
struct tcpserver *tcpserver_new(struct ev_loop *, handle_stream_cb *, void *arg, const struct tcpserver_options *, struct errbuf *);
struct ev_loop *tcpserver_loop(const struct tcpserver *);

/* Three ways to start. (1) listen: accepts as soon as the loop runs. (2) bind any number of times, then start(n). (3) bind_sockets,
 * fork_processes, a loop, tcpserver_new, add_sockets. listen and bind return the port bound. */
int tcpserver_listen(struct tcpserver *, const char *host, const char *port, const struct bind_options *, struct errbuf *);
int tcpserver_bind(struct tcpserver *, const char *host, const char *port, const struct bind_options *, struct errbuf *);
/* processes: 1 = this one, no fork; 0 = one a CPU. Returns the task id (0 with one process) in each serving process. In the parent,
 * which supervises until all have ended, returns -1 with *exit_status filled in; failures to start are exit status 1 and text. */
int tcpserver_start(struct tcpserver *, int processes, int max_restarts, int *exit_status, struct errbuf *);
int tcpserver_add_socket(struct tcpserver *, int fd, struct errbuf *); /* a listening, non-blocking socket; taken over */
int tcpserver_add_sockets(struct tcpserver *, const int *fds, int count, struct errbuf *);
/* One that was accepted elsewhere, as if by a listener; taken over. handle_stream may be called before this returns. */
void tcpserver_add_connection(struct tcpserver *, int fd);

void tcpserver_stop(struct tcpserver *); /* closes every listener, bound ones too; streams live on; may be started again */
/* Lets nobody in any more, accepts all who are in, the TCP handshakes under way included (1 s at most), and stops: no client is reset.
 * handle_stream may be called before this returns, unless a drain is what this is called from: that one does it. Not with a socket that
 * another server is to go on with. */
void tcpserver_drain(struct tcpserver *);
bool tcpserver_listening(const struct tcpserver *);               /* has listeners, also while it drains */
void tcpserver_abort(struct tcpserver *);                         /* ends every stream now, with CLOSE_SHUTDOWN */
void tcpserver_abort_handshakes(struct tcpserver *);              /* those that are not yet with handle_stream */
void tcpserver_set_tls(struct tcpserver *, struct tls_context *); /* for connections from now on */
/* Not from its own loop, if start made that: which is destroyed, after the callbacks of what was on it, in here. */
void tcpserver_free(struct tcpserver *); /* stop, and abort: what is left of the streams ends without callbacks into the server */
unsigned tcpserver_connections(const struct tcpserver *);
unsigned tcpserver_connections_from(const struct tcpserver *, const struct sockaddr *); /* now, over all */
void tcpserver_bytes(const struct tcpserver *, uint64_t *in, uint64_t *out);            /* of this process, living streams too */
struct tcpserver *iostream_server(const struct iostream *);                             /* the one that accepted it, or NULL */
/* In handle_stream or later: there is a shortage (an errno, as above) of what it takes to serve this stream, which waits for it, and is not
 * ended. Accepting rests; `again` is called when another stream has ended, or after 50 ms, then 100 ms, and so on up to 1 s: once, unless
 * it calls this again, and never if the stream ends before. Of a stream that no server has accepted, or whose server has gone, it is the
 * end (CLOSE_ERROR). */
void iostream_try_again(struct iostream *, int error, iostream_cb *again, void *arg);
bool is_shortage(int error); /* EMFILE, ENFILE, ENOBUFS, ENOMEM, EAGAIN */

/* ---- connecting --------------------------------------------------------------------------------------------------------------- */

struct target; /* HOST:PORT, [V6]:PORT or unix:PATH */
struct target *target_parse(const char *text, struct errbuf *);
const char *target_text(const struct target *);
int target_resolve(struct target *, struct errbuf *); /* asks now what the name stands for; blocks */
void target_free(struct target *);

struct connect_options {
    double timeout_seconds; /* for each address, and for the TLS handshake; 0 = 10 */
    const char *preface;    /* sent before all else, TLS too; outlives the connecting; may be NULL */
    size_t preface_length;
    struct tls_context *tls; /* a client's; NULL: plain. Outlives the connecting */
    const char *tls_name;    /* whose certificate the target has to show; NULL: its host's */
    struct iostream_options stream;
};
struct connecting;
/* stream is NULL when every address failed; then why says so, "connect to [::1]:80: Connection refused", and errno tells the error. */
typedef void connect_cb(struct iostream *stream, void *arg, const char *why);
/* Connects without blocking; addresses are tried in turn, the next one starting after 250 ms or a failure (RFC 8305). A name is asked
 * of c-ares when its last answer has aged (TTL); while it cannot be, that one is kept. NULL with errno on lack of memory; never calls
 * back then. The target has to outlive it, and remembers answers: it belongs to one thread. */
struct connecting *iostream_connect(struct ev_loop *, struct target *, const struct connect_options *, connect_cb *, void *arg);
void connect_cancel(struct connecting *); /* the callback never runs; inside it there is nothing left to cancel */
/* Reads now what it takes to resolve names (resolv.conf), for a process about to lose sight of it (chroot); and lets go of that. */
int connect_prepare(struct ev_loop *, struct errbuf *);
void connect_unprepare(struct ev_loop *);

enum { PROXY_HEADER_BYTES = 768 };
/* A PROXY header of version 1 or 2 that names this stream's peer, and in 2 tells of its TLS, for a preface; returns its length. NULL:
 * for a connection of our own, which is nobody's. */
size_t iostream_proxy_header(struct iostream *, int version, char header[PROXY_HEADER_BYTES]);

#include "hark_files.h"
#include "hark_process.h"
#include "hark_shared.h"
#include "hark_spawn.h"
#include "hark_tls.h"

#endif
