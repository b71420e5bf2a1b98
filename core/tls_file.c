/* tls_file.c - certificates, keys, lists of authorities and the like, from files. */
#include <errno.h>
#include <limits.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tls.h"

enum { MOST_PASSPHRASE_BYTES = 1024 };

const char *tls_reason(void)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = ERR_reason_error_string(code);
    ERR_clear_error();
    return reason ? reason : "out of memory";
}

BIO *tls_file_read(struct bundle *files, const char *path, struct errbuf *err)
{
    const struct bundle_file *file = bundle_file(files, path, err);
    if (file && file->kind == BUNDLE_DIRECTORY)
        errbuf_set(err, "\"%s\": %s", path, strerror(EISDIR));
    if (!file || file->kind == BUNDLE_DIRECTORY)
        return NULL;
    BIO *bio = BIO_new_mem_buf(file->bytes, (int)file->length);
    if (!bio)
        errbuf_set(err, "\"%s\": %s", path, strerror(ENOMEM));
    return bio;
}

/* ---- certificates ---- */

X509 *tls_file_chain(struct bundle *files, const char *path, STACK_OF(X509) * *chain, struct errbuf *err)
{
    BIO *bio = tls_file_read(files, path, err);
    X509 *certificate = bio ? PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL) : NULL, *next;
    *chain = NULL;
    if (certificate && (*chain = sk_X509_new_null())) {
        while ((next = PEM_read_bio_X509(bio, NULL, NULL, NULL)))
            sk_X509_push(*chain, next);
    }
    bool good = certificate && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE; /* the end of the file */
    if (bio && !certificate)
        errbuf_set(err, "\"%s\" holds no certificate in PEM (-----BEGIN CERTIFICATE-----)", path);
    else if (bio && !good)
        errbuf_set(err, "\"%s\": a certificate of the chain is damaged", path);
    ERR_clear_error();
    BIO_free(bio);
    if (good)
        return certificate;
    X509_free(certificate);
    sk_X509_pop_free(*chain, X509_free);
    *chain = NULL;
    return NULL;
}

char *tls_pem_text(X509 *certificate)
{
    char *bytes = NULL, *copy = NULL;
    BIO *bio = BIO_new(BIO_s_mem());
    if (bio && PEM_write_bio_X509(bio, certificate)) {
        long length = BIO_get_mem_data(bio, &bytes);
        copy = strndup(bytes, (size_t)length);
    }
    BIO_free(bio);
    return copy;
}

/* ---- keys ---- */

struct passphrase {
    char text[MOST_PASSPHRASE_BYTES];
    int length;
    bool asked;
};

static int give_passphrase(char *buffer, int size, int writing, void *arg)
{
    (void)writing;
    struct passphrase *p = arg;
    p->asked = true;
    if (p->length > size)
        return -1;
    memcpy(buffer, p->text, (size_t)p->length);
    return p->length > 0 ? p->length : -1;
}

static int read_passphrase(struct bundle *files, const char *path, struct passphrase *p, struct errbuf *err)
{
    BIO *bio = path ? tls_file_read(files, path, err) : NULL;
    *p = (struct passphrase){.length = 0};
    if (!path)
        return 0;
    if (!bio)
        return -1;
    int length = BIO_read(bio, p->text, sizeof p->text);
    bool fits = BIO_pending(bio) == 0;
    BIO_free(bio);
    p->length = length < 0 ? 0 : length;
    if (p->length > 0 && p->text[p->length - 1] == '\n')
        p->length--;
    if (!fits)
        return errbuf_set(err, "\"%s\": a passphrase has at most %d bytes", path, MOST_PASSPHRASE_BYTES);
    return p->length > 0 ? 0 : errbuf_set(err, "\"%s\" holds no passphrase", path);
}

static void explain_key(const char *path, const char *pass_file, const struct passphrase *p, struct errbuf *err)
{
    if (!p->asked)
        errbuf_set(err, "\"%s\" holds no private key in PEM (-----BEGIN PRIVATE KEY-----)", path);
    else if (!pass_file)
        errbuf_set(err, "\"%s\" is encrypted, and no file with a passphrase is given", path);
    else if (p->text[p->length - 1] == '\r')
        errbuf_set(err, "\"%s\": the passphrase in \"%s\" is wrong: it ends in a carriage return", path, pass_file);
    else
        errbuf_set(err, "\"%s\": the passphrase in \"%s\" is wrong", path, pass_file);
}

EVP_PKEY *tls_file_key(struct bundle *files, const char *path, const char *pass_file, struct errbuf *err)
{
    struct passphrase passphrase;
    BIO *bio = read_passphrase(files, pass_file, &passphrase, err) == 0 ? tls_file_read(files, path, err) : NULL;
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, give_passphrase, &passphrase) : NULL;
    if (bio && !key)
        explain_key(path, pass_file, &passphrase, err);
    ERR_clear_error();
    BIO_free(bio);
    OPENSSL_cleanse(&passphrase, sizeof passphrase);
    return key;
}

/* ---- whom to trust, and whom no more ---- */

static int read_authorities(BIO *bio, X509_STORE *store, STACK_OF(X509_NAME) * names)
{
    int count = 0;
    X509 *authority;
    while ((authority = PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL))) {
        X509_NAME *name = X509_NAME_dup(X509_get_subject_name(authority));
        bool kept = X509_STORE_add_cert(store, authority) && name && sk_X509_NAME_push(names, name);
        X509_free(authority);
        if (!kept)
            return -1;
        count++;
    }
    return count;
}

static int file_of_authorities(struct bundle *files, const char *path, X509_STORE *store, STACK_OF(X509_NAME) * names, struct errbuf *err)
{
    BIO *bio = tls_file_read(files, path, err);
    if (!bio)
        return -1;
    int count = read_authorities(bio, store, names);
    bool whole = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    BIO_free(bio);
    if (count == 0)
        return errbuf_set(err, "\"%s\" holds no certificate in PEM (-----BEGIN CERTIFICATE-----)", path);
    return count > 0 && whole ? 0 : errbuf_set(err, "\"%s\": one of its certificates is damaged", path);
}

/* What openssl-rehash(1) puts between the hash of the name and a number, since two may have the same: "9d66eef0.0", "9d66eef0.r0". */
static const char of_authorities[] = ".", of_revocations[] = ".r";

static bool is_hashed_name(const char *name, const char *kind)
{
    if (strspn(name, "0123456789abcdef") != 8 || strncmp(name + 8, kind, strlen(kind)) != 0)
        return false;
    const char *number = name + 8 + strlen(kind);
    return *number && strspn(number, "0123456789") == strlen(number);
}

/* The next one from here on, or NULL. */
static const char *hashed_name(const struct bundle_file *directory, const char *from, const char *kind)
{
    for (const char *name = from; name < directory->bytes + directory->length; name += strlen(name) + 1) {
        if (is_hashed_name(name, kind))
            return name;
    }
    return NULL;
}

static bool is_certificate(struct bundle *files, const char *file)
{
    struct errbuf unused;
    BIO *bio = tls_file_read(files, file, &unused);
    X509 *certificate = bio ? PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL) : NULL;
    bool is_one = certificate != NULL;
    X509_free(certificate);
    BIO_free(bio);
    ERR_clear_error();
    return is_one;
}

/* Only hashed names count, which whoever put certificates there may not know. */
static int explain_directory(struct bundle *files, const char *path, const struct bundle_file *directory, struct errbuf *err)
{
    char file[PATH_MAX];
    for (const char *name = directory->bytes; name < directory->bytes + directory->length; name += strlen(name) + 1) {
        snprintf(file, sizeof file, "%s/%s", path, name);
        if (is_certificate(files, file))
            return errbuf_set(err, "\"%s\" holds certificates, but none under its hashed name (openssl rehash \"%s\")", path, path);
    }
    return errbuf_set(err, "\"%s\" holds no certificates in PEM (openssl rehash names them as they have to be)", path);
}

/* All of it, now: who verifies a client may be somebody who cannot read it. */
static int directory_of_authorities(struct bundle *files, const char *path, const struct bundle_file *directory, X509_STORE *store,
                                    STACK_OF(X509_NAME) * names, struct errbuf *err)
{
    char file[PATH_MAX];
    const char *name = hashed_name(directory, directory->bytes, of_authorities);
    if (!name)
        return explain_directory(files, path, directory, err);
    for (; name; name = hashed_name(directory, name + strlen(name) + 1, of_authorities)) {
        snprintf(file, sizeof file, "%s/%s", path, name);
        if (file_of_authorities(files, file, store, names, err) != 0)
            return -1;
    }
    return 0;
}

int tls_file_authorities(struct bundle *files, const char *path, X509_STORE *store, STACK_OF(X509_NAME) * names, struct errbuf *err)
{
    const struct bundle_file *found = bundle_file(files, path, err);
    if (!found)
        return -1;
    if (found->kind == BUNDLE_DIRECTORY)
        return directory_of_authorities(files, path, found, store, names, err);
    return file_of_authorities(files, path, store, names, err);
}

static bool is_past(const ASN1_TIME *time)
{
    return time && X509_cmp_current_time(time) < 0;
}

static int file_of_revocations(struct bundle *files, const char *path, X509_STORE *store, bool *outdated, struct errbuf *err)
{
    int count = 0;
    BIO *bio = tls_file_read(files, path, err);
    X509_CRL *list;
    if (!bio)
        return -1;
    while ((list = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL))) {
        bool kept = X509_STORE_add_crl(store, list);
        *outdated |= is_past(X509_CRL_get0_nextUpdate(list));
        X509_CRL_free(list);
        if (!kept)
            break;
        count++;
    }
    bool whole = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    BIO_free(bio);
    if (count == 0)
        return errbuf_set(err, "\"%s\" holds no revocation list in PEM (-----BEGIN X509 CRL-----)", path);
    return whole ? 0 : errbuf_set(err, "\"%s\": one of its revocation lists is damaged", path);
}

static int directory_of_revocations(struct bundle *files, const char *path, const struct bundle_file *directory, X509_STORE *store,
                                    bool *outdated, struct errbuf *err)
{
    char file[PATH_MAX];
    const char *name = hashed_name(directory, directory->bytes, of_revocations);
    if (!name)
        return errbuf_set(err, "\"%s\" holds no revocation list under its hashed name (openssl rehash \"%s\")", path, path);
    for (; name; name = hashed_name(directory, name + strlen(name) + 1, of_revocations)) {
        snprintf(file, sizeof file, "%s/%s", path, name);
        if (file_of_revocations(files, file, store, outdated, err) != 0)
            return -1;
    }
    return 0;
}

int tls_file_revocations(struct bundle *files, const char *path, X509_STORE *store, bool *outdated, struct errbuf *err)
{
    const struct bundle_file *found = bundle_file(files, path, err);
    if (!found)
        return -1;
    X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    if (found->kind == BUNDLE_DIRECTORY)
        return directory_of_revocations(files, path, found, store, outdated, err);
    return file_of_revocations(files, path, store, outdated, err);
}

bool tls_file_hides_revocations(struct bundle *files, const char *path)
{
    struct errbuf unused;
    const struct bundle_file *found = bundle_file(files, path, &unused);
    return found && found->kind == BUNDLE_DIRECTORY && hashed_name(found, found->bytes, of_revocations);
}

/* ---- stapled responses (RFC 6066, 8) ---- */

/* What it says about the certificate, or NULL. Serial numbers are of one authority, and random: it is enough to compare them. */
static OCSP_SINGLERESP *find_answer(OCSP_BASICRESP *answers, const X509 *certificate)
{
    for (int i = 0; answers && i < OCSP_resp_count(answers); i++) {
        OCSP_SINGLERESP *one = OCSP_resp_get0(answers, i);
        ASN1_INTEGER *serial = NULL;
        OCSP_id_get0_info(NULL, NULL, NULL, &serial, (OCSP_CERTID *)(uintptr_t)OCSP_SINGLERESP_get0_id(one));
        if (serial && ASN1_INTEGER_cmp(serial, X509_get0_serialNumber(certificate)) == 0)
            return one;
    }
    return NULL;
}

static int check_answer(OCSP_RESPONSE *response, const X509 *certificate, const char *path, bool *outdated, struct errbuf *err)
{
    if (!response || OCSP_response_status(response) != OCSP_RESPONSE_STATUS_SUCCESSFUL)
        return errbuf_set(err, "\"%s\" is no OCSP response in DER that says anything (openssl ocsp -respout)", path);
    OCSP_BASICRESP *answers = OCSP_response_get1_basic(response);
    OCSP_SINGLERESP *answer = find_answer(answers, certificate);
    ASN1_GENERALIZEDTIME *next = NULL;
    if (answer)
        OCSP_single_get0_status(answer, NULL, NULL, NULL, &next);
    *outdated = is_past(next);
    OCSP_BASICRESP_free(answers);
    return answer ? 0 : errbuf_set(err, "\"%s\" is an OCSP response about another certificate", path);
}

unsigned char *tls_file_ocsp(struct bundle *files, const char *path, const X509 *certificate, size_t *length, bool *outdated,
                             struct errbuf *err)
{
    BIO *bio = tls_file_read(files, path, err);
    if (!bio)
        return NULL;
    OCSP_RESPONSE *response = d2i_OCSP_RESPONSE_bio(bio, NULL);
    unsigned char *der = NULL;
    if (check_answer(response, certificate, path, outdated, err) == 0) {
        int bytes = i2d_OCSP_RESPONSE(response, NULL);
        if (bytes <= 0 || !(der = malloc((size_t)bytes))) {
            errbuf_set(err, "\"%s\": %s", path, strerror(ENOMEM));
        } else {
            unsigned char *end = der;
            i2d_OCSP_RESPONSE(response, &end);
            *length = (size_t)bytes;
        }
    }
    OCSP_RESPONSE_free(response);
    ERR_clear_error();
    BIO_free(bio);
    return der;
}
