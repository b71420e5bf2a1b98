/* metrics_http.h - what is said at --metrics, as a server of HTTP. */
#ifndef HARK_METRICS_HTTP_H
#define HARK_METRICS_HTTP_H

#include "metrics.h"

struct metrics_http;
/* A request, its answer included, has so many seconds, from the answer before or the beginning of the connection. `empty`: the last
 * connection has gone, after metrics_http_stop too. */
struct metrics_http *metrics_http_new(struct ev_loop *, const struct metrics_source *, double request_seconds, void (*empty)(void *arg),
                                      void *arg, struct errbuf *);
struct tcpserver *metrics_http_server(const struct metrics_http *); /* its sockets are to be added */
void metrics_http_stop(struct metrics_http *);                      /* answers that are on their way are finished */
void metrics_http_free(struct metrics_http *);

#endif
