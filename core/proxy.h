/* proxy.h - PROXY headers, versions 1 and 2 (haproxy's proxy-protocol.txt): what a proxy says of the client, before the client's first
 * byte. Functions over bytes; nothing here reads or writes a descriptor. */
#ifndef HARK_PROXY_H
#define HARK_PROXY_H

#include "resolve.h"

/* The header at the start of the bytes: its length, and *client filled in. 0: it is not all there, and every byte so far belongs to it.
 * -1: it is none, or is wrong. client.length 0: the header names none (LOCAL, UNKNOWN, a unix socket): the peer is the client. */
ssize_t proxy_parse(const void *bytes, size_t length, struct address *client);

/* What version 2 tells of the client's TLS; each may be NULL. */
struct proxy_tls {
    const char *version;       /* NULL: it spoke none */
    const char *cipher;        /* OpenSSL's name */
    const char *alpn, *name;   /* name: the SNI */
    const char *client;        /* common name in the client's certificate */
    bool certificate, resumed; /* it has shown a certificate, which was verified; in this very connection, unless resumed */
};

/* Writes a header of version 1 or 2 and returns its length. A client of NULL is ourselves (LOCAL); addresses that are no IP addresses are
 * said to be unknown. */
size_t proxy_format(char header[PROXY_HEADER_BYTES], int version, const struct sockaddr *client, const struct sockaddr *local,
                    const struct proxy_tls *);

#endif
