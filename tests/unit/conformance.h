/* conformance.h - what the conformance tests share. Each is named after a test of Tornado's own (tests/conformance.rows), and one body
 * runs over every transport that makes sense for it: the streams rs and ws of `pair` are connected over `wire`. */
#ifndef TEST_CONFORMANCE_H
#define TEST_CONFORMANCE_H

#include "harness.h"

/* Beside those that connect_ends makes: a memory_wire, one that cuts nothing short, TLS over TCP, and TLS over a memory_wire. */
enum { MEMORY = PIPES + 1, MEMORY_WHOLE, TLS, TLS_MEMORY };
enum { HANDSHAKE_SECONDS = 60 }; /* where they are not what the test is about: on valgrind the first takes several */

/* Every transport; those that carry what is written in one piece; those that one connects to. */
#define EACH(test) STREAM_TEST(test), WIRE_TEST(test, MEMORY), WIRE_TEST(test, TLS), WIRE_TEST(test, TLS_MEMORY)
#define EACH_UNCUT(test) STREAM_TEST(test), WIRE_TEST(test, MEMORY_WHOLE), WIRE_TEST(test, TLS)
#define EACH_CONNECTED(test) SOCKET_TEST(test), WIRE_TEST(test, TLS)

extern struct party *rs, *ws; /* the one that reads and the one that writes */

void pair(size_t rs_buffer_bytes, size_t ws_buffer_bytes); /* 0: the default */

/* Of one certificate for foo.example.com, which the client does not look at. Made when asked for; forget_secrets frees them. */
struct tls_context *server_context(void);
struct tls_context *client_context(void);
const struct tls_identity *identity(void);
int forget_secrets(void **);

void send_bytes(struct party *, const void *, size_t);
void send_text(struct party *, const char *);
void ignore_end(struct party *); /* it is not written down */
void leave(struct party *);      /* iostream_close, and its end is ignored */
void read_into(struct party *, void *memory, size_t size, bool partial);

/* The party has read these bytes, which may be more than a diary holds. */
void expect_read(struct party *, const char *bytes, size_t length);

#endif
