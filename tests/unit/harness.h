/* harness.h - what the tests of streams share: a loop and the proof that nothing is left of it, connected ends over every kind of
 * descriptor, and streams that keep a diary of what their callbacks were told.
 *
 * A test says what it does and then `expect(party, "words")`: the loop runs until the diary is that long, it has to say just that, and
 * begins anew. The words, one a callback:
 *   read:TEXT  read-eof  read-limit  read-closed     a read ended (of a long text: its length and a checksum, see `digest`)
 *   read-eof:TEXT  read-closed:TEXT                  a read_into ended with so much
 *   wrote  wrote:EPIPE                               a write is complete, or has failed with that
 *   eof                                              on_eof
 *   end:REASON  end:REASON/ERRNO                     on_close
 * At the end of each test every diary has to be empty: nothing was told that the test did not expect. Streams that are still there
 * are aborted, and have to end. No callback may run inside another one. */
#ifndef TEST_HARNESS_H
#define TEST_HARNESS_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../core/internal.h"
#include "valgrind.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define KIB(n) ((size_t)(n)*1024)

/* ---- the loop ---- */

extern struct ev_loop *loop;
extern struct engine *engine; /* the test's own hold on it, so that it outlives what is tested */

int set_up(void **);
int tear_down(void **);            /* no stream, watcher or descriptor is left */
extern void (*at_tear_down)(void); /* what the test has to give back once its streams are gone; NULL again for the next one */

/* Over what the streams of a test are connected: each WIRE_TEST is run on all that it names. */
enum wire { TCP, UNIX, PIPES };
extern enum wire wire;

#define WIRE_TEST(function, kind)                                                \
    {                                                                            \
#function "/" #kind, function, set_up, tear_down, (void *)(intptr_t)kind \
    }
#define LOOP_TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
#define SOCKET_TEST(function) WIRE_TEST(function, TCP), WIRE_TEST(function, UNIX)
#define STREAM_TEST(function) SOCKET_TEST(function), WIRE_TEST(function, PIPES)

/* Runs the loop until the condition holds; the test fails if that takes more than some seconds. */
#define run_until(condition)                            \
    do {                                                \
        watch_begin();                                  \
        while (!(condition))                            \
            watch_turn(#condition, __FILE__, __LINE__); \
        watch_end();                                    \
    } while (0)
void watch_begin(void);
void watch_turn(const char *what, const char *file, int line);
void watch_end(void);

void run_quietly(void); /* some turns that do not wait: what is due happens */
int count_descriptors(void);

/* Time passes for all clocks of the process at once, without waiting for it, or somebody sets the time of day. */
void pass(time_t seconds);
void pass_unseen(time_t seconds); /* while the loop does not run, so that its own clock stands still */
void set_clock_ahead(time_t seconds);
double seconds_now(void); /* CLOCK_MONOTONIC */

/* ---- the two ends of a connection ---- */

struct ends {
    int in, out; /* of a socket: the same */
};
void connect_ends(enum wire, struct ends *one, struct ends *other); /* non-blocking */
void connect_tcp(int fds[2]);                                       /* blocking */

/* ---- a stream and its diary ---- */

enum { DIARY_BYTES = 4096 };

struct party {
    struct iostream *stream; /* NULL once it has ended */
    struct ends far;         /* the other end, when that is bare descriptors: -1 once closed */
    char diary[DIARY_BYTES];
    void (*inside)(struct party *, const char *word); /* runs inside every callback; may be NULL */
    void *arg;                                        /* the test's own */
    int ends;                                         /* how often on_close ran */
    uint64_t poured, drained;                         /* bytes of the endless pattern that the far end has sent and received */
};

struct party *meet(size_t max_buffer_bytes); /* a new stream over `wire`, its far end bare; 0: the default */
struct party *meet_over(enum wire, size_t max_buffer_bytes);
void meet_pair(struct party **, struct party **);               /* two connected streams over `wire` */
struct party *adopt(int read_fd, int write_fd, unsigned flags); /* iostream_new */
struct party *host(struct iostream *);                          /* a stream that others made */
void dismiss_all(void);                                         /* aborts all streams, runs the loop until they are gone, forgets them */
void write_down(struct party *, const char *format, ...) __attribute__((format(printf, 2, 3)));

void expect_at(struct party *, const char *words, const char *file, int line);
#define expect(party, words) expect_at(party, words, __FILE__, __LINE__)
#define expect_nothing(party) assert_string_equal((party)->diary, "")

/* The calls, which have to succeed, with callbacks that write into the diary. */
void read_some(struct party *, size_t max_bytes);
void read_bytes(struct party *, size_t count);
void read_until(struct party *, const char *delimiter, size_t max_bytes);
void read_until_close(struct party *);
void write_text(struct party *, const char *);
void watch_eof(struct party *);
iostream_read_cb on_read;
iostream_write_cb on_wrote;
iostream_cb on_eof;
const char *digest(const char *bytes, size_t length);

/* ---- the far end ---- */

void far_send(struct party *, const char *text);
void far_finish(struct party *); /* our end sees EOF, the far end still reads */
void far_close(struct party *);
void far_reset(struct party *);                     /* of sockets only */
void far_receive(struct party *, const char *text); /* runs the loop until it is there; nothing else may come */
void far_receive_end(struct party *);               /* EOF is next */
void far_receive_reset(struct party *);             /* ECONNRESET is next */

/* Bytes of the endless pattern, as many as the kernel takes or has, at most limit. Draining compares them. */
size_t far_pour(struct party *, size_t limit);
size_t far_drain(struct party *, size_t limit);
void pattern(char *bytes, size_t length, uint64_t position);

/* Between the far ends of two relayed parties. */
void relay(struct party *from, struct party *to);
void join(struct party *, struct party *);        /* a relay each way */
void jam(struct party *from);                     /* sends as much as everything on the way takes, the other end not reading */
void drain(struct party *from, struct party *to); /* all that `from` has sent arrives at `to` */
void carry(struct party *from, struct party *to, size_t length); /* sends so much, which arrives meanwhile */

#endif
