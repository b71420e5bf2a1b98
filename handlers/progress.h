/* progress.h - the line on the terminal that shows how a transfer is going. */
#ifndef HARK_PROGRESS_H
#define HARK_PROGRESS_H

#include "handlers.h"

struct progress;
/* Shows the stream's bytes once a second until stopped; total is how many are to be sent, 0 if unknown. NULL: ENOMEM. */
struct progress *progress_start(const struct handler_run *, const struct iostream *, uint64_t total);
void progress_stop(struct progress *); /* shows the last figures; NULL is allowed */

#endif
