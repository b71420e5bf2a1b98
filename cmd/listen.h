/* listen.h - the sockets that the command line asks for. */
#ifndef HARK_LISTEN_H
#define HARK_LISTEN_H

#include "options.h"

struct listener_socket {
    int fd;
    const char *unix_path; /* bound here; NULL: TCP, or handed over */
    struct unix_file unix_file;
    bool handed_over; /* by a service manager: of any kind, and never unlinked */
};

/* One set of listening sockets; with --reuse-port one for each process, else a single one that all share. */
struct listeners {
    struct listener_socket *sockets; /* set after set */
    int per_set, count;              /* count: in all the sets */
};

int listeners_open(struct listeners *, const struct settings *, int processes, struct errbuf *); /* all or nothing */
void listeners_log(const struct listeners *, const struct settings *,
                   int processes);                                                /* the `listen` lines; `metrics` if there is no handler */
int listeners_check(const struct settings *, int processes, struct errbuf *);     /* the same, binding nothing */
int listeners_name(const struct listeners *, int index, char *text, size_t size); /* as address_text; -1: no such one */
void listeners_write_ready(const struct listeners *, int fd);                     /* for --ready-fd */
/* Takes the unix sockets' paths away, so that no new client comes. Before the sockets are closed. */
void listeners_unlink(const struct listeners *);
void listeners_close(struct listeners *);
void listeners_keep_set(struct listeners *, int process); /* that process's; closes the others */
void listeners_give_away(struct listeners *);             /* the descriptors are somebody else's from now on */

#endif
