/* proxy.c - PROXY headers: the parser and the writer. */
#include "proxy.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- version 1: a line of text ---- */

enum { LINE_BYTES = 107 }; /* the longest one, with its CRLF */

static const char line_start[] = {'P', 'R', 'O', 'X', 'Y', ' '};

/* The next word, up to one blank or the end of the text, or NULL if there is none. */
static char *next_word(char **text)
{
    char *word = *text, *end = word ? strchr(word, ' ') : NULL;
    if (end)
        *end++ = '\0';
    *text = end;
    return word && *word ? word : NULL;
}

static bool parse_port(const char *text, in_port_t *port)
{
    size_t digits = text ? strspn(text, "0123456789") : 0;
    if (digits == 0 || digits > 5 || text[digits] || (digits > 1 && text[0] == '0'))
        return false;
    unsigned long number = strtoul(text, NULL, 10);
    *port = htons((in_port_t)number);
    return number <= 65535;
}

static bool parse_words(char *text, int family, struct address *client)
{
    struct in6_addr address, local_address;
    in_port_t port, local_port;
    const char *host = next_word(&text), *local = next_word(&text);
    if (!host || !local || inet_pton(family, host, &address) != 1 || inet_pton(family, local, &local_address) != 1)
        return false;
    if (!parse_port(next_word(&text), &port) || !parse_port(next_word(&text), &local_port) || text)
        return false;
    *client = family == AF_INET ? (struct address){.length = sizeof client->in4, .in4 = {.sin_family = AF_INET, .sin_port = port}}
                                : (struct address){.length = sizeof client->in6, .in6 = {.sin6_family = AF_INET6, .sin6_port = port}};
    if (family == AF_INET)
        memcpy(&client->in4.sin_addr, &address, sizeof client->in4.sin_addr);
    else
        client->in6.sin6_addr = address;
    return true;
}

static bool parse_line(char *text, struct address *client)
{
    if (strncmp(text, "UNKNOWN", 7) == 0)
        return text[7] == '\0' || text[7] == ' '; /* whatever follows */
    if (strncmp(text, "TCP4 ", 5) == 0)
        return parse_words(text + 5, AF_INET, client);
    return strncmp(text, "TCP6 ", 5) == 0 && parse_words(text + 5, AF_INET6, client);
}

static ssize_t parse_version_1(const char *bytes, size_t length, struct address *client)
{
    char text[LINE_BYTES + 1];
    size_t most = length < LINE_BYTES ? length : LINE_BYTES;
    const char *newline = memchr(bytes, '\n', most);
    if (!newline)
        return length < LINE_BYTES ? 0 : -1;
    size_t line = (size_t)(newline + 1 - bytes), start = sizeof line_start;
    if (line < start + 2 || newline[-1] != '\r' || memchr(bytes, '\0', line))
        return -1;
    memcpy(text, bytes + start, line - start - 2);
    text[line - start - 2] = '\0';
    return parse_line(text, client) ? (ssize_t)line : -1;
}

/* ---- version 2: binary ---- */

enum {
    FIXED_BYTES = 16, /* signature, version and command, family and transport, length of the rest */
    IN4_BYTES = 12,
    IN6_BYTES = 36,
    UNIX_BYTES = 216, /* what the addresses take */
    TLV_BYTES = 3,    /* type and length */
    COMMAND_LOCAL = 0x20,
    COMMAND_PROXY = 0x21,
    FAMILY_UNSPECIFIED = 0,
    FAMILY_IN4 = 1,
    FAMILY_IN6 = 2,
    FAMILY_UNIX = 3,
    TRANSPORT_UNSPECIFIED = 0,
    TRANSPORT_STREAM = 1,
    TRANSPORT_DATAGRAM = 2,
    TYPE_ALPN = 0x01,
    TYPE_AUTHORITY = 0x02,
    TYPE_CRC32C = 0x03,
    TYPE_SSL = 0x20,
    TYPE_SSL_VERSION = 0x21,
    TYPE_SSL_CN = 0x22,
    TYPE_SSL_CIPHER = 0x23,
    SSL_SPOKEN = 1,
    SSL_CERTIFICATE = 2,        /* shown in this connection */
    SSL_CERTIFICATE_SESSION = 4 /* shown in this TLS session */
};

static const char signature[12] = {'\r', '\n', '\r', '\n', '\0', '\r', '\n', 'Q', 'U', 'I', 'T', '\n'};

/* Castagnoli's polynomial, bit by bit: a header has some hundred bytes at most. */
static uint32_t crc32c(uint32_t crc, const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    return crc;
}

/* Over the whole header, the checksum itself counting as zeros. */
static uint32_t checksum(const uint8_t *header, size_t length, size_t at)
{
    static const uint8_t zeros[4] = {0};
    uint32_t crc = crc32c(~0U, header, at);
    crc = crc32c(crc, zeros, sizeof zeros);
    return ~crc32c(crc, header + at + sizeof zeros, length - at - sizeof zeros);
}

static uint32_t number_at(const uint8_t *bytes, size_t size)
{
    uint32_t number = 0;
    for (size_t i = 0; i < size; i++)
        number = number << 8 | bytes[i];
    return number;
}

/* What follows the addresses: skipped, each by its length, which has to stay inside; a checksum has to be right. */
static bool check_tlvs(const uint8_t *header, size_t at, size_t length)
{
    while (at < length) {
        if (length - at < TLV_BYTES)
            return false;
        size_t size = number_at(header + at + 1, 2), value = at + TLV_BYTES;
        if (size > length - value)
            return false;
        if (header[at] == TYPE_CRC32C && (size != 4 || number_at(header + value, 4) != checksum(header, length, value)))
            return false;
        at = value + size;
    }
    return true;
}

static void take_address(int family, const uint8_t *at, struct address *client)
{
    if (family == FAMILY_IN4) {
        *client = (struct address){.length = sizeof client->in4, .in4 = {.sin_family = AF_INET}};
        memcpy(&client->in4.sin_addr, at, 4);
        memcpy(&client->in4.sin_port, at + 8, 2);
    } else {
        *client = (struct address){.length = sizeof client->in6, .in6 = {.sin6_family = AF_INET6}};
        memcpy(&client->in6.sin6_addr, at, 16);
        memcpy(&client->in6.sin6_port, at + 32, 2);
    }
}

static bool parse_proxy_command(const uint8_t *header, size_t length, struct address *client)
{
    static const uint8_t sizes[] = {[FAMILY_IN4] = IN4_BYTES, [FAMILY_IN6] = IN6_BYTES, [FAMILY_UNIX] = UNIX_BYTES};
    int family = header[13] >> 4, transport = header[13] & 0xf;
    if (family > FAMILY_UNIX || transport > TRANSPORT_DATAGRAM || length - FIXED_BYTES < sizes[family])
        return false;
    if ((family == FAMILY_IN4 || family == FAMILY_IN6) && transport != TRANSPORT_UNSPECIFIED)
        take_address(family, header + FIXED_BYTES, client); /* of a datagram, too: a proxy may speak QUIC to the client */
    if (family == FAMILY_UNSPECIFIED || transport == TRANSPORT_UNSPECIFIED)
        return true; /* the rest is to be ignored */
    return check_tlvs(header, FIXED_BYTES + sizes[family], length);
}

static ssize_t parse_version_2(const uint8_t *bytes, size_t length, struct address *client)
{
    if (length > 12 && bytes[12] != COMMAND_LOCAL && bytes[12] != COMMAND_PROXY)
        return -1;
    if (length < FIXED_BYTES)
        return 0;
    size_t whole = FIXED_BYTES + number_at(bytes + 14, 2);
    if (length < whole)
        return 0;
    if (bytes[12] == COMMAND_LOCAL) /* the proxy's own, such as a health check */
        return (ssize_t)whole;
    return parse_proxy_command(bytes, whole, client) ? (ssize_t)whole : -1;
}

/* Whether the bytes are that start, or as much of it as is there. */
static bool begins_with(const void *bytes, size_t length, const void *start, size_t size)
{
    return memcmp(bytes, start, length < size ? length : size) == 0;
}

ssize_t proxy_parse(const void *bytes, size_t length, struct address *client)
{
    client->length = 0;
    if (begins_with(bytes, length, signature, sizeof signature))
        return parse_version_2(bytes, length, client);
    if (begins_with(bytes, length, line_start, sizeof line_start))
        return parse_version_1(bytes, length, client);
    return -1;
}

/* ---- writing ---- */

static bool both_are_ip(const struct sockaddr *client, const struct sockaddr *local, struct in6_addr keys[2])
{
    return client && local && address_key(client, &keys[0]) && address_key(local, &keys[1]);
}

static bool both_are_in4(const struct in6_addr keys[2])
{
    return IN6_IS_ADDR_V4MAPPED(&keys[0]) && IN6_IS_ADDR_V4MAPPED(&keys[1]);
}

static size_t format_version_1(char *header, const struct sockaddr *client, const struct sockaddr *local)
{
    char hosts[2][INET6_ADDRSTRLEN];
    struct in6_addr keys[2];
    if (!both_are_ip(client, local, keys))
        return (size_t)snprintf(header, PROXY_HEADER_BYTES, "PROXY UNKNOWN\r\n");
    bool in4 = both_are_in4(keys);
    for (int i = 0; i < 2; i++)
        inet_ntop(in4 ? AF_INET : AF_INET6, in4 ? &keys[i].s6_addr[12] : keys[i].s6_addr, hosts[i], sizeof hosts[i]);
    return (size_t)snprintf(header, PROXY_HEADER_BYTES, "PROXY %s %s %s %u %u\r\n", in4 ? "TCP4" : "TCP6", hosts[0], hosts[1],
                            address_port(client), address_port(local));
}

/* A header that grows; what does not fit is left out whole. */
struct writer {
    uint8_t *bytes;
    size_t length;
};

static void put_number(struct writer *w, uint32_t number, size_t size)
{
    while (size-- > 0)
        w->bytes[w->length++] = (uint8_t)(number >> 8 * size);
}

static void put_bytes(struct writer *w, const void *bytes, size_t length)
{
    memcpy(w->bytes + w->length, bytes, length);
    w->length += length;
}

static void put_text(struct writer *w, uint8_t type, const char *text)
{
    enum { RESERVED = TLV_BYTES + 5 + TLV_BYTES + 4 }; /* what of TLS is no text, and the checksum */
    size_t length = text ? strlen(text) : 0;
    if (length == 0 || w->length + TLV_BYTES + length + RESERVED > PROXY_HEADER_BYTES)
        return;
    put_number(w, type, 1);
    put_number(w, (uint32_t)length, 2);
    put_bytes(w, text, length);
}

static void put_addresses(struct writer *w, const struct sockaddr *client, const struct sockaddr *local)
{
    struct in6_addr keys[2];
    if (!both_are_ip(client, local, keys)) {
        put_number(w, FAMILY_UNSPECIFIED << 4 | TRANSPORT_UNSPECIFIED, 1);
        put_number(w, 0, 2);
        return;
    }
    size_t skipped = both_are_in4(keys) ? 12 : 0;
    put_number(w, (skipped ? FAMILY_IN4 : FAMILY_IN6) << 4 | TRANSPORT_STREAM, 1);
    put_number(w, 0, 2); /* the length, once it is known */
    for (int i = 0; i < 2; i++)
        put_bytes(w, keys[i].s6_addr + skipped, 16 - skipped);
    put_number(w, address_port(client), 2);
    put_number(w, address_port(local), 2);
}

static void put_tls(struct writer *w, const struct proxy_tls *tls)
{
    put_text(w, TYPE_ALPN, tls->alpn);
    put_text(w, TYPE_AUTHORITY, tls->name);
    put_number(w, TYPE_SSL, 1);
    size_t at = w->length;
    put_number(w, 0, 2);
    put_number(w, SSL_SPOKEN | (tls->certificate ? SSL_CERTIFICATE_SESSION | (tls->resumed ? 0 : SSL_CERTIFICATE) : 0), 1);
    put_number(w, !tls->certificate, 4); /* 0: verified */
    put_text(w, TYPE_SSL_VERSION, tls->version);
    put_text(w, TYPE_SSL_CIPHER, tls->cipher);
    put_text(w, TYPE_SSL_CN, tls->client);
    struct writer length = {w->bytes, at};
    put_number(&length, (uint32_t)(w->length - at - 2), 2);
}

static void put_checksum(struct writer *w)
{
    put_number(w, TYPE_CRC32C, 1);
    put_number(w, 4, 2);
    size_t at = w->length;
    put_number(w, 0, 4);
    struct writer length = {w->bytes, FIXED_BYTES - 2}, sum = {w->bytes, at};
    put_number(&length, (uint32_t)(w->length - FIXED_BYTES), 2);
    put_number(&sum, checksum(w->bytes, w->length, at), 4);
}

size_t proxy_format(char header[PROXY_HEADER_BYTES], int version, const struct sockaddr *client, const struct sockaddr *local,
                    const struct proxy_tls *tls)
{
    if (version == 1)
        return format_version_1(header, client, local);
    struct writer w = {(uint8_t *)header, 0};
    put_bytes(&w, signature, sizeof signature);
    put_number(&w, client ? COMMAND_PROXY : COMMAND_LOCAL, 1);
    put_addresses(&w, client, local);
    if (tls && tls->version)
        put_tls(&w, tls);
    put_checksum(&w);
    return w.length;
}
