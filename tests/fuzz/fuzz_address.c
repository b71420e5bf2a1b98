/* Addresses: what targets are taken for, and how any bytes that a kernel may call an address are shown. */
#include <string.h>

#include "../../core/resolve.h"
#include "fuzz.h"

/* What an address looks like as text is a target again, and the same one. */
static void check_round_trip(const struct target *t)
{
    char text[ADDRESS_TEXT];
    struct errbuf err;
    address_text(&t->address.any, t->address.length, text, sizeof text);
    bool is_escaped = t->address.any.sa_family == AF_UNIX; /* and may be cut */
    struct target *again = is_escaped ? NULL : target_parse(text, &err);
    must_be(is_escaped || again);
    if (again) {
        bool mapped = t->address.any.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&t->address.in6.sin6_addr);
        must_be(mapped ||
                (again->address.length == t->address.length && memcmp(&again->address.any, &t->address.any, t->address.length) == 0));
        target_free(again);
    }
}

static void check_target(const char *text)
{
    struct errbuf err = {.text = ""};
    struct target *t = target_parse(text, &err);
    if (!t) {
        must_be(*err.text && memchr(err.text, '\0', sizeof err.text));
        return;
    }
    must_be(strcmp(target_text(t), text) == 0);
    must_be(t->address.length <= sizeof(struct sockaddr_un));
    if (t->address.length)
        check_round_trip(t);
    else
        must_be(*t->host && t->port);
    target_free(t);
}

static void check_shown(const uint8_t *data, size_t size)
{
    char text[ADDRESS_TEXT];
    struct sockaddr *exact = malloc(size ? size : 1); /* so that AddressSanitizer sees what is read beyond */
    memcpy(exact, data, size);
    address_text(exact, (socklen_t)size, text, sizeof text);
    must_be(memchr(text, '\0', sizeof text) && *text);
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 300)
        return -1;
    char *text = malloc(size + 1);
    memcpy(text, data, size);
    text[size] = '\0';
    check_target(text);
    free(text);
    if (size <= sizeof(struct sockaddr_un))
        check_shown(data, size);
    return 0;
}
