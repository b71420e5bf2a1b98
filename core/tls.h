/* tls.h - what the files of TLS share, the only ones that include OpenSSL. */
#ifndef HARK_TLS_PRIVATE_H
#define HARK_TLS_PRIVATE_H

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "internal.h"

/* ---- tls_file.c: what stands in files, as a bundle has them; NULL or -1 with a sentence that names the file */

BIO *tls_file_read(struct bundle *, const char *path, struct errbuf *);
/* The certificate, and those after it. */
X509 *tls_file_chain(struct bundle *, const char *path, STACK_OF(X509) * *chain, struct errbuf *);
char *tls_pem_text(X509 *); /* from malloc; NULL: ENOMEM */
EVP_PKEY *tls_file_key(struct bundle *, const char *path, const char *pass_file, struct errbuf *);
/* Who signs: into the store, and their names onto the list. path: a file or a hashed directory. */
int tls_file_authorities(struct bundle *, const char *path, X509_STORE *, STACK_OF(X509_NAME) * names, struct errbuf *);
/* The same of revocation lists; outdated: one of them is. */
int tls_file_revocations(struct bundle *, const char *path, X509_STORE *, bool *outdated, struct errbuf *);
bool tls_file_hides_revocations(struct bundle *, const char *path); /* a directory of authorities that has some, too */
/* A good OCSP response about the certificate, in DER, from malloc. */
unsigned char *tls_file_ocsp(struct bundle *, const char *path, const X509 *, size_t *length, bool *outdated, struct errbuf *);
/* What OpenSSL said last, as the reason of a sentence; its queue is empty afterwards. */
const char *tls_reason(void);

/* ---- tls_name.c: names in lower case, "*.example.org" for one label more, and addresses */

struct tls_names {
    char **items;
    size_t count;
};
int tls_names_of(const X509 *, struct tls_names *); /* -1: ENOMEM */
void tls_names_release(struct tls_names *);
enum tls_match { TLS_NO_MATCH, TLS_WILDCARD_MATCH, TLS_EXACT_MATCH };
bool tls_is_address(const char *name); /* an IP address, and no host name */
enum tls_match tls_names_match(const struct tls_names *, const char *name);

/* ---- tls_ticket.c */

struct tls_ticket_key { /* as in files: 80 bytes */
    unsigned char name[16], cipher[32], mac[32];
};
int tls_tickets_load(struct tls_tickets *, struct bundle *, const char *path, struct errbuf *);
int tls_tickets_use(SSL_CTX *); /* -1: OpenSSL says why */

/* ---- tls_context.c */

/* One certificate, and what is asked of clients who name it. */
struct tls_host {
    SSL_CTX *ctx;
    X509 *certificate;
    STACK_OF(X509) * chain;
    EVP_PKEY *key;
    struct tls_names names;
    unsigned char *ocsp; /* the stapled response, or NULL */
    size_t ocsp_length;
    int verify_mode;                 /* of SSL_set_verify */
    unsigned char policy[32];        /* a digest of all that is asked of clients */
    unsigned char session_group[32]; /* tickets are good only among connections of one group */
};

struct tls_context {
    unsigned users;
    bool is_client, strict_sni;
    bool kernel_tls; /* the kernel offers to encrypt: then OpenSSL has the socket itself */
    BIO_METHOD *bio;
    struct tls_host *hosts;
    size_t count;
    struct tls_tickets *tickets, *own_tickets;
    unsigned char *alpn; /* in wire format, or NULL */
    size_t alpn_length;
    int keylog_fd; /* the caller's; 0: none */
};
/* tls_host.c: its parts of a context. */
int tls_host_load(struct tls_host *, const struct tls_certificate *, const struct tls_options *, struct errbuf *);
void tls_host_release(struct tls_host *);

/* tls_select.c: what the server answers to a ClientHello. */
int tls_select_check(const struct tls_context *, struct errbuf *); /* two certificates of a name must ask the same of clients */
void tls_select_use(struct tls_context *, SSL_CTX *);

/* tls_identity.c */
void tls_identity_use(const struct tls_identity *, struct tls_host *);

/* tls_info.c */
struct tls_info *tls_info_new(const SSL *, bool open, const char *error); /* NULL: ENOMEM */
void tls_info_export(const SSL *, tls_variable_cb *, void *arg);

/* tls.c */
BIO_METHOD *tls_bio_method(void); /* NULL: ENOMEM */

#endif
