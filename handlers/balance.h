/* balance.h - which of several targets a connection goes to.
 *
 * Pure: the time (seconds, of a clock that never goes back) comes from the caller, and so does what became of each connection. One that
 * cannot be reached is down: left alone, and tried again after a growing delay. While all are down, all are tried as if none were. */
#ifndef HARK_BALANCE_H
#define HARK_BALANCE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

enum balance_policy { /* in the order of --balance */
                      BALANCE_ROUND_ROBIN,
                      BALANCE_LEAST, /* the one with the fewest connections */
                      BALANCE_SOURCE, /* an address goes to the same one: when that is down only its clients move, and move back (rendezvous hashing) */
                      BALANCE_FIRST /* the first that can be reached */
};

struct balance;
/* The targets are numbered as their names are; BALANCE_SOURCE goes by the names alone, whatever their order. NULL: ENOMEM. */
struct balance *balance_new(enum balance_policy, const char *const *names, unsigned count);
void balance_free(struct balance *);

/* What BALANCE_SOURCE tells clients apart by: the IP address. Clients without one count as one. */
uint64_t balance_client(const struct sockaddr *);

/* The target for a connection of this client, or -1: all were tried. tried[target] says which were, and is set. The connection counts
 * from now on, until balance_left. */
int balance_pick(struct balance *, uint64_t client, bool *tried);
void balance_left(struct balance *, unsigned target);
unsigned balance_connections(const struct balance *, unsigned target); /* that count now */

/* true: it was down. */
bool balance_reached(struct balance *, unsigned target);
/* It is down from now on. Returns the seconds until the next trial; 0: that was known. */
double balance_failed(struct balance *, unsigned target, double now);
/* One that is down and should be tried again, beside the connections; none (-1) while all are down. It is not named again before the
 * outcome was told by one of the above. */
int balance_due(struct balance *, double now);

#endif
