/* Whatever comes in place of a handshake, or of records after it, ends the stream, soon, and leaves nothing behind. The bytes are the same in
 * each run; HARK_FUZZ_SEED=N takes others, HARK_FUZZ_RUNS=N so many. */
#include <openssl/err.h>

#include "tls_peer.h"

enum { RUNS = 20000, MOST_BYTES = 4096, MANY_TURNS = 400 };

static uint64_t seed = 88172645463325252;

static uint32_t dice(uint32_t sides) /* xorshift */
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return sides ? (uint32_t)(seed >> 11) % sides : 0;
}

static int set_up_fuzz(void **state)
{
    const char *other = getenv("HARK_FUZZ_SEED");
    if (other)
        seed += strtoull(other, NULL, 10) * 2862933555777941757U;
    return set_up(state);
}

static int runs(void)
{
    const char *wished = getenv("HARK_FUZZ_RUNS");
    return wished ? atoi(wished) : is_on_valgrind() ? RUNS / 100 : RUNS;
}

struct bytes {
    unsigned char data[MOST_BYTES];
    size_t length;
};

/* ---- mutations ---- */

static void insert(struct bytes *b, size_t at, const unsigned char *what, size_t length)
{
    if (length > MOST_BYTES - b->length)
        return;
    memmove(b->data + at + length, b->data + at, b->length - at);
    memmove(b->data + at, what, length);
    b->length += length;
}

static void cut(struct bytes *b, size_t at, size_t length)
{
    length = length < b->length - at ? length : b->length - at;
    memmove(b->data + at, b->data + at + length, b->length - at - length);
    b->length -= length;
}

static void change(struct bytes *b)
{
    static const unsigned char telling[] = {0, 1, 0x7f, 0x80, 0xff, 0x16, 0x15, 0x17, 0x03};
    unsigned char piece[64];
    size_t at = dice((uint32_t)b->length + 1);
    switch (b->length > 0 ? dice(7) : 5) {
    case 0:
        b->data[at % b->length] ^= (unsigned char)(1 << dice(8));
        break;
    case 1:
        b->data[at % b->length] = telling[dice(sizeof telling)];
        break;
    case 2: /* in the first headers, where the lengths are */
        b->data[dice(b->length < 48 ? (uint32_t)b->length : 48)] += (unsigned char)(dice(5) - 2);
        break;
    case 3:
        cut(b, at, dice(40));
        break;
    case 4: /* twice */
        memcpy(piece, b->data + at, b->length - at < sizeof piece ? b->length - at : sizeof piece);
        insert(b, at, piece, b->length - at < sizeof piece ? b->length - at : sizeof piece);
        break;
    case 5:
        for (size_t i = 0; i < sizeof piece; i++)
            piece[i] = (unsigned char)dice(256);
        insert(b, at, piece, dice(sizeof piece));
        break;
    default:
        b->length = at;
    }
}

/* ---- what is mutated: a client's first words ---- */

static void first_words(struct bytes *b, int version)
{
    SSL_CTX *ctx = client_ctx(version);
    SSL *ssl = SSL_new(ctx);
    BIO *out = BIO_new(BIO_s_mem());
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), out);
    SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, (void *)(uintptr_t) "a.test");
    SSL_set_alpn_protos(ssl, (const unsigned char *)"\x02h2\x08http/1.1", 12);
    assert_int_equal(SSL_connect(ssl), -1);
    b->length = (size_t)BIO_read(out, b->data, sizeof b->data);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    ERR_clear_error();
}

/* ---- one stream ---- */

static int ends, opened;

static void on_close(struct iostream *s, void *unused)
{
    (void)unused;
    assert_true(iostream_reason(s) == CLOSE_TLS || iostream_reason(s) == CLOSE_EOF);
    assert_non_null(iostream_tls(s));
    ends++;
}

static void on_open(struct iostream *s, void *unused)
{
    (void)unused;
    opened++;
    assert_int_equal(iostream_relay(s, s), 0);
}

static void feed(struct tls_context *context, const struct bytes *b)
{
    static struct wire_transport w;
    const struct iostream_options options = {.flags = TRANSPORT_SOCKET};
    int before = ends, turns = 0;
    wire_init(&w);
    w.room = KIB(1024);
    w.read_piece = dice(3) ? 0 : 1 + dice(300);
    assert_int_equal(buffer_append(&w.in, b->data, b->length), 0);
    w.eof = true;
    struct iostream *s = iostream_over(engine, transport_tls_new(&w.base, context, NULL), &options);
    iostream_on_close(s, on_close, NULL);
    iostream_start(s, 10, on_open, NULL);
    while (!w.freed) {
        assert_true(turns++ < MANY_TURNS);
        assert_true(w.watched & EV_READ);
        transport_ready(&w.base, EV_READ);
        if (turns % 4 == 0) /* the budget of handshakes begins anew */
            ev_run(loop, EVRUN_NOWAIT);
    }
    while (ends == before)
        ev_run(loop, EVRUN_NOWAIT);
    buffer_release(&w.in);
    buffer_release(&w.out);
}

static void anything_instead_of_a_handshake_ends_it(void **state)
{
    (void)state;
    static struct bytes words[3];
    const struct tls_certificate certificate = {
        .cert_file = in_directory("server.pem"), .key_file = in_directory("server.key"), .ca = in_directory("ca.pem")};
    struct errbuf err;
    struct tls_context *context =
        tls_server_new(&(struct tls_options){.certificates = &certificate, .count = 1, .alpn = "h2,http/1.1", .strict_sni = true}, &err);
    first_words(&words[0], TLS1_3_VERSION);
    first_words(&words[1], TLS1_2_VERSION);
    for (int i = 0; i < runs(); i++) {
        struct bytes b = words[i % 8 == 0 ? 2 : i % 2]; /* now and then of nothing */
        for (uint32_t changes = 1 + dice(6); changes > 0; changes--)
            change(&b);
        feed(context, &b);
    }
    assert_int_equal(opened, 0);
    tls_context_free(context);
}

/* ---- records after a handshake ---- */

static void anything_after_a_handshake_ends_it(void **state)
{
    (void)state;
    for (int i = 0; i < runs() / 100; i++) {
        static struct meeting m;
        static struct bytes b;
        int turns = 0;
        open_to_client(&m, i % 2 ? TLS1_3_VERSION : TLS1_2_VERSION);
        m.peer.stalled = true;
        peer_say(&m.peer, "some words");
        if (i % 3 == 0 && i % 2)
            SSL_key_update(m.peer.ssl, SSL_KEY_UPDATE_REQUESTED);
        peer_say(&m.peer, "more of them");
        SSL_shutdown(m.peer.ssl);
        b.length = (size_t)BIO_read(m.peer.out, b.data, sizeof b.data);
        for (uint32_t changes = 1 + dice(3); changes > 0; changes--)
            change(&b);
        assert_int_equal(iostream_relay(m.party->stream, m.party->stream), 0);
        assert_int_equal(buffer_append(&m.wire.in, b.data, b.length), 0);
        m.wire.eof = true;
        while (!m.wire.freed) {
            assert_true(turns++ < MANY_TURNS);
            peer_turn(&m.peer);
        }
        run_until(*m.party->diary);
        *m.party->diary = '\0';
        end_meeting(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(anything_instead_of_a_handshake_ends_it, set_up_fuzz, tear_down),
        cmocka_unit_test_setup_teardown(anything_after_a_handshake_ends_it, set_up_fuzz, tear_down),
    };
    return cmocka_run_group_tests_name("tls_fuzz", tests, make_directory, remove_directory);
}
