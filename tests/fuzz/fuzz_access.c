/* Rules for addresses: a set of the rules that the lines are holds an address if one of the sets of a single rule does. */
#include <string.h>

#include "../../core/internal.h"
#include "fuzz.h"

enum { MAX_RULES = 16 };

static struct networks *set_of(const char *const *rules)
{
    struct errbuf err = {.text = ""};
    struct networks *n = networks_new(rules, NULL, &err);
    must_be(n || (*err.text && memchr(err.text, '\0', sizeof err.text)));
    return n;
}

static void check(struct networks *all, struct networks *const *each, int count, const struct in6_addr *address)
{
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_addr = *address};
    struct sockaddr_in in4 = {.sin_family = AF_INET};
    bool in = false;
    for (int i = 0; i < count; i++)
        in |= networks_contain(each[i], (struct sockaddr *)&in6);
    must_be(networks_contain(all, (struct sockaddr *)&in6) == in);
    memcpy(&in4.sin_addr, &address->s6_addr[12], 4);
    if (IN6_IS_ADDR_V4MAPPED(address))
        must_be(networks_contain(all, (struct sockaddr *)&in4) == in);
}

/* 16 bytes of an address, as IPv4 too, and lines. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *rules[MAX_RULES + 1] = {NULL}, *one[2] = {NULL};
    struct networks *each[MAX_RULES];
    struct in6_addr address;
    int count = 0;
    if (size < sizeof address || size > 500)
        return -1;
    memcpy(&address, data, sizeof address);
    char *text = strndup((const char *)data + sizeof address, size - sizeof address), *rest = text;
    for (char *line; count < MAX_RULES && (line = strsep(&rest, "\n"));) {
        one[0] = line;
        if (*line != '@' && (each[count] = set_of(one)))
            rules[count++] = line;
    }
    struct networks *all = set_of(rules);
    must_be(all && networks_rules(all) == (size_t)count);
    check(all, each, count, &address);
    memcpy(&address, (const uint8_t[12]){[10] = 0xff, [11] = 0xff}, 12);
    check(all, each, count, &address);
    while (count > 0)
        networks_free(each[--count]);
    networks_free(all);
    free(text);
    return 0;
}
