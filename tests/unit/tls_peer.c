/* tls_peer.c - OpenSSL as the other end, a transport in memory, certificates in files. */
#include "tls_peer.h"

#include <dirent.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <sys/stat.h>

/* ---- certificates ---- */

static char directory[] = "/tmp/hark-tls.XXXXXX";
enum { DAY_SECONDS = 24 * 3600, USUAL_DAYS = 30 };

const char *in_directory(const char *name)
{
    static char paths[64][128];
    char path[sizeof paths[0]];
    size_t i = 0;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    while (paths[i][0] && strcmp(paths[i], path) != 0)
        assert_true(++i < COUNT(paths));
    return strcpy(paths[i], path);
}

static FILE *open_file(const char *name, const char *suffix, const char *mode)
{
    char file[64];
    snprintf(file, sizeof file, "%s%s", name, suffix);
    FILE *f = fopen(in_directory(file), mode);
    assert_non_null(f);
    return f;
}

void write_file(const char *name, const char *text)
{
    FILE *f = open_file(name, "", "w");
    assert_true(fputs(text, f) >= 0);
    fclose(f);
}

static void add_extension(X509 *certificate, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, certificate, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(certificate, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

static void sign(X509 *certificate, EVP_PKEY *own_key, const char *issuer)
{
    if (!issuer) {
        X509_set_issuer_name(certificate, X509_get_subject_name(certificate));
        assert_true(X509_sign(certificate, own_key, EVP_sha256()) > 0);
        return;
    }
    FILE *f = open_file(issuer, ".pem", "r"), *k = open_file(issuer, ".key", "r");
    X509 *by = PEM_read_X509(f, NULL, NULL, NULL);
    EVP_PKEY *key = PEM_read_PrivateKey(k, NULL, NULL, NULL);
    fclose(f);
    fclose(k);
    X509_set_issuer_name(certificate, X509_get_subject_name(by));
    assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
    EVP_PKEY_free(key);
    X509_free(by);
}

void make_certificate(const struct certificate_wish *wish)
{
    static long serial;
    X509 *certificate = X509_new();
    EVP_PKEY *key = wish->kind == KEY_RSA ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256");
    int to_days = wish->from_days || wish->to_days ? wish->to_days : USUAL_DAYS;
    X509_set_version(certificate, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(certificate), (long)wish->from_days * DAY_SECONDS - 60);
    X509_gmtime_adj(X509_getm_notAfter(certificate), (long)to_days * DAY_SECONDS);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_UTF8, (const unsigned char *)wish->subject, -1, -1, 0);
    X509_set_pubkey(certificate, key);
    add_extension(certificate, NID_basic_constraints, wish->issuer ? "CA:FALSE" : "critical,CA:TRUE");
    if (wish->names)
        add_extension(certificate, NID_subject_alt_name, wish->names);
    sign(certificate, key, wish->issuer);
    FILE *f = open_file(wish->file, ".pem", "w"), *k = open_file(wish->file, ".key", "w");
    assert_int_equal(PEM_write_X509(f, certificate), 1);
    assert_int_equal(PEM_write_PrivateKey(k, key, NULL, NULL, 0, NULL, NULL), 1);
    fchmod(fileno(k), 0600);
    fclose(f);
    fclose(k);
    EVP_PKEY_free(key);
    X509_free(certificate);
}

int make_directory(void **state)
{
    (void)state;
    if (!mkdtemp(directory))
        return -1;
    make_certificate(&(struct certificate_wish){.file = "ca", .subject = "authority"});
    make_certificate(&(struct certificate_wish){
        .file = "server", .subject = "server", .names = "DNS:a.test,DNS:localhost,IP:127.0.0.1", .issuer = "ca"});
    return 0;
}

int remove_directory(void **state)
{
    (void)state;
    DIR *dir = opendir(directory);
    struct dirent *entry;
    while ((entry = readdir(dir)))
        unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
    return rmdir(directory);
}

/* ---- a transport in memory ---- */

static struct wire_transport *wire_of(struct transport *t)
{
    return container_of(t, struct wire_transport, base);
}

static bool balks(struct wire_transport *w, int which)
{
    w->balked[which] = w->balks && !w->balked[which];
    return w->balked[which];
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static ssize_t wire_read(struct transport *t, void *bytes, size_t size)
{
    struct wire_transport *w = wire_of(t);
    w->reads++;
    if (balks(w, 0))
        return TRANSPORT_WANT_READ;
    if (buffer_length(&w->in) == 0) {
        errno = w->read_error;
        return w->read_error ? TRANSPORT_ERROR : w->eof ? 0 : TRANSPORT_WANT_READ;
    }
    size_t n = least(least(size, buffer_length(&w->in)), w->read_piece ? w->read_piece : SIZE_MAX);
    memcpy(bytes, buffer_bytes(&w->in), n);
    buffer_consume(&w->in, n);
    return (ssize_t)n;
}

static ssize_t wire_write(struct transport *t, const void *bytes, size_t size)
{
    struct wire_transport *w = wire_of(t);
    w->writes++;
    size_t room = w->room > buffer_length(&w->out) ? w->room - buffer_length(&w->out) : 0;
    size_t n = least(least(size, room), w->write_piece ? w->write_piece : SIZE_MAX);
    assert_false(w->shut); /* nothing may come after its end */
    if (balks(w, 1) || n == 0)
        return TRANSPORT_WANT_WRITE;
    assert_int_equal(buffer_append(&w->out, bytes, n), 0);
    return (ssize_t)n;
}

static int wire_shutdown(struct transport *t, bool last)
{
    wire_of(t)->shut |= !last;
    return 0;
}

static void wire_watch(struct transport *t, int events)
{
    wire_of(t)->watched = events;
}

static void wire_free(struct transport *t, bool reset)
{
    struct wire_transport *w = wire_of(t);
    assert_false(w->freed);
    w->freed = true;
    w->reset = reset;
    w->watched = 0;
}

static const struct transport_ops wire_ops = {
    .read = wire_read, .write = wire_write, .shutdown = wire_shutdown, .watch = wire_watch, .free = wire_free};

void wire_init(struct wire_transport *w)
{
    *w = (struct wire_transport){.base = {.ops = &wire_ops, .read_fd = -1, .write_fd = -1}, .room = KIB(64)};
}

static bool wire_tell(struct wire_transport *w)
{
    int events = 0;
    if (buffer_length(&w->in) > 0 || w->eof || w->read_error)
        events |= w->watched & EV_READ;
    if (buffer_length(&w->out) < w->room)
        events |= w->watched & EV_WRITE;
    if (events)
        transport_ready(&w->base, events);
    return events;
}

/* ---- the other end ---- */

void peer_init(struct tls_peer *peer, struct wire_transport *w, SSL_CTX *ctx, bool is_client)
{
    *peer = (struct tls_peer){.ssl = SSL_new(ctx), .in = BIO_new(BIO_s_mem()), .out = BIO_new(BIO_s_mem()), .wire = w};
    BIO_set_mem_eof_return(peer->in, -1);
    SSL_set_bio(peer->ssl, peer->in, peer->out);
    if (is_client)
        SSL_set_connect_state(peer->ssl);
    else
        SSL_set_accept_state(peer->ssl);
}

void peer_release(struct tls_peer *peer)
{
    SSL_free(peer->ssl);
    buffer_release(&peer->wire->in);
    buffer_release(&peer->wire->out);
}

void peer_send(struct tls_peer *peer, const void *bytes, size_t length)
{
    assert_int_equal(SSL_write(peer->ssl, bytes, (int)length), length);
}

void peer_say(struct tls_peer *peer, const char *text)
{
    peer_send(peer, text, strlen(text));
}

static void peer_go_on(struct tls_peer *peer)
{
    int n;
    ERR_clear_error();
    if (!SSL_is_init_finished(peer->ssl))
        SSL_do_handshake(peer->ssl);
    while (SSL_is_init_finished(peer->ssl) && peer->got_length < sizeof peer->got - 1 &&
           (n = SSL_read(peer->ssl, peer->got + peer->got_length, (int)(sizeof peer->got - 1 - peer->got_length))) > 0)
        peer->got_length += (size_t)n;
    peer->got[peer->got_length] = '\0';
    peer->ended |= (SSL_get_shutdown(peer->ssl) & SSL_RECEIVED_SHUTDOWN) != 0;
}

bool peer_turn(struct tls_peer *peer)
{
    struct wire_transport *w = peer->wire;
    char bytes[KIB(16)];
    size_t piece = peer->piece ? least(peer->piece, sizeof bytes) : sizeof bytes;
    bool moved = false;
    size_t n = peer->stalled ? 0 : least(piece, buffer_length(&w->out));
    if (n > 0) {
        moved = BIO_write(peer->in, buffer_bytes(&w->out), (int)n) == (int)n;
        buffer_consume(&w->out, n);
    }
    peer_go_on(peer);
    int got = BIO_read(peer->out, bytes, (int)piece);
    if (got > 0)
        moved = buffer_append(&w->in, bytes, (size_t)got) == 0;
    int reads = w->reads, writes = w->writes;
    wire_tell(w);
    for (int i = 0; i < 2; i++) /* what was put off, too */
        ev_run(loop, EVRUN_NOWAIT);
    return moved || reads != w->reads || writes != w->writes;
}

void peer_settle(struct tls_peer *peer)
{
    enum { MANY = 100000 };
    int turns = 0;
    while (!peer->wire->freed && peer_turn(peer))
        assert_true(turns++ < MANY); /* it spins */
    for (int i = 0; peer->wire->freed && i < 8; i++)
        peer_turn(peer);
}

/* ---- streams over TLS ---- */

static void on_open(struct iostream *s, void *arg)
{
    (void)s;
    write_down(arg, "open");
}

struct party *host_tls(struct wire_transport *w, struct tls_context *context, const char *name)
{
    const struct iostream_options options = {.flags = TRANSPORT_SOCKET};
    struct transport *secure = transport_tls_new(&w->base, context, name);
    assert_non_null(secure);
    struct party *p = host(iostream_over(engine, secure, &options));
    p->far = (struct ends){-1, -1};
    if (tls_is_client(context))
        assert_int_equal(handshake_start(p->stream, EV_WRITE, 10, on_open, p), 0);
    else
        iostream_start(p->stream, 10, on_open, p);
    return p;
}

struct tls_context *new_server_context(const char *ca)
{
    struct errbuf err = {""};
    const struct tls_certificate certificate = {.cert_file = in_directory("server.pem"), .key_file = in_directory("server.key"), .ca = ca};
    struct tls_context *context = tls_server_new(&(struct tls_options){.certificates = &certificate, .count = 1}, &err);
    assert_string_equal(err.text, "");
    return context;
}

SSL_CTX *client_ctx(int version)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(ctx, version);
    SSL_CTX_set_max_proto_version(ctx, version);
    return ctx;
}

SSL_CTX *server_ctx(const char *file)
{
    char name[64];
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    snprintf(name, sizeof name, "%s.pem", file);
    assert_int_equal(SSL_CTX_use_certificate_chain_file(ctx, in_directory(name)), 1);
    snprintf(name, sizeof name, "%s.key", file);
    assert_int_equal(SSL_CTX_use_PrivateKey_file(ctx, in_directory(name), SSL_FILETYPE_PEM), 1);
    return ctx;
}

void meet_client(struct meeting *m, int version)
{
    SSL_CTX *ctx = client_ctx(version);
    wire_init(&m->wire);
    peer_init(&m->peer, &m->wire, ctx, true);
    SSL_CTX_free(ctx);
    m->context = new_server_context(NULL);
    m->party = host_tls(&m->wire, m->context, NULL);
}

void open_to_client(struct meeting *m, int version)
{
    meet_client(m, version);
    peer_settle(&m->peer);
    expect(m->party, "open");
}

void end_meeting(struct meeting *m)
{
    dismiss_all();
    peer_release(&m->peer);
    tls_context_free(m->context);
}
