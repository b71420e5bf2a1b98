/* inbox.h - descriptors from a parent to its workers: a socketpair for each of them. */
#ifndef HARK_INBOX_H
#define HARK_INBOX_H

#include <stdbool.h>

/* Of one worker, in the parent. */
struct outbox {
    int fds[2];    /* the parent's end, the worker's; -1: closed */
    unsigned due;  /* kinds that it has yet to be sent */
    unsigned owed; /* how many of those it was sent it has not taken */
};
void outbox_init(struct outbox *);
int outbox_open(struct outbox *);                    /* before the fork; -1 with errno */
void outbox_forked(struct outbox *);                 /* in the parent, after it */
void outbox_close(struct outbox *);                  /* the worker has ended, or is another one */
void outbox_send(struct outbox *, int kind, int fd); /* if it is due, and there is room */
void outbox_receive(struct outbox *);                /* what it has taken meanwhile */
bool outbox_is_settled(const struct outbox *);       /* it was sent all there is, and has taken it; or it has ended */
void inbox_open(struct outbox *);                    /* in the worker: its end is this process's inbox */

#endif
