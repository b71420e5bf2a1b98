/* resolve.h - what target.c, resolve.c, lookup.c and connect.c share, and nobody else sees. */
#ifndef HARK_RESOLVE_H
#define HARK_RESOLVE_H

#include <netinet/in.h>
#include <sys/un.h>

#include "internal.h"

struct address {
    socklen_t length;
    union {
        struct sockaddr any;
        struct sockaddr_in in4;
        struct sockaddr_in6 in6;
        struct sockaddr_un local;
    };
};

struct address_list {
    size_t count;
    int ttl_seconds; /* how long the answer is good; 0 from /etc/hosts */
    struct address items[];
};

/* ---- target.c */

enum { HOST_BYTES = 254 }; /* the longest host name, with a final dot */

struct target {
    struct address address; /* length 0: host has to be resolved */
    char host[HOST_BYTES + 1];
    in_port_t port; /* in network order */
    /* lookup.c's: */
    struct address_list *known;    /* the last answer, or NULL */
    double fresh_until, ask_after; /* by engine_now */
    struct resolving *resolving;   /* a question under way, for all of lookups */
    LIST_HEAD(, lookup) lookups;
    struct errbuf why; /* the last failure */
    char text[];
};

/* ---- resolve.c: host names through c-ares, one channel an engine, made when the first name comes by (after every fork) */

struct resolving;
/* The list, in the order in which to try it, is the callback's to free. NULL: why says what went wrong, as a sentence. */
typedef void resolve_cb(void *arg, struct address_list *, const char *why);
/* host has to outlive it. NULL: ENOMEM, and the callback never runs. */
struct resolving *resolve_start(struct engine *, const char *host, in_port_t port, double timeout_seconds, resolve_cb *, void *arg);
void resolve_cancel(struct resolving *); /* before the callback */

/* For tests: "ADDRESS:PORT[,...]" instead of the name servers of resolv.conf. -1: not possible. */
int resolver_set_servers(struct engine *, const char *servers);

/* ---- lookup.c: the addresses of a target that is a name. An answer is kept as long as it says (TTL; 1 s at least, an hour at most). Then
 * who comes next waits for a new one, for 2 s at most: when there is none, the old one is used, and 10 s later asked again. */

struct address_list *lookup_known(const struct target *, double now); /* the caller's to free; NULL: lookup_start */
struct lookup;
/* As resolve_start, for the target's name; who comes while it is being asked for gets the same answer. */
struct lookup *lookup_start(struct engine *, struct target *, double timeout_seconds, resolve_cb *, void *arg);
void lookup_cancel(struct lookup *); /* before the callback */
void lookup_doubt(struct target *);  /* the addresses do not answer: ask again as soon as that is decent */

/* ---- connect.c */

/* iostream_connect to addresses that are known; it owns the list from success on. */
struct connecting *connect_addresses(struct ev_loop *, struct address_list *, const struct connect_options *, connect_cb *, void *arg);

#endif
