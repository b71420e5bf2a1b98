/* tls_info.c - what is known of a TLS connection, for logs and for the environment of children (mod_ssl's names). */
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>

#include "tls.h"

/* RFC 4514, control characters escaped; from malloc. */
static char *name_text(const X509_NAME *name)
{
    char *bytes = NULL, *copy = NULL;
    BIO *bio = BIO_new(BIO_s_mem());
    if (bio && X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253 & ~(unsigned long)ASN1_STRFLGS_ESC_MSB) >= 0) {
        long length = BIO_get_mem_data(bio, &bytes);
        copy = strndup(length > 0 ? bytes : "", (size_t)length);
    }
    BIO_free(bio);
    return copy;
}

/* In UTF-8, from malloc. A name with a zero byte in it would be taken for another one. */
static char *common_name(const X509_NAME *name)
{
    int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
    unsigned char *utf8 = NULL;
    int length = at < 0 ? -1 : ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
    char *copy = length > 0 && !memchr(utf8, '\0', (size_t)length) ? strndup((char *)utf8, (size_t)length) : NULL;
    OPENSSL_free(utf8);
    return copy;
}

/* The client's, if it was asked for, shown and found good. */
static X509 *verified(const SSL *ssl)
{
    return SSL_get_verify_mode(ssl) != SSL_VERIFY_NONE && SSL_get_verify_result(ssl) == X509_V_OK ? SSL_get0_peer_certificate(ssl) : NULL;
}

static char *alpn_text(const SSL *ssl)
{
    const unsigned char *protocol;
    unsigned length;
    SSL_get0_alpn_selected(ssl, &protocol, &length);
    return length > 0 ? strndup((const char *)protocol, length) : NULL;
}

/* ---- for logs ---- */

struct tls_info *tls_info_new(const SSL *ssl, bool open, const char *error)
{
    struct tls_info *info = calloc(1, sizeof *info);
    if (!info)
        return NULL;
    const X509 *client = SSL_is_server(ssl) ? verified(ssl) : NULL;
    const char *sni = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    info->version = open ? SSL_get_version(ssl) : NULL;
    info->cipher = open ? SSL_get_cipher_name(ssl) : NULL;
    info->sni = sni ? strdup(sni) : NULL;
    info->alpn = alpn_text(ssl);
    info->client = client ? name_text(X509_get_subject_name(client)) : NULL;
    info->client_name = client ? common_name(X509_get_subject_name(client)) : NULL;
    info->resumed = SSL_session_reused(ssl);
    info->kernel_sends = BIO_get_ktls_send(SSL_get_wbio(ssl));
    info->kernel_receives = BIO_get_ktls_recv(SSL_get_rbio(ssl));
    info->error = error;
    return info;
}

void tls_info_free(struct tls_info *info)
{
    if (!info)
        return;
    free(info->sni);
    free(info->alpn);
    free(info->client);
    free(info->client_name);
    free(info);
}

/* ---- for children ---- */

struct exporter {
    tls_variable_cb *set;
    void *arg;
};

static void export(const struct exporter *e, const char *name, const char *value)
{
    e->set(e->arg, name, value ? value : "");
}

static void export_and_free(const struct exporter *e, const char *name, char *value)
{
    export(e, name, value);
    free(value);
}

static char *serial_text(const X509 *certificate)
{
    BIGNUM *number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), NULL);
    char *digits = number ? BN_bn2hex(number) : NULL, *copy = digits ? strdup(digits) : NULL;
    OPENSSL_free(digits);
    BN_free(number);
    return copy;
}

static void export_client(const struct exporter *e, X509 *client)
{
    export(e, "SSL_CLIENT_VERIFY", client ? "SUCCESS" : "NONE");
    if (!client)
        return;
    export_and_free(e, "SSL_CLIENT_S_DN", name_text(X509_get_subject_name(client)));
    export_and_free(e, "SSL_CLIENT_I_DN", name_text(X509_get_issuer_name(client)));
    export_and_free(e, "SSL_CLIENT_M_SERIAL", serial_text(client));
    export_and_free(e, "SSL_CLIENT_CERT", tls_pem_text(client));
}

void tls_info_export(const SSL *ssl, tls_variable_cb *set, void *arg)
{
    const struct exporter e = {set, arg};
    export(&e, "SSL_PROTOCOL", SSL_get_version(ssl));
    export(&e, "SSL_CIPHER", SSL_get_cipher_name(ssl));
    export(&e, "SSL_TLS_SNI", SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name));
    export_and_free(&e, "SSL_ALPN", alpn_text(ssl));
    export_client(&e, verified(ssl));
}
