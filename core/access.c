/* access.c - sets of IP addresses, as rules name them: whom to let in, whom not, and who speaks for others.
 *
 * Of two networks one holds the other, or they share nothing. So without those that another one holds they are a sorted list, and a
 * binary search finds the only one that an address can be in. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

struct network {
    struct in6_addr first, last; /* IPv4 as IPv4-mapped */
};

struct network_list {
    struct network *items;
    size_t count, capacity;
};

struct networks {
    struct network_list in4, in6; /* apart, since ::/0 is every IPv6 address and no IPv4 address */
    size_t rules;
};

#define WRITE_THIS "such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32"

/* ---- one rule ---- */

/* -1: it is no number, or too large. */
static int parse_prefix(const char *text, int most)
{
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 3 || text[digits])
        return -1;
    int prefix = atoi(text);
    return prefix > most ? -1 : prefix;
}

/* Returns how many bits its kind of address has, or 0 if it is none. */
static int parse_address(const char *text, size_t length, struct in6_addr *address)
{
    char host[INET6_ADDRSTRLEN];
    if (length >= sizeof host)
        return 0;
    memcpy(host, text, length);
    host[length] = '\0';
    *address = (struct in6_addr){.s6_addr = {[10] = 0xff, [11] = 0xff}};
    if (inet_pton(AF_INET, host, &address->s6_addr[12]) == 1)
        return 32;
    return inet_pton(AF_INET6, host, address) == 1 ? 128 : 0;
}

/* The addresses that have the first `prefix` bits in common with address. */
static struct network network_of(const struct in6_addr *address, int prefix)
{
    struct network network = {.first = *address, .last = *address};
    for (int i = 0; i < 16; i++, prefix -= 8) {
        uint8_t free_bits = (uint8_t)(prefix >= 8 ? 0 : prefix <= 0 ? 0xff : 0xff >> prefix);
        network.first.s6_addr[i] &= (uint8_t)~free_bits;
        network.last.s6_addr[i] |= free_bits;
    }
    return network;
}

static int refuse_host_bits(const char *rule, const struct network *network, int bits, int prefix, struct errbuf *err)
{
    char text[INET6_ADDRSTRLEN];
    inet_ntop(bits == 32 ? AF_INET : AF_INET6, bits == 32 ? &network->first.s6_addr[12] : network->first.s6_addr, text, sizeof text);
    return errbuf_set(err, "\"%s\" names one address and a whole network; write %s/%d for the network", rule, text, prefix);
}

static int parse_rule(const char *rule, struct network *network, struct errbuf *err)
{
    const char *slash = strchrnul(rule, '/');
    struct in6_addr address;
    int bits = parse_address(rule, (size_t)(slash - rule), &address);
    if (!bits)
        return errbuf_set(err, "\"%s\" is not an IP address or a network, " WRITE_THIS, rule);
    if (*slash && slash[1] == '0' && slash[2] >= '0' && slash[2] <= '9')
        return errbuf_set(err, "\"%s\": after the slash stands a number without leading zeros, which elsewhere mean octal", rule);
    int prefix = *slash ? parse_prefix(slash + 1, bits) : bits;
    if (prefix < 0)
        return errbuf_set(err, "\"%s\": after the slash stands a number from 0 to %d", rule, bits);
    *network = network_of(&address, prefix + 128 - bits);
    if (memcmp(&network->first, &address, sizeof address) != 0)
        return refuse_host_bits(rule, network, bits, prefix, err);
    return 0;
}

static struct network_list *list_for(struct networks *n, const struct in6_addr *address)
{
    return IN6_IS_ADDR_V4MAPPED(address) ? &n->in4 : &n->in6;
}

static int add_rule(struct networks *n, const char *rule, struct errbuf *err)
{
    struct network network = {0};
    if (parse_rule(rule, &network, err) != 0)
        return -1;
    struct network_list *list = list_for(n, &network.first);
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 8;
        struct network *items = reallocarray(list->items, capacity, sizeof *items);
        if (!items)
            return errbuf_set(err, "%s", strerror(errno));
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count++] = network;
    n->rules++;
    return 0;
}

/* ---- a file of them ---- */

/* Without a comment, and blanks around it. */
static char *trim(char *line)
{
    static const char blanks[] = " \t\r\n\f\v";
    line[strcspn(line, "#")] = '\0';
    line += strspn(line, blanks);
    size_t length = strlen(line);
    while (length > 0 && strchr(blanks, line[length - 1]))
        length--;
    line[length] = '\0';
    return line;
}

static int add_lines(struct networks *n, FILE *file, const char *path, struct errbuf *err)
{
    struct errbuf why;
    char *line = NULL;
    size_t size = 0;
    ssize_t length;
    int result = 0;
    for (unsigned number = 1; result == 0 && (length = getline(&line, &size, file)) >= 0; number++) {
        if (memchr(line, '\0', (size_t)length)) {
            result = errbuf_set(err, "%s:%u: there is a zero byte: this is not a text file", path, number);
            continue;
        }
        const char *rule = trim(line);
        if (*rule && add_rule(n, rule, &why) != 0)
            result = errbuf_set(err, "%s:%u: %s", path, number, why.text);
    }
    if (result == 0 && ferror(file))
        result = errbuf_set(err, "cannot read \"%s\": %s", path, strerror(errno));
    free(line);
    return result;
}

/* Only a file can be read a second time, on SIGHUP. */
static int add_file(struct networks *n, const char *path, struct bundle *bundle, struct errbuf *err)
{
    struct errbuf why;
    const struct bundle_file *found = bundle_file(bundle, path, &why);
    if (!found)
        return errbuf_set(err, "cannot read %s", why.text);
    if (found->kind != BUNDLE_REGULAR)
        return errbuf_set(err, "cannot read \"%s\": it is not a regular file", path);
    if (found->length == 0)
        return 0;
    FILE *file = fmemopen(found->bytes, found->length, "r");
    if (!file)
        return errbuf_set(err, "cannot read \"%s\": %s", path, strerror(errno));
    int result = add_lines(n, file, path, err);
    fclose(file);
    return result;
}

/* ---- the set ---- */

/* A network comes before those it holds. */
static int compare(const void *a, const void *b)
{
    const struct network *x = a, *y = b;
    int order = memcmp(&x->first, &y->first, sizeof x->first);
    return order ? order : memcmp(&y->last, &x->last, sizeof x->last);
}

static void sort(struct network_list *list)
{
    size_t kept = 0;
    if (list->count > 0)
        qsort(list->items, list->count, sizeof list->items[0], compare);
    for (size_t i = 0; i < list->count; i++) {
        const struct network *last = kept ? &list->items[kept - 1] : NULL;
        if (!last || memcmp(&list->items[i].first, &last->last, sizeof last->last) > 0)
            list->items[kept++] = list->items[i];
    }
    list->count = kept;
}

static int add_rules(struct networks *n, const char *const *rules, struct bundle *bundle, struct errbuf *err)
{
    int result = 0;
    for (; result == 0 && *rules; rules++)
        result = **rules == '@' ? add_file(n, *rules + 1, bundle, err) : add_rule(n, *rules, err);
    return result;
}

struct networks *networks_new(const char *const *rules, struct bundle *given, struct errbuf *err)
{
    struct networks *n = calloc(1, sizeof *n);
    struct bundle *bundle = given ? given : bundle_new(err);
    int result = n && bundle ? add_rules(n, rules, bundle, err) : errbuf_set(err, "%s", strerror(ENOMEM));
    if (!given)
        bundle_free(bundle);
    if (!n || result != 0) {
        networks_free(n);
        return NULL;
    }
    sort(&n->in4);
    sort(&n->in6);
    return n;
}

void networks_free(struct networks *n)
{
    if (!n)
        return;
    free(n->in4.items);
    free(n->in6.items);
    free(n);
}

size_t networks_rules(const struct networks *n)
{
    return n->rules;
}

bool networks_contain(const struct networks *n, const struct sockaddr *address)
{
    struct in6_addr key;
    if (!address_key(address, &key))
        return false;
    const struct network_list *list = IN6_IS_ADDR_V4MAPPED(&key) ? &n->in4 : &n->in6;
    size_t low = 0, high = list->count; /* the last one that begins at or before the key stands before high */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (memcmp(&list->items[middle].first, &key, sizeof key) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 && memcmp(&key, &list->items[low - 1].last, sizeof key) <= 0;
}
