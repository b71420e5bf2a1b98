/* ssl.h - what the command line says of TLS, made into a context. */
#ifndef HARK_SSL_H
#define HARK_SSL_H

#include "options.h"

/* What lasts from start to end; zero: there is no TLS. */
struct ssl {
    const struct settings *settings;
    struct tls_identity *identity; /* --ssl-self-signed */
    struct tls_tickets *tickets;   /* shared by all processes */
    struct tls_context *context;   /* the one in use */
    int keylog_fd;                 /* --ssl-keylog; 0: none */
};

int ssl_open(struct ssl *, const struct settings *, struct errbuf *); /* before the processes fork; --check makes no file */
void ssl_log_certificate(const struct ssl *);                         /* the `certificate` line */
int ssl_save_certificate(const struct ssl *, struct errbuf *);        /* --ssl-save-cert */
/* Reads everything anew, from where files says, into a context to put in place; NULL: one of them is bad. tell: with warnings. */
struct tls_context *ssl_renew(const struct ssl *, struct bundle *files, bool tell, struct errbuf *);
void ssl_use(struct ssl *, struct tls_context *);
void ssl_rotate(struct ssl *); /* a new ticket key, in all processes */
void ssl_close(struct ssl *);

#endif
