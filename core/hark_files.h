/* hark_files.h - the part of hark.h that is about files which are read at start and again on reload, and about rules in them.
 *
 * A bundle is what files held when they were read. All that reads files asks one for them: it reads the disk on the first question, and
 * keeps the answer. So what was checked is what is used, and a process that may read a file can hand what it found to others which may
 * not. Where a bundle may be NULL, the disk is read as if by a new one. */
#ifndef HARK_FILES_READ_H
#define HARK_FILES_READ_H

#include "hark.h"

struct bundle *bundle_new(struct errbuf *); /* empty */
/* All that was read by now, on a sealed memfd(2) that nobody can change any more. -1: text says why. */
int bundle_seal(const struct bundle *, struct errbuf *);
/* One that has what is on such a descriptor, and looks at no disk; the descriptor stays the caller's. */
struct bundle *bundle_open(int fd, struct errbuf *);
void bundle_free(struct bundle *); /* leaves nothing of it in memory */

struct networks; /* a set of IP addresses; an IPv4-mapped one is the IPv4 address */
/* rules end with NULL; each is an address, a CIDR, or @FILE, which has one a line, and # comments. */
struct networks *networks_new(const char *const *rules, struct bundle *, struct errbuf *);
bool networks_contain(const struct networks *, const struct sockaddr *); /* O(log n) */
size_t networks_rules(const struct networks *);                          /* how many there were, in files too */
void networks_free(struct networks *);

#endif
