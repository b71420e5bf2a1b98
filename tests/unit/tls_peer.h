/* tls_peer.h - the other end of TLS, played by OpenSSL itself over memory, and a transport in memory between the two, which moves as few
 * bytes as the test says. Nothing of it goes through core/tls*.c, so that a mistake there is not made twice. */
#ifndef TEST_TLS_PEER_H
#define TEST_TLS_PEER_H

#include <openssl/ssl.h>

#include "harness.h"

/* ---- certificates, in files of a directory that lasts as long as the program ---- */

enum key_kind { KEY_EC, KEY_RSA };
struct certificate_wish {
    const char *file;       /* NAME.pem gets the certificate, NAME.key the key */
    const char *subject;    /* its common name */
    const char *names;      /* as in openssl.cnf: "DNS:a.test,IP:127.0.0.1", or NULL */
    const char *issuer;     /* the NAME of one made before; NULL: it signs itself, as an authority */
    int from_days, to_days; /* from today on; both 0: valid */
    enum key_kind kind;
};
void make_certificate(const struct certificate_wish *);
const char *in_directory(const char *name); /* a path that lasts as well */
void write_file(const char *name, const char *text);
int make_directory(void **); /* for cmocka: once for all tests; makes ca.pem, and server.pem for a.test, localhost and 127.0.0.1 */
int remove_directory(void **);

/* ---- a transport in memory ---- */

struct wire_transport {
    struct transport base;
    struct buffer in, out;          /* on the way to and from the stream */
    size_t read_piece, write_piece; /* most bytes a call; 0: no limit */
    size_t room;                    /* how many bytes `out` holds before writes block */
    bool balks, balked[2];          /* every other read and write blocks first */
    bool eof;                       /* after `in` */
    int read_error;                 /* after `in`, as an errno */
    int watched, reads, writes;
    bool shut, freed, reset;
};
void wire_init(struct wire_transport *);

/* ---- the other end ---- */

struct tls_peer {
    SSL *ssl;
    BIO *in, *out;
    struct wire_transport *wire;
    size_t piece; /* bytes that go over at a time; 0: all there is */
    bool stalled; /* takes nothing from the wire */
    char got[KIB(4)];
    size_t got_length;
    bool ended; /* close_notify has come */
};
/* A client trusts anybody unless its context says otherwise. Takes its own reference to the context. */
void peer_init(struct tls_peer *, struct wire_transport *, SSL_CTX *, bool is_client);
void peer_release(struct tls_peer *);
void peer_send(struct tls_peer *, const void *, size_t); /* into its own buffer */
void peer_say(struct tls_peer *, const char *);
/* One step: bytes go over, the stream is told, the peer goes on. False when nothing moved any more. */
bool peer_turn(struct tls_peer *);
void peer_settle(struct tls_peer *); /* until nothing moves */

/* ---- streams over TLS ---- */

/* Its on_open writes "open" into the diary. name: whom a client wants; NULL for servers. */
struct party *host_tls(struct wire_transport *, struct tls_context *, const char *name);
struct tls_context *new_server_context(const char *ca); /* of server.pem */
SSL_CTX *client_ctx(int version);                       /* TLS1_2_VERSION, TLS1_3_VERSION; 0: either */
SSL_CTX *server_ctx(const char *file);

/* The usual pair: a server stream and a client peer, connected; ends with end_meeting. */
struct meeting {
    struct wire_transport wire;
    struct tls_peer peer;
    struct tls_context *context;
    struct party *party;
};
void meet_client(struct meeting *, int version);    /* before the handshake */
void open_to_client(struct meeting *, int version); /* after it */
void end_meeting(struct meeting *);

#endif
