/* tls_ticket.c - the keys of session tickets (RFC 5077), in memory that all processes share: what one has issued, all can open.
 *
 * The newest of the random keys encrypts. Of those from a file, which is spread over several hosts one after the other, the last but one
 * does: the last is known everywhere before it is used. */
#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/rand.h>
#include <string.h>
#include <sys/mman.h>

#include "tls.h"

enum { MOST_KEYS = 16, RANDOM_KEYS = 4 }; /* random ones: so many rotations later a ticket is void at the latest */

struct tls_tickets {
    unsigned current, count; /* which key encrypts; how many there are */
    struct tls_ticket_key keys[MOST_KEYS];
};

struct tls_tickets *tls_tickets_new(struct errbuf *err)
{
    struct tls_tickets *tickets = mmap(NULL, sizeof *tickets, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (tickets == MAP_FAILED) {
        errbuf_set(err, "cannot make ticket keys: %s", strerror(errno));
        return NULL;
    }
    tickets->count = RANDOM_KEYS;
    if (RAND_priv_bytes((unsigned char *)tickets->keys, RANDOM_KEYS * sizeof *tickets->keys) == 1)
        return tickets;
    errbuf_set(err, "cannot make ticket keys: %s", tls_reason());
    tls_tickets_free(tickets);
    return NULL;
}

void tls_tickets_free(struct tls_tickets *tickets)
{
    if (!tickets)
        return;
    OPENSSL_cleanse(tickets, sizeof *tickets);
    munmap(tickets, sizeof *tickets);
}

/* Processes that look for the oldest key just now find a wrong one, and make a full handshake. */
int tls_tickets_rotate(struct tls_tickets *tickets)
{
    struct tls_ticket_key fresh;
    unsigned next = (tickets->current + 1) % RANDOM_KEYS;
    if (RAND_priv_bytes((unsigned char *)&fresh, sizeof fresh) != 1)
        return -1;
    tickets->keys[next] = fresh;
    __atomic_store_n(&tickets->current, next, __ATOMIC_RELEASE);
    OPENSSL_cleanse(&fresh, sizeof fresh);
    return 0;
}

/* ---- from a file ---- */

static int decode_line(const char *line, struct tls_ticket_key *key)
{
    enum { TEXT_BYTES = 108, PADDING = 1 }; /* 80 bytes in base64: 27 groups of four, the last for two bytes */
    unsigned char bytes[TEXT_BYTES / 4 * 3];
    if (strlen(line) != TEXT_BYTES || line[TEXT_BYTES - 1] != '=' || line[TEXT_BYTES - 2] == '=')
        return -1;
    if (EVP_DecodeBlock(bytes, (const unsigned char *)line, TEXT_BYTES) != sizeof *key + PADDING)
        return -1;
    memcpy(key, bytes, sizeof *key);
    OPENSSL_cleanse(bytes, sizeof bytes);
    return 0;
}

static int read_lines(struct tls_tickets *tickets, BIO *bio, const char *path, struct errbuf *err)
{
    char line[256];
    int number = 0;
    unsigned count = 0;
    while (BIO_gets(bio, line, sizeof line) > 0) {
        number++;
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0] == '\0')
            continue;
        if (count == MOST_KEYS)
            return errbuf_set(err, "\"%s\": more than %d ticket keys", path, MOST_KEYS);
        if (decode_line(line, &tickets->keys[count++]) != 0)
            return errbuf_set(err, "\"%s\", line %d: not a ticket key (80 bytes in base64: openssl rand -base64 80 | tr -d '\\n')", path,
                              number);
    }
    OPENSSL_cleanse(line, sizeof line);
    if (count == 0)
        return errbuf_set(err, "\"%s\" holds no ticket key", path);
    tickets->count = count;
    tickets->current = count > 1 ? count - 2 : 0;
    return 0;
}

int tls_tickets_load(struct tls_tickets *tickets, struct bundle *files, const char *path, struct errbuf *err)
{
    BIO *bio = tls_file_read(files, path, err);
    if (!bio)
        return -1;
    int result = read_lines(tickets, bio, path, err);
    BIO_free(bio);
    return result;
}

/* ---- at work ---- */

static int set_up(const struct tls_ticket_key *key, const unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int encrypt)
{
    static char digest[] = "SHA256";
    OSSL_PARAM parameters[] = {OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)(uintptr_t)key->mac, sizeof key->mac),
                               OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0), OSSL_PARAM_construct_end()};
    return EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->cipher, iv, encrypt) == 1 &&
           EVP_MAC_CTX_set_params(mac, parameters) == 1;
}

static int encrypt(const struct tls_tickets *tickets, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac)
{
    const struct tls_ticket_key *key = &tickets->keys[__atomic_load_n(&tickets->current, __ATOMIC_ACQUIRE)];
    if (RAND_bytes(iv, EVP_MAX_IV_LENGTH) != 1 || !set_up(key, iv, cipher, mac, 1))
        return -1;
    memcpy(name, key->name, sizeof key->name);
    return 1;
}

/* 0: a key that is not known any more, so a full handshake; 2: a new ticket is due (RFC 5077, 3.1). One for an old key, and each of
 * TLS 1.3, which clients use once only (RFC 8446, C.4). */
static int decrypt(const struct tls_tickets *tickets, const unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                   EVP_MAC_CTX *mac, bool once_only)
{
    unsigned current = __atomic_load_n(&tickets->current, __ATOMIC_ACQUIRE);
    for (unsigned i = 0; i < tickets->count; i++) {
        const struct tls_ticket_key *key = &tickets->keys[i];
        if (memcmp(name, key->name, sizeof key->name) == 0)
            return !set_up(key, iv, cipher, mac, 0) ? -1 : i == current && !once_only ? 1 : 2;
    }
    return 0;
}

static int on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int encrypting)
{
    const struct tls_context *context = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    if (encrypting)
        return encrypt(context->tickets, name, iv, cipher, mac);
    return decrypt(context->tickets, name, iv, cipher, mac, SSL_version(ssl) == TLS1_3_VERSION);
}

int tls_tickets_use(SSL_CTX *ctx)
{
    SSL_CTX_set_num_tickets(ctx, 1); /* a second one would be of use to few clients, and cost a write each time */
    return SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, on_ticket) == 1 ? 0 : -1;
}
