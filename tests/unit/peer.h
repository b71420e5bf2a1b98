/* peer.h - the far end of a stream, played by chance: a transport without a kernel whose every answer is drawn, from a seed or from a
 * fuzzer's bytes, and is among those that a kernel, or TLS, could give. It remembers what went through, so that a model can say
 * whether a byte is wrong, missing or told of twice. */
#ifndef TEST_PEER_H
#define TEST_PEER_H

#include "../../core/internal.h"

/* ---- where decisions come from ---- */

struct choices {
    uint64_t state;            /* of the generator, when there are no bytes */
    const unsigned char *data; /* a fuzzer's; NULL: the generator */
    size_t left;
};
unsigned choose(struct choices *, unsigned bound); /* 0 .. bound - 1; 0 once a fuzzer's bytes are used up */
static inline bool one_in(struct choices *c, unsigned n)
{
    return choose(c, n) == n - 1;
}

/* Of whatever is false here the test fails, and says where, and how to see it again. */
#define must(condition) ((condition) ? (void)0 : world_failed(#condition, __FILE__, __LINE__))
extern void (*world_failed)(const char *what, const char *file, int line);
extern bool world_traced; /* every step is printed */
void trace(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- the peer ---- */

enum { FOREVER = 1 << 30 };

struct peer {
    struct transport base;
    struct transport_ops ops;
    struct choices *choices;
    int number; /* each has its own bytes */
    int watched;

    /* From the peer to us. */
    uint64_t sent, read; /* bytes that it has sent, and that the stream has read */
    bool finished;       /* after them comes EOF ... */
    bool eof_read;       /* ... which the stream has seen */
    /* From us to the peer. */
    uint64_t written;
    unsigned window; /* how many more bytes go through */
    bool shut;       /* our FIN is out */
    int error;       /* the connection is broken: ECONNRESET, or another errno */

    /* Over TLS. */
    bool secure;
    uint64_t opened;                           /* bytes taken from the kernel: those not read yet are pending */
    int rounds;                                /* of the handshake, that it has still to answer */
    bool answered;                             /* it has, and that is not read yet */
    bool greeting;                             /* the handshake is not over */
    bool flip_read, flip_write, flip_shutdown; /* the next call wants the other direction's event first */

    bool reset_sent, freed;
    double moved, moved_out, ended;                   /* when a byte last went through, or to the peer; and a direction ended */
    char (*expected)(struct peer *, uint64_t offset); /* what the stream has to write there */
};
void random_peer_init(struct peer *, int number, struct choices *, bool secure);
char random_peer_byte(int number,
                      uint64_t offset);     /* what peer number `number` sends there; few different ones, so that delimiters occur */
int random_peer_ready(const struct peer *); /* what an event loop would report of what is watched */

/* ---- time: stands still but for world_sleep ---- */

double world_now(void);
void world_sleep(double seconds);

#endif
