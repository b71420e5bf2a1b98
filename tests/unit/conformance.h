/* conformance.h - what the conformance tests share. Each is named after a test of Tornado's own (tests/conformance.rows), and one body
 * runs over every transport that makes sense for it: the streams rs and ws of `pair` are connected over `wire`. */
#ifndef TEST_CONFORMANCE_H
#define TEST_CONFORMANCE_H

#include "harness.h"

enum { MEMORY = PIPES + 1 }; /* a memory_wire: beside those that connect_ends makes */

/* Every transport; those whose two directions are one connection; those that carry what is written in one piece. */
#define EACH(test) STREAM_TEST(test), WIRE_TEST(test, MEMORY)
#define EACH_CONNECTION(test) SOCKET_TEST(test), WIRE_TEST(test, MEMORY)
#define EACH_UNCUT(test) STREAM_TEST(test)

extern struct party *rs, *ws; /* the one that reads and the one that writes */

void pair(size_t rs_buffer_bytes, size_t ws_buffer_bytes); /* 0: the default */

void send_bytes(struct party *, const void *, size_t);
void send_text(struct party *, const char *);
void ignore_end(struct party *); /* it is not written down */
void leave(struct party *);      /* iostream_close, and its end is ignored */
void read_into(struct party *, void *memory, size_t size, bool partial);

/* The party has read these bytes, which may be more than a diary holds. */
void expect_read(struct party *, const char *bytes, size_t length);

#endif
