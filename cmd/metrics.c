/* metrics.c - the life of the process that answers at --metrics. */
#include "metrics.h"

#include <errno.h>
#include <ev.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "metrics_http.h"
#include "metrics_start.h"
#include "report.h"
#include "sandbox.h"

static const double REQUEST_SECONDS = 20, END_SECONDS = 1;

struct service {
    struct ev_loop *loop;
    struct metrics_http *http;
    ev_io end_watcher;
    ev_timer end_timer;
};

static void on_empty(void *arg)
{
    struct service *service = arg;
    ev_break(service->loop, EVBREAK_ALL);
}

static void on_end_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)timer, (void)events;
    ev_break(loop, EVBREAK_ALL);
}

/* No worker is left, or the supervisor has died. */
static void on_end(struct ev_loop *loop, ev_io *watcher, int events)
{
    (void)events;
    struct service *service = watcher->data;
    ev_io_stop(loop, watcher);
    ev_timer_start(loop, &service->end_timer);
    metrics_http_stop(service->http);
}

static int start(struct service *service, const struct metrics_source *source, char **descriptors, struct errbuf *err)
{
    service->loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    if (!service->loop)
        return errbuf_set(err, "cannot make an event loop: %s", strerror(errno));
    service->http = metrics_http_new(service->loop, source, REQUEST_SECONDS, on_empty, service, err);
    if (!service->http)
        return -1;
    for (; *descriptors; descriptors++) {
        if (tcpserver_add_socket(metrics_http_server(service->http), atoi(*descriptors), err) != 0)
            return -1;
    }
    return 0;
}

/* False: somebody else has given this program that name. */
static bool take_arguments(char **arguments, int numbers[METRICS_LISTENERS], struct metrics_source *source)
{
    struct errbuf err;
    for (int i = 0; i < METRICS_LISTENERS; i++) {
        if (!arguments[i + 1])
            return false;
        numbers[i] = atoi(arguments[i + 1]);
    }
    source->shared = shared_open(numbers[METRICS_MEMORY], &err);
    if (!source->shared)
        return false;
    close(numbers[METRICS_MEMORY]);
    source->board = shared_annex(source->shared);
    return true;
}

int metrics_main(char **arguments)
{
    struct service service = {0};
    struct metrics_source source = {0};
    struct errbuf err;
    int numbers[METRICS_LISTENERS];
    if (!take_arguments(arguments, numbers, &source)) {
        report_error("this name of the program is for its own use: call it hark");
        return 2;
    }
    report_setup(source.board->quiet ? REPORT_ERROR : REPORT_NORMAL, source.board->json);
    sink_adopt(numbers + METRICS_SINK);
    metrics_confine();
    if (start(&service, &source, arguments + 1 + METRICS_LISTENERS, &err) != 0) {
        report_error("metrics: %s", err.text);
        return 1;
    }
    ev_io_init(&service.end_watcher, on_end, numbers[METRICS_END], EV_READ);
    ev_timer_init(&service.end_timer, on_end_timer, END_SECONDS, 0);
    service.end_watcher.data = &service;
    ev_io_start(service.loop, &service.end_watcher);
    sink_leave();
    if (source.board->sandbox)
        sandbox_enter_to_answer();
    fork_helper_ready(numbers[METRICS_END], numbers[METRICS_TASK]);
    ev_run(service.loop, 0);
    metrics_http_free(service.http);
    ev_loop_destroy(service.loop);
    _exit(0); /* a sanitizer could not look for leaks in a process that is closed to debuggers, and would call that a failure */
}
