/* handover.h - what a supervisor does for workers that may not do it themselves: it reads files again, and opens the log file again. */
#ifndef HARK_HANDOVER_H
#define HARK_HANDOVER_H

#include "files.h"

/* In the supervisor. */
void handover_files(struct files *, struct ssl *);
void handover_log(void);

/* In a worker, when fork_inbox is readable: takes all there is. -1: there will never be more. */
int handover_take(struct files *, struct ssl *);

#endif
