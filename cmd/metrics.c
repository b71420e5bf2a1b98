/* metrics.c - answers HTTP requests about the counts, with a tcpserver and iostream_read_until: one request after another a connection,
 * each within REQUEST_SECONDS, its answer included. */
#include "metrics.h"

#include <errno.h>
#include <ev.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "http.h"
#include "metrics_start.h"
#include "report.h"
#include "sandbox.h"

enum { CLIENTS = 64, HEAD_BYTES = 8 * 1024, ANSWER_BYTES = 4 * 1024 * 1024, NONCE_BYTES = 16, NONCE_TEXT = 2 * NONCE_BYTES + 1 };
static const double REQUEST_SECONDS = 20, END_SECONDS = 1;

struct client {
    TAILQ_ENTRY(client) entry;
    struct service *service;
    struct iostream *stream;
    bool waiting; /* for a request */
    bool keep_alive;
};

struct service {
    struct ev_loop *loop;
    struct tcpserver *server;
    struct metrics_source source;
    TAILQ_HEAD(, client) clients; /* who has come first is the first */
    ev_io end_watcher;
    ev_timer end_timer;
};

struct answer {
    int status;
    const char *type;
    char policy[512]; /* Content-Security-Policy */
    char *body;
    size_t length;
};

/* ---- answers ---- */

static bool make_nonce(char text[NONCE_TEXT])
{
    unsigned char bytes[NONCE_BYTES];
    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
        return false;
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    return true;
}

/* The page, with a nonce where it has @NONCE@: the browser runs no script, and takes no style, but those that are marked with it. */
static char *make_page(const char *nonce, size_t *length)
{
    static const char mark[] = "@NONCE@";
    char *page = NULL;
    FILE *out = open_memstream(&page, length);
    if (!out)
        return NULL;
    for (const char *from = metrics_page, *at; from; from = at ? at + strlen(mark) : NULL) {
        at = strstr(from, mark);
        fwrite(from, 1, at ? (size_t)(at - from) : strlen(from), out);
        if (at)
            fputs(nonce, out);
    }
    if (fclose(out) == 0)
        return page;
    free(page);
    return NULL;
}

static void show_page(struct answer *a)
{
    char nonce[NONCE_TEXT];
    a->body = make_nonce(nonce) ? make_page(nonce, &a->length) : NULL;
    a->type = "text/html; charset=utf-8";
    snprintf(a->policy, sizeof a->policy,
             "default-src 'none'; script-src 'nonce-%s'; style-src 'nonce-%s'; connect-src 'self'; img-src data:; base-uri 'none'; "
             "form-action 'none'; frame-ancestors 'none'",
             nonce, nonce);
}

static void show_metrics(struct answer *a, const struct metrics_source *source)
{
    a->body = metrics_text(source, &a->length);
    a->type = "text/plain; version=0.0.4; charset=utf-8";
}

static void show_status(struct answer *a, const struct metrics_source *source)
{
    a->body = metrics_json(source, &a->length);
    a->type = "application/json";
}

static void show_failure(struct answer *a, int status)
{
    char text[64];
    a->status = status;
    a->type = "text/plain; charset=utf-8";
    free(a->body);
    a->length = (size_t)snprintf(text, sizeof text, "%d %s\n", status, http_phrase(status));
    a->body = strdup(text);
}

static void choose(struct answer *a, const struct http_request *request, struct metrics_source *source)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    source->now = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
    if (strcmp(request->path, "/") == 0)
        show_page(a);
    else if (strcmp(request->path, "/metrics") == 0)
        show_metrics(a, source);
    else if (strcmp(request->path, "/status") == 0)
        show_status(a, source);
    else
        show_failure(a, HTTP_NOT_FOUND);
    if (!a->body)
        show_failure(a, HTTP_FAILED);
}

/* ---- one connection ---- */

static void wait_for_request(struct iostream *, struct client *);

static void on_written(struct iostream *s, void *arg, int error)
{
    struct client *c = arg;
    if (error)
        return;
    if (c->keep_alive && tcpserver_listening(c->service->server))
        wait_for_request(s, c);
    else
        iostream_close(s);
}

static void send_answer(struct iostream *s, struct client *c, const struct answer *a, bool head_only)
{
    char head[1536];
    int length = snprintf(head, sizeof head,
                          "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: %s\r\nCache-Control: no-store\r\n"
                          "Content-Security-Policy: %s\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
                          "Cross-Origin-Resource-Policy: same-origin\r\n%s\r\n",
                          a->status, http_phrase(a->status), a->type, a->length, c->keep_alive ? "keep-alive" : "close",
                          a->policy[0] ? a->policy : "default-src 'none'; frame-ancestors 'none'",
                          a->status == HTTP_METHOD_NOT_ALLOWED ? "Allow: GET, HEAD\r\n" : "");
    const char *body = a->body ? a->body : "";
    if (iostream_write(s, head, (size_t)length, NULL, NULL) != 0 ||
        iostream_write(s, body, head_only || !a->body ? 0 : a->length, on_written, c) != 0)
        iostream_abort(s, CLOSE_ERROR);
}

static void on_head(struct iostream *s, void *arg, enum read_status status, const char *data, size_t length)
{
    struct client *c = arg;
    const char *host = c->service->source.board->host;
    struct http_request request = {0};
    struct answer a = {.status = HTTP_HEAD_TOO_LARGE};
    c->waiting = false;
    if (status == READ_CLOSED)
        return;
    if (status == READ_EOF) {
        iostream_close(s);
        return;
    }
    if (status == READ_OK)
        a.status = http_parse(&request, data, length);
    if (a.status == HTTP_OK && host[0] && request.host[0] && !http_host_is_ours(request.host, host))
        a.status = HTTP_MISDIRECTED;
    if (a.status == HTTP_OK)
        choose(&a, &request, &c->service->source);
    else
        show_failure(&a, a.status);
    c->keep_alive = request.keep_alive && a.status != HTTP_MISDIRECTED;
    send_answer(s, c, &a, request.head_only);
    free(a.body);
    if (status == READ_LIMIT)
        iostream_close(s); /* what is written still goes */
}

static void wait_for_request(struct iostream *s, struct client *c)
{
    static const char empty_line[] = "\r\n\r\n";
    c->waiting = true;
    if (iostream_set_timer(s, TIMER_LIFETIME, REQUEST_SECONDS) != 0 ||
        iostream_read_until(s, empty_line, strlen(empty_line), HEAD_BYTES, on_head, c) != 0)
        iostream_abort(s, CLOSE_ERROR);
}

static void on_gone(struct iostream *s, void *arg)
{
    (void)s;
    struct client *c = arg;
    TAILQ_REMOVE(&c->service->clients, c, entry);
    free(c);
}

/* Who asks is never kept waiting by those who do not. */
static void make_room(struct service *service)
{
    struct client *c = TAILQ_FIRST(&service->clients);
    while (c && !c->waiting)
        c = TAILQ_NEXT(c, entry);
    if (c)
        iostream_abort(c->stream, CLOSE_LIMIT);
}

static int on_client(struct tcpserver *server, struct iostream *s, void *arg)
{
    struct service *service = arg;
    struct client *c = calloc(1, sizeof *c);
    if (!c)
        return -1;
    if (tcpserver_connections(server) > CLIENTS)
        make_room(service);
    c->service = service;
    c->stream = s;
    TAILQ_INSERT_TAIL(&service->clients, c, entry);
    iostream_on_close(s, on_gone, c);
    wait_for_request(s, c);
    return 0;
}

/* ---- the process ---- */

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

/* No worker is left, or the supervisor has died. Answers that are on their way are finished. */
static void on_end(struct ev_loop *loop, ev_io *watcher, int events)
{
    (void)events;
    struct service *service = watcher->data;
    ev_io_stop(loop, watcher);
    ev_timer_start(loop, &service->end_timer);
    tcpserver_stop(service->server);
    for (struct client *c = TAILQ_FIRST(&service->clients), *next; c; c = next) {
        next = TAILQ_NEXT(c, entry);
        if (c->waiting)
            iostream_abort(c->stream, CLOSE_SHUTDOWN);
    }
}

static int start(struct service *service, char **descriptors, struct errbuf *err)
{
    const struct tcpserver_options options = {.max_buffer_bytes = ANSWER_BYTES, .max_connections = 2 * CLIENTS, .empty = on_empty};
    service->loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    if (!service->loop)
        return errbuf_set(err, "cannot make an event loop: %s", strerror(errno));
    service->server = tcpserver_new(service->loop, on_client, service, &options, err);
    if (!service->server)
        return -1;
    for (; *descriptors; descriptors++) {
        if (tcpserver_add_socket(service->server, atoi(*descriptors), err) != 0)
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
    struct errbuf err;
    int numbers[METRICS_LISTENERS];
    if (!take_arguments(arguments, numbers, &service.source)) {
        report_error("this name of the program is for its own use: call it hark");
        return 2;
    }
    report_setup(service.source.board->quiet ? REPORT_ERROR : REPORT_NORMAL, service.source.board->json);
    sink_adopt(numbers + METRICS_SINK);
    metrics_confine();
    TAILQ_INIT(&service.clients);
    if (start(&service, arguments + 1 + METRICS_LISTENERS, &err) != 0) {
        report_error("metrics: %s", err.text);
        return 1;
    }
    ev_io_init(&service.end_watcher, on_end, numbers[METRICS_END], EV_READ);
    ev_timer_init(&service.end_timer, on_end_timer, END_SECONDS, 0);
    service.end_watcher.data = &service;
    ev_io_start(service.loop, &service.end_watcher);
    sink_leave();
    if (service.source.board->sandbox)
        sandbox_enter_to_answer();
    fork_helper_ready(numbers[METRICS_END], numbers[METRICS_TASK]);
    ev_run(service.loop, 0);
    tcpserver_free(service.server);
    ev_loop_destroy(service.loop);
    _exit(0); /* a sanitizer could not look for leaks in a process that is closed to debuggers, and would call that a failure */
}
