/* PROXY headers: what is said of the whole was not denied of a part, does not depend on what follows, and is said of it when written again. */
#include <string.h>

#include "../../core/proxy.h"
#include "fuzz.h"

/* In memory of just that size, so that AddressSanitizer sees what is read beyond. */
static ssize_t parse(const uint8_t *bytes, size_t length, struct address *client)
{
    uint8_t *exact = malloc(length ? length : 1);
    memcpy(exact, bytes, length);
    ssize_t result = proxy_parse(exact, length, client);
    free(exact);
    return result;
}

static bool is_same(const struct address *a, const struct address *b)
{
    struct in6_addr x, y;
    if (!a->length || !b->length)
        return a->length == b->length;
    return address_key(&a->any, &x) && address_key(&b->any, &y) && memcmp(&x, &y, sizeof x) == 0 &&
           address_port(&a->any) == address_port(&b->any);
}

static void check_part(const uint8_t *data, size_t part, ssize_t whole, const struct address *client)
{
    struct address other;
    ssize_t result = parse(data, part, &other);
    must_be(result == whole || result == 0);
    must_be(whole <= 0 || (result > 0) == ((size_t)whole <= part));
    must_be(result <= 0 || is_same(client, &other));
}

static void check_written(const struct address *client, int version)
{
    char header[PROXY_HEADER_BYTES];
    struct address other;
    const struct sockaddr *name = client->length ? &client->any : NULL;
    size_t length = proxy_format(header, version, name, name, NULL);
    must_be(parse((const uint8_t *)header, length, &other) == (ssize_t)length);
    must_be(is_same(client, &other));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct address client;
    if (size > 600)
        return -1;
    ssize_t whole = parse(data, size, &client);
    must_be(whole >= -1 && whole <= (ssize_t)size);
    for (size_t part = 0; part < size; part++)
        check_part(data, part, whole, &client);
    if (whole > 0) {
        check_written(&client, 1);
        check_written(&client, 2);
    }
    return 0;
}
