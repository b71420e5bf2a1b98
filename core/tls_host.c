/* tls_host.c - one certificate with its key, and what is asked of the clients who come for its names. */
#include <errno.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tls.h"

static void __attribute__((format(printf, 2, 3))) warn(const struct tls_options *options, const char *format, ...)
{
    struct errbuf text;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text.text, sizeof text.text, format, arguments);
    va_end(arguments);
    if (options->warning)
        options->warning(options->arg, text.text);
}

/* ---- the certificate and its key ---- */

static void check_dates(const X509 *certificate, const char *what, const char *path, const struct tls_options *options)
{
    if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0)
        warn(options, "\"%s\": %s has expired", path, what);
    else if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0)
        warn(options, "\"%s\": %s is not valid yet", path, what);
}

static void check_key_mode(const char *path, const struct tls_options *options)
{
    struct stat st;
    if (options->warning && stat(path, &st) == 0 && st.st_mode & S_IROTH)
        warn(options, "\"%s\": everyone can read this private key (chmod o-r)", path);
}

static int load_files(struct tls_host *host, const struct tls_certificate *from, const struct tls_options *options, struct errbuf *err)
{
    const char *key_file = from->key_file ? from->key_file : from->cert_file;
    host->certificate = tls_file_chain(options->files, from->cert_file, &host->chain, err);
    if (!host->certificate || !(host->key = tls_file_key(options->files, key_file, options->key_pass_file, err)))
        return -1;
    check_key_mode(key_file, options);
    check_dates(host->certificate, "the certificate", from->cert_file, options);
    for (int i = 0; i < sk_X509_num(host->chain); i++)
        check_dates(sk_X509_value(host->chain, i), "a certificate of the chain", from->cert_file, options);
    return 0;
}

static int use_certificate(struct tls_host *host, const struct tls_certificate *from, struct errbuf *err)
{
    if (X509_check_private_key(host->certificate, host->key) != 1) {
        ERR_clear_error();
        return errbuf_set(err, "the key in \"%s\" is not that of the certificate in \"%s\"",
                          from->key_file ? from->key_file : from->cert_file, from->cert_file);
    }
    if (SSL_CTX_use_cert_and_key(host->ctx, host->certificate, host->key, host->chain, 1) != 1)
        return errbuf_set(err, "\"%s\": %s", from->cert_file, tls_reason());
    return 0;
}

static int load_ocsp(struct tls_host *host, const char *path, const struct tls_options *options, struct errbuf *err)
{
    bool outdated = false;
    if (!path)
        return 0;
    host->ocsp = tls_file_ocsp(options->files, path, host->certificate, &host->ocsp_length, &outdated, err);
    if (outdated)
        warn(options, "\"%s\": the OCSP response is out of date", path);
    return host->ocsp ? 0 : -1;
}

/* ---- what is asked of clients ---- */

static int verify_mode(const struct tls_certificate *from)
{
    switch (from->verify) {
    case TLS_VERIFY_NONE:
        return SSL_VERIFY_NONE;
    case TLS_VERIFY_OPTIONAL: /* who has none may come, who has a bad one may not */
        return SSL_VERIFY_PEER;
    case TLS_VERIFY_REQUIRE:
        return SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    default:
        return from->ca ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT : SSL_VERIFY_NONE;
    }
}

static int by_name(const X509_NAME *const *a, const X509_NAME *const *b)
{
    return X509_NAME_cmp(*a, *b);
}

static int read_revocations(X509_STORE *store, const char *path, const struct tls_options *options, struct errbuf *err)
{
    bool outdated = false;
    int result = tls_file_revocations(options->files, path, store, &outdated, err);
    if (outdated)
        warn(options, "\"%s\": a revocation list is out of date, and lets nobody in", path);
    return result;
}

static int trust(struct tls_host *host, const struct tls_certificate *from, const struct tls_options *options, struct errbuf *err)
{
    X509_STORE *store = SSL_CTX_get_cert_store(host->ctx);
    STACK_OF(X509_NAME) *names = sk_X509_NAME_new_null();
    if (!names || tls_file_authorities(options->files, from->ca, store, names, err) != 0) {
        sk_X509_NAME_pop_free(names, X509_NAME_free);
        return names ? -1 : errbuf_set(err, "%s", strerror(ENOMEM));
    }
    sk_X509_NAME_set_cmp_func(names, by_name);
    sk_X509_NAME_sort(names);                     /* a directory has them in any order */
    SSL_CTX_set_client_CA_list(host->ctx, names); /* takes it over */
    if (from->crl)
        return read_revocations(store, from->crl, options, err);
    if (tls_file_hides_revocations(options->files, from->ca))
        warn(options, "\"%s\": its revocation lists are not used, since none are asked for (--ssl-crl \"%s\")", from->ca, from->ca);
    return 0;
}

static int ask_clients(struct tls_host *host, const struct tls_certificate *from, const struct tls_options *options, struct errbuf *err)
{
    host->verify_mode = verify_mode(from);
    if (host->verify_mode == SSL_VERIFY_NONE)
        return 0;
    if (!from->ca)
        return errbuf_set(err, "client certificates cannot be verified without a certificate authority");
    if (from->verify_depth > 0)
        SSL_CTX_set_verify_depth(host->ctx, from->verify_depth);
    SSL_CTX_set_verify(host->ctx, host->verify_mode, NULL);
    return trust(host, from, options, err);
}

/* ---- which connections may resume each other's sessions ---- */

static void add_authority(EVP_MD_CTX *digest, X509_OBJECT *object)
{
    unsigned char bytes[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    if (X509_OBJECT_get_type(object) == X509_LU_X509)
        X509_digest(X509_OBJECT_get0_X509(object), EVP_sha256(), bytes, &length);
    else if (X509_OBJECT_get_type(object) == X509_LU_CRL)
        X509_CRL_digest(X509_OBJECT_get0_X509_CRL(object), EVP_sha256(), bytes, &length);
    EVP_DigestUpdate(digest, bytes, length);
}

/* All that decides who is let in: a ticket is an answer to these questions and to no others. */
static int digest_policy(struct tls_host *host, const struct tls_certificate *from)
{
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    bool good = digest && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) && EVP_DigestUpdate(digest, &host->verify_mode, sizeof(int));
    if (good && host->verify_mode != SSL_VERIFY_NONE) {
        STACK_OF(X509_OBJECT) *objects = X509_STORE_get0_objects(SSL_CTX_get_cert_store(host->ctx));
        for (int i = 0; i < sk_X509_OBJECT_num(objects); i++)
            add_authority(digest, sk_X509_OBJECT_value(objects, i));
        good = EVP_DigestUpdate(digest, from->ca, strlen(from->ca) + 1) && EVP_DigestUpdate(digest, &from->verify_depth, sizeof(int));
    }
    good = good && EVP_DigestFinal_ex(digest, host->policy, NULL);
    EVP_MD_CTX_free(digest);
    return good ? 0 : -1;
}

/* The names and the policy; not the certificate, so that sessions outlive its renewal. */
static int digest_group(struct tls_host *host)
{
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    bool good = digest && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) && EVP_DigestUpdate(digest, host->policy, sizeof host->policy);
    for (size_t i = 0; good && i < host->names.count; i++)
        good = EVP_DigestUpdate(digest, host->names.items[i], strlen(host->names.items[i]) + 1);
    good = good && EVP_DigestFinal_ex(digest, host->session_group, NULL);
    EVP_MD_CTX_free(digest);
    return good && SSL_CTX_set_session_id_context(host->ctx, host->session_group, sizeof host->session_group) ? 0 : -1;
}

int tls_host_load(struct tls_host *host, const struct tls_certificate *from, const struct tls_options *options, struct errbuf *err)
{
    if (options->identity && from == options->certificates)
        tls_identity_use(options->identity, host);
    else if (load_files(host, from, options, err) != 0)
        return -1;
    if (use_certificate(host, from, err) != 0 || load_ocsp(host, from->ocsp_file, options, err) != 0 ||
        ask_clients(host, from, options, err) != 0)
        return -1;
    if (tls_names_of(host->certificate, &host->names) != 0 || digest_policy(host, from) != 0 || digest_group(host) != 0)
        return errbuf_set(err, "\"%s\": %s", from->cert_file, strerror(ENOMEM));
    return 0;
}

void tls_host_release(struct tls_host *host)
{
    SSL_CTX_free(host->ctx);
    X509_free(host->certificate);
    sk_X509_pop_free(host->chain, X509_free);
    EVP_PKEY_free(host->key);
    tls_names_release(&host->names);
    free(host->ocsp);
}
