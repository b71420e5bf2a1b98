/* activation.h - sockets that a service manager hands over: LISTEN_FDS (sd_listen_fds(3), without libsystemd). */
#ifndef HARK_ACTIVATION_H
#define HARK_ACTIVATION_H

#include "../core/hark.h"

enum { FIRST_HANDED_OVER = 3 }; /* and those after it */

struct activation {
    int listening; /* how many, or 0 */
    int connected; /* one that was accepted already, or -1; then there is nothing else */
};
/* What was handed to this very process; -1: it makes no sense. Changes nothing, and can be asked again. */
int activation_read(struct activation *, struct errbuf *);
/* As bind_sockets would have made it. */
void activation_prepare(int fd);

#endif
