/* privileges.h - --user and --chroot: whom and where the serving processes are confined to. */
#ifndef HARK_PRIVILEGES_H
#define HARK_PRIVILEGES_H

#include "options.h"

struct privileges {
    const char *text; /* --user, or NULL */
    bool user;        /* what follows is known of it */
    uid_t uid;
    gid_t gid;
    gid_t *groups; /* all, supplementary ones too */
    int group_count;
    char *name, *home; /* NULL: a number that no user has */
    const char *root;  /* --chroot, or NULL */
};

/* Asks who that is, and whether this process may become it. Zero with neither option. -1: nothing is kept. */
int privileges_find(struct privileges *, const struct settings *, struct errbuf *);
void privileges_release(struct privileges *);

/* act, with the user's rights and in the root, as it will be; then everything is as it was. */
int privileges_rehearse(const struct privileges *, int (*act)(void *arg, struct errbuf *), void *arg, struct errbuf *);
/* For good, in a worker. HOME, USER and LOGNAME become the user's, for its programs. */
int privileges_give_up(const struct privileges *, struct errbuf *);

#endif
