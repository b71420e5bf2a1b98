/* hark_tls.h - the part of hark.h that is about TLS, 1.2 and 1.3.
 *
 * An end is announced by close_notify each way, and one without is CLOSE_TLS; no renegotiation, compression or early data. */
#ifndef HARK_TLS_H
#define HARK_TLS_H

#include "hark.h"

enum tls_verify { TLS_VERIFY_DEFAULT, TLS_VERIFY_NONE, TLS_VERIFY_OPTIONAL, TLS_VERIFY_REQUIRE }; /* default: require, if there is a ca */
struct tls_certificate {
    const char *cert_file, *key_file; /* PEM: the certificate and its chain; key_file NULL: the key is there, too */
    const char *ocsp_file;            /* DER: stapled */
    const char *ca, *crl;             /* of client certificates: authorities, revocation lists; each a PEM file or a hashed directory */
    enum tls_verify verify;
    int verify_depth; /* 0: OpenSSL's default */
};
struct tls_options {
    const struct tls_certificate *certificates; /* chosen by SNI (RFC 6066), wildcards included; the first is the default */
    unsigned count;
    const struct tls_identity *identity; /* in place of the first one's files (count is 1 at least); outlives the making */
    const char *key_pass_file, *alpn, *ciphers, *ciphersuites, *groups, *ticket_keys_file; /* each may be NULL */
    int keylog_fd;                                /* secrets are written there as long as the context is used; 0: nowhere */
    struct bundle *files;                         /* where all of them are read from; NULL: the disk */
    int min_version, max_version;                 /* 12 or 13; 0: 12, the newest */
    bool strict_sni;                              /* refuses names that no certificate covers */
    struct tls_tickets *tickets;                  /* shared by contexts and processes; NULL: this context's own */
    void (*warning)(void *arg, const char *text); /* an expired certificate, a key that everyone can read; may be NULL */
    void *arg;
};
/* Everything is read and checked now. One context serves any number of streams, each of which keeps it to its end. */
struct tls_context *tls_server_new(const struct tls_options *, struct errbuf *);
struct tls_context *tls_client_new(const char *ca, bool insecure, struct errbuf *); /* ca NULL: the system's */
/* The system's authorities are read when a certificate has to be verified; or now, for a process about to lose sight of them. */
int tls_client_read_ahead(struct tls_context *, struct errbuf *);
void tls_context_free(struct tls_context *);

struct tls_tickets *tls_tickets_new(struct errbuf *); /* random, in memory that processes forked later share */
int tls_tickets_rotate(struct tls_tickets *);         /* a new one encrypts; the three before still decrypt */
void tls_tickets_free(struct tls_tickets *);          /* when no context uses them any more */

struct tls_identity *tls_self_signed(const char *name, struct errbuf *); /* for localhost, 127.0.0.1, ::1 and name, if not NULL */
const char *tls_identity_names(const struct tls_identity *);
const char *tls_identity_sha256(const struct tls_identity *);
char *tls_identity_pem(const struct tls_identity *); /* the certificate without the key, from malloc; NULL: ENOMEM */
void tls_identity_free(struct tls_identity *);

/* From now on the stream speaks TLS, as the context's kind says. A client names whom it wants to talk to (copied), and verifies that; an
 * insecure one need not (else EINVAL); a server's name is NULL. EBUSY: something is buffered, pending or relayed. EPIPE: one side has
 * ended. on_open after the handshake, for which the reads and writes wait that are asked for before. If that fails, or takes longer than
 * these seconds, only on_close runs, with CLOSE_TLS or CLOSE_TIMEOUT. */
int iostream_start_tls(struct iostream *, struct tls_context *, const char *name, double seconds, iostream_cb *on_open, void *arg);
struct tls_info {
    const char *version, *cipher; /* NULL: it came to no agreement */
    char *sni, *alpn, *client;    /* client: the subject of its verified certificate; each may be NULL */
    char *client_name;            /* the common name in that, or NULL */
    const char *error;            /* what went wrong, or NULL */
    bool resumed;
    bool kernel_sends, kernel_receives; /* the kernel encrypts, decrypts */
};
const struct tls_info *iostream_tls(struct iostream *); /* NULL: plain, or the handshake is under way */

#endif
