/* tls_identity.c - a certificate made up at start, for test servers. */
#include <errno.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tls.h"

enum { VALID_SECONDS = 365 * 24 * 3600, CLOCK_SKEW_SECONDS = 3600, NAME_BYTES = 253 };

struct tls_identity {
    X509 *certificate;
    EVP_PKEY *key;
    char names[NAME_BYTES + sizeof "localhost,127.0.0.1,::1,"];
    char sha256[2 * 32 + 1];
};

/* What may stand in a list of OpenSSL's without meaning something there. */
static bool is_host_name(const char *name)
{
    size_t length = strlen(name);
    return length > 0 && length <= NAME_BYTES &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.*") == length;
}

static int add_extension(X509 *certificate, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, certificate, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    int added = extension && X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
    return added;
}

static int add_extensions(X509 *certificate, const char *name)
{
    char names[NAME_BYTES + 64];
    snprintf(names, sizeof names, "DNS:localhost,IP:127.0.0.1,IP:::1%s%s",
             !name                  ? ""
             : tls_is_address(name) ? ",IP:"
                                    : ",DNS:",
             name ? name : "");
    return add_extension(certificate, NID_subject_alt_name, names) &&
           add_extension(certificate, NID_basic_constraints, "critical,CA:FALSE") &&
           add_extension(certificate, NID_key_usage, "critical,digitalSignature") &&
           add_extension(certificate, NID_ext_key_usage, "serverAuth") && add_extension(certificate, NID_subject_key_identifier, "hash");
}

static int add_serial(X509 *certificate)
{
    unsigned char bytes[16];
    BIGNUM *number = RAND_bytes(bytes, sizeof bytes) == 1 ? BN_bin2bn(bytes, sizeof bytes, NULL) : NULL;
    int added = number && BN_clear_bit(number, 8 * sizeof bytes - 1) && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate));
    BN_free(number);
    return added;
}

static int fill_in(X509 *certificate, EVP_PKEY *key, const char *name)
{
    X509_NAME *subject = X509_get_subject_name(certificate);
    const unsigned char *common = (const unsigned char *)(name && strlen(name) <= 64 ? name : "localhost"); /* ub-common-name */
    return X509_set_version(certificate, X509_VERSION_3) && add_serial(certificate) &&
           X509_gmtime_adj(X509_getm_notBefore(certificate), -CLOCK_SKEW_SECONDS) &&
           X509_gmtime_adj(X509_getm_notAfter(certificate), VALID_SECONDS) &&
           X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, common, -1, -1, 0) && X509_set_issuer_name(certificate, subject) &&
           X509_set_pubkey(certificate, key) && add_extensions(certificate, name) && X509_sign(certificate, key, EVP_sha256()) > 0;
}

static void describe(struct tls_identity *identity, const char *name)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    snprintf(identity->names, sizeof identity->names, "localhost,127.0.0.1,::1%s%s", name ? "," : "", name ? name : "");
    X509_digest(identity->certificate, EVP_sha256(), digest, &length);
    for (unsigned i = 0; i < length && 2 * i + 2 < sizeof identity->sha256; i++)
        snprintf(identity->sha256 + (size_t)2 * i, 3, "%02x", digest[i]);
}

struct tls_identity *tls_self_signed(const char *name, struct errbuf *err)
{
    if (name && !tls_is_address(name) && !is_host_name(name)) {
        errbuf_set(err, "\"%s\" is neither a host name nor an address", name);
        return NULL;
    }
    struct tls_identity *identity = calloc(1, sizeof *identity);
    if (identity && (identity->certificate = X509_new()) && (identity->key = EVP_EC_gen("P-256")) &&
        fill_in(identity->certificate, identity->key, name)) {
        describe(identity, name);
        return identity;
    }
    errbuf_set(err, "cannot make a certificate: %s", tls_reason());
    tls_identity_free(identity);
    return NULL;
}

const char *tls_identity_names(const struct tls_identity *identity)
{
    return identity->names;
}

const char *tls_identity_sha256(const struct tls_identity *identity)
{
    return identity->sha256;
}

char *tls_identity_pem(const struct tls_identity *identity)
{
    return tls_pem_text(identity->certificate);
}

void tls_identity_use(const struct tls_identity *identity, struct tls_host *host)
{
    X509_up_ref(identity->certificate);
    EVP_PKEY_up_ref(identity->key);
    host->certificate = identity->certificate;
    host->key = identity->key;
}

void tls_identity_free(struct tls_identity *identity)
{
    if (!identity)
        return;
    X509_free(identity->certificate);
    EVP_PKEY_free(identity->key);
    free(identity);
}
