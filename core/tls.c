/* tls.c - the TLS transport: OpenSSL between a stream and another transport.
 *
 * OpenSSL reads ahead, so one recv brings a record whole, or several. A recv that brought less than was asked for has emptied the
 * socket; OpenSSL is told to wait without another. */
#include <errno.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tls.h"

enum {
    READS_TO_EMPTY = 4, /* what the peer of a failed connection still sent, before the descriptor is closed */
    KEY_REQUESTS = 32,  /* more than that without application data in between is an attack */
    BYTES_A_KEY_REQUEST = 1024
};

struct tls {
    struct transport base;
    struct transport *inner;
    struct tls_context *context;
    SSL *ssl;
    const char *error; /* why it failed, in OpenSSL's words, which last; NULL: it has not */
    int io_error;      /* of the inner transport */
    int broken;        /* the errno of the failure that ended it, or 0 */
    int key_requests;  /* so many more than the application data that came allows */
    size_t allowance;  /* bytes of it that have not allowed one yet */
    bool open;         /* the handshake is done */
    bool dry;          /* the last read of the inner transport was short: another one would find nothing */
    bool waiting;      /* OpenSSL needs more from the socket, whatever it holds already */
    bool ended;        /* the peer's close_notify has been read */
    bool failed;       /* the peer was told why, by an alert; or it has ended itself */
};

static struct tls *tls_of(struct transport *t)
{
    return container_of(t, struct tls, base);
}

/* ---- under OpenSSL: the inner transport ---- */

static int retry(BIO *bio, ssize_t want, int error, struct tls *t)
{
    if (want == TRANSPORT_ERROR)
        t->io_error = error;
    else if (want == TRANSPORT_WANT_READ)
        BIO_set_retry_read(bio);
    else
        BIO_set_retry_write(bio);
    return -1;
}

static int bio_read(BIO *bio, char *bytes, int length)
{
    struct tls *t = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (t->dry || t->key_requests > KEY_REQUESTS) /* OpenSSL would go on for as long as there are more of them */
        return retry(bio, TRANSPORT_WANT_READ, 0, t);
    ssize_t n = t->inner->ops->read(t->inner, bytes, (size_t)length);
    if (n < 0)
        return retry(bio, n, errno, t);
    t->dry = n > 0 && n < length;
    return (int)n;
}

static int bio_write(BIO *bio, const char *bytes, int length)
{
    struct tls *t = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    ssize_t n = t->inner->ops->write(t->inner, bytes, (size_t)length);
    return n < 0 ? retry(bio, n, errno, t) : (int)n;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

BIO_METHOD *tls_bio_method(void)
{
    BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "hark transport");
    if (method && BIO_meth_set_read(method, bio_read) && BIO_meth_set_write(method, bio_write) && BIO_meth_set_ctrl(method, bio_ctrl))
        return method;
    BIO_meth_free(method);
    return NULL;
}

/* ---- what OpenSSL says ---- */

static const char ended_early[] = "ended without close_notify";

static const char *reason_of_failure(SSL *ssl)
{
    unsigned long code = ERR_peek_error();
    long verified = SSL_get_verify_result(ssl);
    int reason = ERR_GET_REASON(code);
    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED && verified != X509_V_OK)
        return X509_verify_cert_error_string(verified);
    if (reason == SSL_R_UNEXPECTED_EOF_WHILE_READING) /* of a socket that OpenSSL has itself */
        return ended_early;
    const char *text = ERR_reason_error_string(code);
    return text ? text : "protocol error";
}

static int fail(struct tls *t, const char *why)
{
    t->failed = true;
    t->error = why;
    errno = t->broken = EPROTO;
    return TRANSPORT_ERROR;
}

/* What the result of a call that did not succeed means, as a transport says it. */
static int outcome(struct tls *t, int result)
{
    int io_error = t->io_error ? t->io_error : t->context->kernel_tls ? errno : 0; /* OpenSSL's own calls leave it in errno */
    int error = SSL_get_error(t->ssl, result);
    switch (error) {
    case SSL_ERROR_WANT_READ:
        return TRANSPORT_WANT_READ;
    case SSL_ERROR_WANT_WRITE:
        return TRANSPORT_WANT_WRITE;
    case SSL_ERROR_ZERO_RETURN: /* of every failure, too, after the peer's close_notify */
    case SSL_ERROR_SYSCALL:
        if (io_error) {
            errno = t->broken = io_error;
            return TRANSPORT_ERROR;
        }
        if (error == SSL_ERROR_ZERO_RETURN)
            return 0;
        return fail(t, t->open ? ended_early : "ended during the handshake");
    default:
        return fail(t, reason_of_failure(t->ssl));
    }
}

/* Before each call: errors of another connection's must not be taken for this one's. */
static void begin(struct tls *t)
{
    if (ERR_peek_error()) /* dear, since it goes through all of the queue */
        ERR_clear_error();
    t->dry = false;
    errno = 0;
}

/* Called for each record and message. A peer may ask for new keys as often as it likes (RFC 8446, 4.6.3; in TLS 1.2 by a renegotiation,
 * which is refused), and each time costs more than it takes to ask. */
static void on_message(int written, int version, int type, const void *bytes, size_t length, SSL *ssl, void *arg)
{
    (void)version, (void)ssl;
    struct tls *t = arg;
    const unsigned char *message = bytes;
    bool update = !written && type == SSL3_RT_HANDSHAKE && length > 0 && message[0] == SSL3_MT_KEY_UPDATE;
    bool refusal = written && type == SSL3_RT_ALERT && length == 2 && message[1] == SSL_AD_NO_RENEGOTIATION;
    t->key_requests += update || refusal;
}

static bool too_many_key_requests(struct tls *t, size_t bytes)
{
    t->allowance += bytes;
    int allowed = (int)(t->allowance / BYTES_A_KEY_REQUEST);
    t->allowance %= BYTES_A_KEY_REQUEST;
    t->key_requests -= allowed < t->key_requests ? allowed : t->key_requests;
    return t->key_requests > KEY_REQUESTS;
}

/* ---- the transport ---- */

static int tls_handshake(struct transport *base)
{
    struct tls *t = tls_of(base);
    begin(t);
    int result = SSL_do_handshake(t->ssl);
    t->open = result == 1;
    if (t->open)
        return 0;
    result = outcome(t, result);
    return result == 0 ? fail(t, "ended during the handshake") : result; /* a close_notify opens nothing */
}

/* As many records as are there and fit. */
static ssize_t tls_read(struct transport *base, void *bytes, size_t length)
{
    struct tls *t = tls_of(base);
    size_t done = 0;
    int result = 0;
    if (t->broken) { /* told now that all which came before has been handed out */
        errno = t->broken;
        return TRANSPORT_ERROR;
    }
    begin(t);
    do {
        size_t n;
        if (!SSL_read_ex(t->ssl, (char *)bytes + done, length - done, &n)) {
            result = outcome(t, 0);
            break;
        }
        done += n;
    } while (done < length && SSL_has_pending(t->ssl));
    t->waiting = result < 0;
    t->ended = result == 0 && SSL_get_shutdown(t->ssl) & SSL_RECEIVED_SHUTDOWN;
    if (too_many_key_requests(t, done))
        return fail(t, "too many requests for new keys");
    return done ? (ssize_t)done : result;
}

static ssize_t tls_write(struct transport *base, const void *bytes, size_t length)
{
    struct tls *t = tls_of(base);
    size_t n;
    begin(t);
    if (SSL_write_ex(t->ssl, bytes, length, &n))
        return (ssize_t)n;
    int result = outcome(t, 0);
    return result == 0 ? fail(t, "written to after its end") : result;
}

static int tls_shutdown(struct transport *base, bool last)
{
    struct tls *t = tls_of(base);
    begin(t);
    int result = SSL_shutdown(t->ssl);
    if (result < 0 && (result = outcome(t, result)) != 0)
        return result;
    return t->inner->ops->shutdown(t->inner, last);
}

/* What is decrypted or whole already. While OpenSSL waits for the rest of a record, only the socket can help. */
static bool tls_pending(struct transport *base)
{
    struct tls *t = tls_of(base);
    return t->ended || t->broken || (!t->waiting && SSL_has_pending(t->ssl));
}

static void tls_watch(struct transport *base, int events)
{
    struct tls *t = tls_of(base);
    t->inner->owner = base->owner;
    t->inner->ops->watch(t->inner, events);
}

/* With input unread the kernel would send a reset, which may overtake the alert that says what was wrong. */
static void drop_input(struct tls *t)
{
    struct transport *inner = t->inner;
    char *scratch = t->base.owner->engine->scratch;
    for (int i = 0; i < READS_TO_EMPTY && inner->ops->read(inner, scratch, SCRATCH_BYTES) > 0; i++)
        ;
}

static void tls_free(struct transport *base, bool reset)
{
    struct tls *t = tls_of(base);
    if (t->failed)
        drop_input(t);
    SSL_free(t->ssl);
    tls_context_free(t->context);
    t->inner->ops->free(t->inner, reset && !t->failed);
    free(t);
}

static const struct transport_ops tls_ops = {.handshake = tls_handshake,
                                             .read = tls_read,
                                             .write = tls_write,
                                             .shutdown = tls_shutdown,
                                             .pending = tls_pending,
                                             .watch = tls_watch,
                                             .free = tls_free};

/* ---- what is known of it ---- */

struct tls_info *tls_describe(struct transport *base)
{
    const struct tls *t = tls_of(base);
    return base->ops == &tls_ops ? tls_info_new(t->ssl, t->open, t->error) : NULL;
}

void tls_export(struct transport *base, tls_variable_cb *set, void *arg)
{
    if (base->ops == &tls_ops)
        tls_info_export(tls_of(base)->ssl, set, arg);
}

/* ---- making one ---- */

/* Whom a client wants to talk to (RFC 6066: addresses are not named; RFC 9525: they are verified all the same). 0, or an errno. */
static int set_name(SSL *ssl, const char *host)
{
    char name[256];
    X509_VERIFY_PARAM *wanted = SSL_get0_param(ssl);
    size_t length = host ? strcspn(host, "%") : 0; /* a scope is ours alone */
    if (length > 1 && host[length - 1] == '.')
        length--;    /* and so is the dot of a name that is whole */
    if (length == 0) /* OpenSSL would be content with anybody whom an authority knows */
        return SSL_get_verify_mode(ssl) == SSL_VERIFY_NONE ? 0 : EINVAL;
    if (length >= sizeof name)
        return EINVAL;
    snprintf(name, sizeof name, "%.*s", (int)length, host);
    X509_VERIFY_PARAM_set_hostflags(wanted, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    bool set = tls_is_address(name) ? X509_VERIFY_PARAM_set1_ip_asc(wanted, name) == 1
                                    : SSL_set1_host(ssl, name) && SSL_set_tlsext_host_name(ssl, name);
    return set ? 0 : ENOMEM;
}

/* OpenSSL reads and writes the inner transport; or the socket, if the kernel is to encrypt. */
static BIO *make_bio(struct tls *t)
{
    if (t->context->kernel_tls && transport_can_splice(t->inner))
        return BIO_new_socket(t->inner->write_fd, BIO_NOCLOSE);
    BIO *bio = BIO_new(t->context->bio);
    if (bio) {
        BIO_set_data(bio, t);
        BIO_set_init(bio, 1);
    }
    return bio;
}

/* 0, or an errno. */
static int prepare(struct tls *t, const char *name)
{
    BIO *bio = NULL;
    t->ssl = SSL_new(t->context->hosts[0].ctx);
    if (!t->ssl || !(bio = make_bio(t)))
        return ENOMEM;
    SSL_set_bio(t->ssl, bio, bio);
    SSL_set_msg_callback(t->ssl, on_message);
    SSL_set_msg_callback_arg(t->ssl, t);
    if (!t->context->is_client) {
        SSL_set_accept_state(t->ssl);
        return 0;
    }
    SSL_set_connect_state(t->ssl);
    return set_name(t->ssl, name);
}

struct transport *transport_tls_new(struct transport *inner, struct tls_context *context, const char *name)
{
    struct tls *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    *t =
        (struct tls){.base = {.ops = &tls_ops, .read_fd = inner->read_fd, .write_fd = inner->write_fd}, .inner = inner, .context = context};
    int error = prepare(t, name);
    if (error == 0) {
        tls_context_keep(context);
        return &t->base;
    }
    SSL_free(t->ssl);
    free(t);
    errno = error;
    return NULL;
}
