/* metrics_http.c - answers HTTP requests about the counts, with a tcpserver and iostream_read_until: one request after another a
 * connection. */
#include "metrics_http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/random.h>
#include <time.h>

#include "http.h"

enum { CLIENTS = 64, HEAD_BYTES = 8 * 1024, ANSWER_BYTES = 4 * 1024 * 1024, NONCE_BYTES = 16, NONCE_TEXT = 2 * NONCE_BYTES + 1 };

struct client {
    TAILQ_ENTRY(client) entry;
    struct metrics_http *service;
    struct iostream *stream;
    bool waiting; /* for a request */
    bool keep_alive;
};

struct metrics_http {
    struct tcpserver *server;
    struct metrics_source source;
    double request_seconds;
    void (*empty)(void *arg);
    void *arg;
    TAILQ_HEAD(, client) clients; /* who has come first is the first */
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
    if (iostream_set_timer(s, TIMER_LIFETIME, c->service->request_seconds) != 0 ||
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
static void make_room(struct metrics_http *service)
{
    struct client *c = TAILQ_FIRST(&service->clients);
    while (c && !c->waiting)
        c = TAILQ_NEXT(c, entry);
    if (c)
        iostream_abort(c->stream, CLOSE_LIMIT);
}

static int on_client(struct tcpserver *server, struct iostream *s, void *arg)
{
    struct metrics_http *service = arg;
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

/* ---- all of them ---- */

static void on_empty(void *arg)
{
    struct metrics_http *service = arg;
    service->empty(service->arg);
}

struct metrics_http *metrics_http_new(struct ev_loop *loop, const struct metrics_source *source, double request_seconds,
                                      void (*empty)(void *arg), void *arg, struct errbuf *err)
{
    const struct tcpserver_options options = {.max_buffer_bytes = ANSWER_BYTES, .max_connections = 2 * CLIENTS, .empty = on_empty};
    struct metrics_http *service = calloc(1, sizeof *service);
    if (!service) {
        errbuf_set(err, "%s", strerror(errno));
        return NULL;
    }
    service->source = *source;
    service->request_seconds = request_seconds;
    service->empty = empty;
    service->arg = arg;
    TAILQ_INIT(&service->clients);
    service->server = tcpserver_new(loop, on_client, service, &options, err);
    if (service->server)
        return service;
    free(service);
    return NULL;
}

struct tcpserver *metrics_http_server(const struct metrics_http *service)
{
    return service->server;
}

void metrics_http_stop(struct metrics_http *service)
{
    tcpserver_stop(service->server);
    for (struct client *c = TAILQ_FIRST(&service->clients), *next; c; c = next) {
        next = TAILQ_NEXT(c, entry);
        if (c->waiting)
            iostream_abort(c->stream, CLOSE_SHUTDOWN);
    }
}

void metrics_http_free(struct metrics_http *service)
{
    tcpserver_free(service->server);
    free(service);
}
