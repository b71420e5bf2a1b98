/* tls_name.c - the names that a certificate covers, and which of them a client means. */
#include <arpa/inet.h>
#include <ctype.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#include "tls.h"

static int add(struct tls_names *names, const char *text, size_t length)
{
    if (length == 0 || strnlen(text, length) < length) /* a NUL within would end it early for some, and not for others */
        return 0;
    char **items = realloc(names->items, (names->count + 1) * sizeof *items);
    if (!items)
        return -1;
    names->items = items;
    char *name = strndup(text, length);
    if (!name)
        return -1;
    for (char *c = name; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    items[names->count++] = name;
    return 0;
}

static int add_string(struct tls_names *names, const ASN1_STRING *text)
{
    return add(names, (const char *)ASN1_STRING_get0_data(text), (size_t)ASN1_STRING_length(text));
}

/* No client should ask for one by SNI (RFC 6066, 3), but ncat and socat do. */
static int add_address(struct tls_names *names, const ASN1_STRING *address)
{
    char text[INET6_ADDRSTRLEN];
    int length = ASN1_STRING_length(address);
    bool known =
        (length == 4 || length == 16) && inet_ntop(length == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(address), text, sizeof text);
    return known ? add(names, text, strlen(text)) : 0;
}

static int add_alternatives(struct tls_names *names, const GENERAL_NAMES *alternatives, int type)
{
    int result = 0;
    for (int i = 0; i < sk_GENERAL_NAME_num(alternatives) && result == 0; i++) {
        const GENERAL_NAME *one = sk_GENERAL_NAME_value(alternatives, i);
        if (one->type == type)
            result = type == GEN_DNS ? add_string(names, one->d.dNSName) : add_address(names, one->d.iPAddress);
    }
    return result;
}

/* Those of an older kind of certificate, which has no other. */
static int add_common_names(struct tls_names *names, const X509 *certificate)
{
    const X509_NAME *subject = X509_get_subject_name(certificate);
    for (int i = -1; (i = X509_NAME_get_index_by_NID(subject, NID_commonName, i)) >= 0;) {
        if (add_string(names, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, i))) != 0)
            return -1;
    }
    return 0;
}

int tls_names_of(const X509 *certificate, struct tls_names *names)
{
    *names = (struct tls_names){0};
    GENERAL_NAMES *alternatives = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    int result = alternatives ? add_alternatives(names, alternatives, GEN_DNS) : add_common_names(names, certificate);
    if (alternatives && result == 0)
        result = add_alternatives(names, alternatives, GEN_IPADD);
    GENERAL_NAMES_free(alternatives);
    return result;
}

void tls_names_release(struct tls_names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->items[i]);
    free(names->items);
    *names = (struct tls_names){0};
}

/* RFC 9525, 6.3: the wildcard stands for the whole first label. */
static bool is_covered(const char *pattern, const char *name)
{
    const char *rest = strchr(name, '.');
    return pattern[0] == '*' && pattern[1] == '.' && rest && rest != name && strcmp(pattern + 1, rest) == 0;
}

enum tls_match tls_names_match(const struct tls_names *names, const char *name)
{
    enum tls_match best = TLS_NO_MATCH;
    for (size_t i = 0; i < names->count && best != TLS_EXACT_MATCH; i++) {
        if (strcmp(names->items[i], name) == 0)
            best = TLS_EXACT_MATCH;
        else if (is_covered(names->items[i], name))
            best = TLS_WILDCARD_MATCH;
    }
    return best;
}

bool tls_is_address(const char *name)
{
    unsigned char address[16];
    return inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;
}
