/* conformance.c - what the conformance tests share. */
#include "conformance.h"

#include <stdio.h>

#include "memory_wire.h"

struct party *rs, *ws;

/* ---- TLS ---- */

static struct tls_identity *secret;
static struct tls_context *contexts[2];

const struct tls_identity *identity(void)
{
    struct errbuf err;
    if (!secret)
        secret = tls_self_signed("foo.example.com", &err);
    return secret;
}

struct tls_context *server_context(void)
{
    const struct tls_certificate empty = {.cert_file = NULL};
    struct errbuf err;
    if (!contexts[0])
        contexts[0] = tls_server_new(&(struct tls_options){.certificates = &empty, .count = 1, .identity = identity()}, &err);
    return contexts[0];
}

struct tls_context *client_context(void)
{
    struct errbuf err;
    if (!contexts[1])
        contexts[1] = tls_client_new(NULL, true, &err);
    return contexts[1];
}

int forget_secrets(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(contexts); i++)
        tls_context_free(contexts[i]);
    tls_identity_free(secret);
    return 0;
}

static void on_open(struct iostream *s, void *arg)
{
    unsigned *opened = arg;
    (void)s;
    ++*opened;
}

static void secure(void)
{
    static unsigned opened;
    opened = 0;
    assert_int_equal(iostream_start_tls(rs->stream, server_context(), NULL, HANDSHAKE_SECONDS, on_open, &opened), 0);
    assert_int_equal(iostream_start_tls(ws->stream, client_context(), NULL, HANDSHAKE_SECONDS, on_open, &opened), 0);
    run_until(opened == 2);
}

/* ---- pairs ---- */

static void on_shaken(struct iostream *s, void *arg)
{
    (void)s, (void)arg;
}

static void connect_in_memory(const struct iostream_options options[2], struct iostream *streams[2])
{
    struct transport *ends[2];
    const char *seed = getenv("HARK_TEST_SEED"); /* for hunts */
    unsigned flags = ((int)wire != TLS_MEMORY ? WIRE_HANDSHAKE : 0) | ((int)wire == MEMORY_WHOLE ? WIRE_WHOLE : 0);
    memory_wire_new(loop, seed ? (unsigned)atoi(seed) : 1, flags, ends);
    for (int i = 0; i < 2; i++) {
        streams[i] = iostream_over(engine, ends[i], &options[i]);
        iostream_start(streams[i], 0, on_shaken, NULL);
    }
}

static void connect_in_kernel(const struct iostream_options options[2], struct iostream *streams[2])
{
    struct ends ends[2];
    struct errbuf err;
    connect_ends((int)wire == TLS ? TCP : wire, &ends[0], &ends[1]);
    for (int i = 0; i < 2; i++)
        streams[i] = iostream_new(loop, ends[i].in, ends[i].out, &options[i], &err);
}

void pair(size_t rs_buffer_bytes, size_t ws_buffer_bytes)
{
    const struct iostream_options options[2] = {{.max_buffer_bytes = rs_buffer_bytes}, {.max_buffer_bytes = ws_buffer_bytes}};
    struct iostream *streams[2];
    if ((int)wire == MEMORY || (int)wire == MEMORY_WHOLE || (int)wire == TLS_MEMORY)
        connect_in_memory(options, streams);
    else
        connect_in_kernel(options, streams);
    rs = host(streams[0]);
    ws = host(streams[1]);
    if ((int)wire == TLS || (int)wire == TLS_MEMORY)
        secure();
}

void send_bytes(struct party *p, const void *bytes, size_t length)
{
    assert_int_equal(iostream_write(p->stream, bytes, length, NULL, NULL), 0);
}

void send_text(struct party *p, const char *text)
{
    send_bytes(p, text, strlen(text));
}

static void on_left(struct iostream *s, void *arg)
{
    struct party *p = arg;
    (void)s;
    p->ends++;
    p->stream = NULL;
}

void ignore_end(struct party *p)
{
    iostream_on_close(p->stream, on_left, p);
}

void leave(struct party *p)
{
    ignore_end(p);
    iostream_close(p->stream);
}

void read_into(struct party *p, void *memory, size_t size, bool partial)
{
    assert_int_equal(iostream_read_into(p->stream, memory, size, partial, on_read, p), 0);
}

void expect_read(struct party *p, const char *bytes, size_t length)
{
    char words[128];
    snprintf(words, sizeof words, "read:%s", digest(bytes, length));
    expect(p, words);
}
