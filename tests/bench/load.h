/* load.h - the load generator: clients that check every byte they get back.
 *
 * A test prepares its clients once; then a slice, a fixed number of operations, is run each time it is told to, so that the slices of
 * several servers can take turns. Whatever goes wrong (a wrong byte, an early end, a reset, silence) ends the program with a message. */
#ifndef HARK_BENCH_LOAD_H
#define HARK_BENCH_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- load.c ---- */

enum ending { END_FIN, END_RST, END_EOF }; /* close; close by a reset; half-close, then read to the end */

struct load {
    uint16_t port;
    unsigned connections; /* at once */
    size_t size;          /* of a message */
    uint64_t count;       /* of a slice: messages, bytes or connections */
    enum ending ending;
    bool tls, resume;
};

struct result {
    uint64_t count;
    uint64_t resumed;        /* of these, TLS handshakes that the server took up again */
    double *latency_seconds; /* one a message or connection; NULL: not measured. Room for load.count. */
};

struct test {
    const char *name;
    void (*prepare)(const struct load *load);
    void (*slice)(const struct load *load, struct result *result);
};

extern const struct test pingpong_test, bulk_test, connect_test, idle_test;

_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
double now_seconds(void);
void *allocate(size_t count, size_t size);

/* ---- wire.c: a connection, plain or TLS ---- */

struct wire {
    int fd;
    struct ssl_st *ssl; /* NULL: plain */
};

enum { WIRE_END = 0, WIRE_WAIT = -1 }; /* what read and write return beside a number of bytes */

void wire_setup(const struct load *load);
void wire_open(struct wire *wire); /* connected, the handshake done */
bool wire_was_resumed(const struct wire *wire);
ssize_t wire_read(struct wire *wire, void *bytes, size_t room);
ssize_t wire_write(struct wire *wire, const void *bytes, size_t length);
void wire_write_all(struct wire *wire, const void *bytes, size_t length); /* for what surely fits */
void wire_finish(struct wire *wire);                                      /* no more is sent */
void wire_close(struct wire *wire, enum ending ending);

/* ---- pattern.c: what is sent, so that a byte out of place is seen ---- */

enum { PATTERN_CHUNK = 65536 };

const char *pattern_at(uint64_t offset); /* PATTERN_CHUNK bytes, to be sent at this offset of a stream */
void pattern_check(const char *bytes, size_t length, uint64_t offset);

/* ---- poll.c: waiting for one of many ---- */

int poll_new(void);
void poll_add(int poll, int fd, uint32_t events, void *data);
void poll_change(int poll, int fd, uint32_t events, void *data);
void *poll_next(int poll, uint32_t *events); /* silence of SILENCE_SECONDS is an error */

#endif
