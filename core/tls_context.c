/* tls_context.c - what connections of one server, or to one kind of target, have in common. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tls.h"

/* For TLS 1.2: with forward secrecy, and authenticated in one go (RFC 9325, 4.2). All of TLS 1.3's are. */
static const char default_ciphers[] = "ECDHE+AESGCM:ECDHE+CHACHA20";

/* Without those of finite fields: ffdhe8192 costs the server 200 times what X25519 does, and the client nothing (CVE-2002-20001).
 * The first list is for an OpenSSL that knows the hybrid (3.5). */
static const char *const default_groups[] = {"X25519MLKEM768:X25519:P-256:X448:P-384:P-521", "X25519:P-256:X448:P-384:P-521"};

/* ---- settings that every certificate shares ---- */

/* A list of which OpenSSL would pass over what it does not know: each item has to be good by itself. */
static int check_items(const char *list, const char *what, int (*set)(SSL_CTX *, const char *), struct errbuf *err)
{
    char item[128];
    int result = 0;
    SSL_CTX *scratch = SSL_CTX_new(TLS_server_method());
    for (const char *next = list; scratch && result == 0 && *next;) {
        size_t length = strcspn(next, ":, ");
        const char *name = next + strspn(next, "!-+"); /* operators of ciphers(1) */
        size_t operators = (size_t)(name - next);
        next += length + strspn(next + length, ":, ");
        if (length <= operators || name[0] == '@')
            continue;
        snprintf(item, sizeof item, "%.*s", (int)(length - operators), name);
        if (!set(scratch, item))
            result = errbuf_set(err, "unknown %s \"%s\"", what, item);
    }
    SSL_CTX_free(scratch);
    ERR_clear_error();
    return result;
}

static int set_suite(SSL_CTX *ctx, const char *name)
{
    if (!SSL_CTX_set_ciphersuites(ctx, name))
        return 0;
    STACK_OF(SSL_CIPHER) *ciphers = SSL_CTX_get_ciphers(ctx);
    return sk_SSL_CIPHER_num(ciphers) > 0 && strcmp(SSL_CIPHER_get_version(sk_SSL_CIPHER_value(ciphers, 0)), "TLSv1.3") == 0;
}

/* SSL_CTX_set1_groups_list without its cast, which is one more warning. */
static int set_groups(SSL_CTX *ctx, const char *list)
{
    return (int)SSL_CTX_ctrl(ctx, SSL_CTRL_SET_GROUPS_LIST, 0, (void *)(uintptr_t)list);
}

static int check_lists(const struct tls_options *o, struct errbuf *err)
{
    if (o->ciphers && check_items(o->ciphers, "cipher", SSL_CTX_set_cipher_list, err) != 0)
        return -1;
    if (o->ciphersuites && check_items(o->ciphersuites, "ciphersuite", set_suite, err) != 0)
        return -1;
    return o->groups ? check_items(o->groups, "group", set_groups, err) : 0;
}

static int set_lists(SSL_CTX *ctx, const struct tls_options *o, struct errbuf *err)
{
    if (!SSL_CTX_set_cipher_list(ctx, o->ciphers ? o->ciphers : default_ciphers))
        return errbuf_set(err, "ciphers \"%s\": %s", o->ciphers, tls_reason());
    if (o->ciphersuites && !SSL_CTX_set_ciphersuites(ctx, o->ciphersuites))
        return errbuf_set(err, "ciphersuites \"%s\": %s", o->ciphersuites, tls_reason());
    if (o->groups && !set_groups(ctx, o->groups))
        return errbuf_set(err, "groups \"%s\": %s", o->groups, tls_reason());
    if (!o->groups && !set_groups(ctx, default_groups[0]) && !set_groups(ctx, default_groups[1]))
        return errbuf_set(err, "groups: %s", tls_reason());
    ERR_clear_error();
    return 0;
}

static int wire_version(int version)
{
    return version == 13 ? TLS1_3_VERSION : version == 12 ? TLS1_2_VERSION : 0;
}

static void set_modes(SSL_CTX *ctx, int min_version, int max_version)
{
    SSL_CTX_set_min_proto_version(ctx, min_version ? wire_version(min_version) : TLS1_2_VERSION);
    SSL_CTX_set_max_proto_version(ctx, wire_version(max_version));
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS |
                              SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_read_ahead(ctx, 1);
}

/* Its module is loaded (modprobe tls), which says that it is wanted; see tls(7) of the kernel's documentation. */
static bool kernel_offers_tls(struct bundle *files)
{
    char offers[256] = "";
#ifdef SSL_OP_ENABLE_KTLS
    struct errbuf unused;
    const struct bundle_file *file = bundle_file(files, "/proc/sys/net/ipv4/tcp_available_ulp", &unused);
    snprintf(offers, sizeof offers, "%.*s", file ? (int)file->length : 0, file ? file->bytes : "");
#endif
    char *rest = offers;
    for (char *word; (word = strsep(&rest, " \n"));)
        if (strcmp(word, "tls") == 0)
            return sigpipe_is_off();
    return false;
}

static void use_kernel_tls(struct tls_context *context, SSL_CTX *ctx)
{
#ifdef SSL_OP_ENABLE_KTLS
    if (context->kernel_tls)
        SSL_CTX_set_options(ctx, SSL_OP_ENABLE_KTLS);
#else
    (void)context, (void)ctx;
#endif
}

/* One line is one write, so that processes do not mix theirs. */
static void on_secret(const SSL *ssl, const char *line)
{
    const struct tls_context *context = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    char whole[512];
    int length = snprintf(whole, sizeof whole, "%s\n", line);
    if (length > 0 && (size_t)length < sizeof whole && write(context->keylog_fd, whole, (size_t)length) < 0)
        return; /* a full disk is no reason to end a connection */
}

static int set_up_host(struct tls_context *context, struct tls_host *host, const struct tls_options *o, struct errbuf *err)
{
    host->ctx = SSL_CTX_new(TLS_server_method());
    if (!host->ctx)
        return errbuf_set(err, "%s", tls_reason());
    SSL_CTX_set_app_data(host->ctx, context);
    set_modes(host->ctx, o->min_version, o->max_version);
    use_kernel_tls(context, host->ctx);
    SSL_CTX_set_dh_auto(host->ctx, 1);
    if (context->keylog_fd > 0)
        SSL_CTX_set_keylog_callback(host->ctx, on_secret);
    tls_select_use(context, host->ctx);
    if (tls_tickets_use(host->ctx) != 0)
        return errbuf_set(err, "%s", tls_reason());
    return set_lists(host->ctx, o, err);
}

/* ---- parts of the server's alone ---- */

/* "h2,http/1.1" as RFC 7301 has it on the wire: each with its length before it. */
static int set_alpn(struct tls_context *context, const char *list, struct errbuf *err)
{
    unsigned char *to = context->alpn = malloc(strlen(list) + 1);
    if (!to)
        return errbuf_set(err, "%s", strerror(errno));
    for (;;) {
        size_t length = strcspn(list, ",");
        if (length == 0 || length > 255)
            return errbuf_set(err, "ALPN: a protocol has 1 to 255 bytes, as in h2,http/1.1");
        *to++ = (unsigned char)length;
        memcpy(to, list, length);
        to += length;
        if (list[length] == '\0')
            break;
        list += length + 1;
    }
    context->alpn_length = (size_t)(to - context->alpn);
    return 0;
}

static int set_tickets(struct tls_context *context, const struct tls_options *o, struct errbuf *err)
{
    context->tickets = o->tickets;
    if (o->ticket_keys_file || !o->tickets)
        context->tickets = context->own_tickets = tls_tickets_new(err);
    if (!context->tickets)
        return -1;
    return o->ticket_keys_file ? tls_tickets_load(context->own_tickets, o->files, o->ticket_keys_file, err) : 0;
}

static int set_up(struct tls_context *context, const struct tls_options *o, struct errbuf *err)
{
    context->strict_sni = o->strict_sni;
    context->keylog_fd = o->keylog_fd;
    if (o->count == 0)
        return errbuf_set(err, "no certificate is given");
    if (o->min_version && o->max_version && o->min_version > o->max_version)
        return errbuf_set(err, "the lowest TLS version is above the highest");
    if (check_lists(o, err) != 0 || (o->alpn && set_alpn(context, o->alpn, err) != 0) || set_tickets(context, o, err) != 0)
        return -1;
    for (unsigned i = 0; i < o->count; i++) {
        struct tls_host *host = &context->hosts[context->count++];
        if (set_up_host(context, host, o, err) != 0 || tls_host_load(host, &o->certificates[i], o, err) != 0)
            return -1;
    }
    return tls_select_check(context, err);
}

/* ---- making one ---- */

static struct tls_context *context_new(size_t hosts, struct bundle *files, struct errbuf *err)
{
    struct tls_context *context = calloc(1, sizeof *context);
    if (context) {
        *context = (struct tls_context){.users = 1, .kernel_tls = kernel_offers_tls(files)};
        context->hosts = calloc(hosts, sizeof *context->hosts);
        context->bio = tls_bio_method();
    }
    if (context && context->hosts && context->bio)
        return context;
    tls_context_free(context);
    errbuf_set(err, "%s", strerror(ENOMEM));
    return NULL;
}

static struct tls_context *server_new(const struct tls_options *options, struct errbuf *err)
{
    struct tls_context *context = context_new(options->count, options->files, err);
    if (!context || set_up(context, options, err) == 0)
        return context;
    tls_context_free(context);
    return NULL;
}

struct tls_context *tls_server_new(const struct tls_options *options, struct errbuf *err)
{
    struct tls_options from = *options;
    if (options->files)
        return server_new(options, err);
    from.files = bundle_new(err);
    struct tls_context *context = from.files ? server_new(&from, err) : NULL;
    bundle_free(from.files);
    return context;
}

static int trust(SSL_CTX *ctx, struct bundle *files, const char *ca, struct errbuf *err)
{
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    if (!ca)
        return SSL_CTX_set_default_verify_paths(ctx) ? 0 : errbuf_set(err, "the system's certificate authorities: %s", tls_reason());
    STACK_OF(X509_NAME) *names = sk_X509_NAME_new_null();
    int result = names ? tls_file_authorities(files, ca, SSL_CTX_get_cert_store(ctx), names, err) : errbuf_set(err, "%s", strerror(ENOMEM));
    sk_X509_NAME_pop_free(names, X509_NAME_free);
    return result;
}

static int set_up_client(struct tls_context *context, struct bundle *files, const char *ca, bool insecure, struct errbuf *err)
{
    context->is_client = true;
    context->count = 1;
    SSL_CTX *ctx = context->hosts[0].ctx = SSL_CTX_new(TLS_client_method());
    if (!ctx)
        return errbuf_set(err, "%s", tls_reason());
    set_modes(ctx, 0, 0);
    use_kernel_tls(context, ctx);
    return insecure ? 0 : trust(ctx, files, ca, err);
}

struct tls_context *tls_client_new(const char *ca, bool insecure, struct errbuf *err)
{
    struct bundle *files = bundle_new(err);
    struct tls_context *context = files ? context_new(1, files, err) : NULL;
    int result = context ? set_up_client(context, files, ca, insecure, err) : -1;
    bundle_free(files);
    if (result == 0)
        return context;
    tls_context_free(context);
    return NULL;
}

/* Whatever OpenSSL would look at when a certificate comes; there may be one of them only, or none. */
int tls_client_read_ahead(struct tls_context *context, struct errbuf *err)
{
    struct errbuf unused;
    const char *file = getenv(X509_get_default_cert_file_env()), *directory = getenv(X509_get_default_cert_dir_env());
    X509_STORE *store = SSL_CTX_get_cert_store(context->hosts[0].ctx);
    STACK_OF(X509_NAME) *names = sk_X509_NAME_new_null();
    struct bundle *files = names ? bundle_new(err) : NULL;
    if (files) {
        tls_file_authorities(files, file ? file : X509_get_default_cert_file(), store, names, &unused);
        tls_file_authorities(files, directory ? directory : X509_get_default_cert_dir(), store, names, &unused);
    }
    sk_X509_NAME_pop_free(names, X509_NAME_free);
    bundle_free(files);
    return files ? 0 : errbuf_set(err, "%s", strerror(ENOMEM));
}

bool tls_is_client(const struct tls_context *context)
{
    return context->is_client;
}

struct tls_context *tls_context_keep(struct tls_context *context)
{
    context->users++;
    return context;
}

void tls_context_free(struct tls_context *context)
{
    if (!context || --context->users > 0)
        return;
    for (size_t i = 0; i < context->count; i++)
        tls_host_release(&context->hosts[i]);
    free(context->hosts);
    tls_tickets_free(context->own_tickets);
    free(context->alpn);
    BIO_meth_free(context->bio);
    free(context);
}
