/* access_log.h - the log lines of connections: `accept`, `close`, `reject`. */
#ifndef HARK_ACCESS_LOG_H
#define HARK_ACCESS_LOG_H

#include "../core/hark.h"

void access_log_accept(struct iostream *);
void access_log_close(struct iostream *, bool lends_sockets);
void access_log_reject(struct iostream *, enum reject_reason);
void access_log_refuse(const struct sockaddr *peer, socklen_t, enum reject_reason); /* before there was a stream */

#endif
