/* tls_select.c - what the server answers to a ClientHello: whose certificate, what is asked of the client, which protocol.
 *
 * All of it is decided in the ClientHello callback, before OpenSSL looks at tickets. Decided later (in the servername callback), a ticket
 * that was issued without a client certificate opens a name that asks for one (CVE-2025-23419). */
#include <assert.h>
#include <ctype.h>
#include <string.h>

#include "tls.h"

enum { NAME_BYTES = 256 };

/* ---- which certificate ---- */

/* RFC 6066, 3: a list of one host name. 1: there is one; 0: there is none; -1: malformed. In lower case, and without a final dot. */
static int read_name(SSL *ssl, char *name)
{
    const unsigned char *bytes;
    size_t length;
    if (!SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &bytes, &length))
        return 0;
    if (length < 5 || (size_t)(bytes[0] << 8 | bytes[1]) != length - 2 || bytes[2] != TLSEXT_NAMETYPE_host_name)
        return -1;
    size_t count = (size_t)(bytes[3] << 8 | bytes[4]);
    if (count == 0 || count != length - 5 || count >= NAME_BYTES || memchr(bytes + 5, '\0', count))
        return -1;
    for (size_t i = 0; i < count; i++)
        name[i] = (char)tolower(bytes[5 + i]);
    name[count] = '\0';
    if (name[count - 1] == '.')
        name[count - 1] = '\0';
    return 1;
}

/* The first of those that match best. */
static const struct tls_host *find(const struct tls_context *context, const char *name)
{
    const struct tls_host *best = NULL;
    enum tls_match best_match = TLS_NO_MATCH;
    for (size_t i = 0; i < context->count; i++) {
        enum tls_match match = tls_names_match(&context->hosts[i].names, name);
        if (match > best_match) {
            best = &context->hosts[i];
            best_match = match;
        }
    }
    return best;
}

/* A name may have certificates for several kinds of keys; OpenSSL takes one that the client knows. The first of a kind goes last, since each
 * replaces the one before it: also that of the first ClientHello, if there is a second one (RFC 8446, 4.1.4). */
static bool add_others(SSL *ssl, const struct tls_context *context, const struct tls_host *chosen, const char *name)
{
    enum tls_match match = tls_names_match(&chosen->names, name);
    for (size_t i = context->count; match != TLS_NO_MATCH && i-- > 0;) {
        const struct tls_host *other = &context->hosts[i];
        if (EVP_PKEY_get_base_id(other->key) == EVP_PKEY_get_base_id(chosen->key) || tls_names_match(&other->names, name) != match)
            continue;
        if (SSL_use_cert_and_key(ssl, other->certificate, other->key, other->chain, 1) != 1)
            return false;
    }
    return true;
}

static bool use_host(SSL *ssl, const struct tls_host *host)
{
    if (SSL_get_SSL_CTX(ssl) != host->ctx && !SSL_set_SSL_CTX(ssl, host->ctx))
        return false;
    SSL_set_verify(ssl, host->verify_mode, NULL);
    SSL_set_verify_depth(ssl, SSL_CTX_get_verify_depth(host->ctx));
    return SSL_set_session_id_context(ssl, host->session_group, sizeof host->session_group) == 1;
}

static int refuse(int *alert, int with, int reason)
{
    *alert = with;
    ERR_raise(ERR_LIB_SSL, reason); /* for the log; OpenSSL would only say that a callback failed */
    return SSL_CLIENT_HELLO_ERROR;
}

static int on_client_hello(SSL *ssl, int *alert, void *arg)
{
    const struct tls_context *context = arg;
    char name[NAME_BYTES];
    int named = read_name(ssl, name);
    if (named < 0)
        return refuse(alert, SSL_AD_DECODE_ERROR, SSL_R_BAD_EXTENSION);
    const struct tls_host *named_one = named ? find(context, name) : NULL;
    const struct tls_host *host = named_one ? named_one : context->hosts;
    assert(host);
    if (named && !named_one && context->strict_sni) {
        SSL_set_tlsext_host_name(ssl, name); /* for the log: OpenSSL has not read it yet */
        return refuse(alert, SSL_AD_UNRECOGNIZED_NAME, SSL_R_TLSV1_UNRECOGNIZED_NAME);
    }
    const char *covered = named_one ? name : host->names.count > 0 ? host->names.items[0] : NULL;
    if (use_host(ssl, host) && (!covered || context->count == 1 || add_others(ssl, context, host, covered)))
        return SSL_CLIENT_HELLO_SUCCESS;
    *alert = SSL_AD_INTERNAL_ERROR;
    return SSL_CLIENT_HELLO_ERROR;
}

/* The name was of use (RFC 6066, 3); without this callback OpenSSL would not say so. */
static int on_server_name(SSL *ssl, int *alert, void *arg)
{
    (void)ssl, (void)alert, (void)arg;
    return SSL_TLSEXT_ERR_OK;
}

/* ---- what else the client may ask for ---- */

/* RFC 7301, 3.2: no protocol in common is fatal. */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *length, const unsigned char *in, unsigned int in_length, void *arg)
{
    (void)ssl;
    const struct tls_context *context = arg;
    unsigned char *chosen;
    if (SSL_select_next_proto(&chosen, length, context->alpn, (unsigned)context->alpn_length, in, in_length) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static int on_status_request(SSL *ssl, void *arg)
{
    const struct tls_context *context = arg;
    const X509 *certificate = SSL_get_certificate(ssl);
    for (size_t i = 0; i < context->count; i++) {
        const struct tls_host *host = &context->hosts[i];
        if (host->certificate != certificate || !host->ocsp)
            continue;
        unsigned char *copy = OPENSSL_memdup(host->ocsp, host->ocsp_length);
        if (!copy || !SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)host->ocsp_length))
            return SSL_TLSEXT_ERR_NOACK;
        return SSL_TLSEXT_ERR_OK;
    }
    return SSL_TLSEXT_ERR_NOACK;
}

void tls_select_use(struct tls_context *context, SSL_CTX *ctx)
{
    SSL_CTX_set_client_hello_cb(ctx, on_client_hello, context);
    SSL_CTX_set_tlsext_servername_callback(ctx, on_server_name);
    SSL_CTX_set_tlsext_status_cb(ctx, on_status_request);
    SSL_CTX_set_tlsext_status_arg(ctx, context);
    if (context->alpn)
        SSL_CTX_set_alpn_select_cb(ctx, on_alpn, context);
}

/* ---- at start ---- */

/* Addresses do not count: who comes by one should not name it, and gets the first certificate. */
static const char *shared_name(const struct tls_host *a, const struct tls_host *b)
{
    for (size_t i = 0; i < a->names.count; i++) {
        for (size_t j = 0; j < b->names.count; j++) {
            if (strcmp(a->names.items[i], b->names.items[j]) == 0 && !tls_is_address(a->names.items[i]))
                return a->names.items[i];
        }
    }
    return NULL;
}

int tls_select_check(const struct tls_context *context, struct errbuf *err)
{
    for (size_t i = 0; i < context->count; i++) {
        for (size_t j = i + 1; j < context->count; j++) {
            const struct tls_host *a = &context->hosts[i], *b = &context->hosts[j];
            const char *name = shared_name(a, b);
            if (name && memcmp(a->policy, b->policy, sizeof a->policy) != 0)
                return errbuf_set(err, "two certificates for \"%s\" do not ask the same of clients", name);
        }
    }
    return 0;
}
