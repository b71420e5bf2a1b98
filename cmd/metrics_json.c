/* metrics_json.c - the same as JSON, with what a person would look for: limits, processes, and the connections one by one. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "metrics.h"

/* Members and elements; the comma before all but the first. */
struct json {
    FILE *out;
    bool more;
};

static void text(struct json *j, const char *value)
{
    fputc('"', j->out);
    for (const unsigned char *c = (const unsigned char *)value; *c; c++)
        fprintf(j->out, *c == '"' || *c == '\\' ? "\\%c" : *c < 0x20 || *c >= 0x7f ? "\\u%04x" : "%c", *c);
    fputc('"', j->out);
}

static void next(struct json *j, const char *key)
{
    if (j->more)
        fputc(',', j->out);
    j->more = true;
    if (!key)
        return;
    text(j, key);
    fputc(':', j->out);
}

static void open_with(struct json *j, const char *key, char bracket)
{
    next(j, key);
    fputc(bracket, j->out);
    j->more = false;
}

static void close_with(struct json *j, char bracket)
{
    fputc(bracket, j->out);
    j->more = true;
}

static void add_text(struct json *j, const char *key, const char *value)
{
    next(j, key);
    text(j, value);
}

static void add_count(struct json *j, const char *key, uint64_t value)
{
    next(j, key);
    fprintf(j->out, "%" PRIu64, value);
}

static void add_seconds(struct json *j, const char *key, double value)
{
    next(j, key);
    fprintf(j->out, "%.3f", value);
}

static void add_flag(struct json *j, const char *key, bool value)
{
    next(j, key);
    fputs(value ? "true" : "false", j->out);
}

/* ---- what there is ---- */

static uint64_t count_of(const struct metrics_source *m, int task, int which)
{
    return shared_count(m->shared, task, (enum shared_count)which);
}

static void add_server(struct json *j, const struct metrics_source *m)
{
    const struct board *b = m->board;
    add_text(j, "version", HARK_VERSION);
    add_text(j, "handler", b->handler);
    add_flag(j, "tls", b->tls);
    add_seconds(j, "started_at", b->started_at);
    open_with(j, "listening", '[');
    for (int i = 0; i < b->listener_count; i++)
        add_text(j, NULL, b->listeners[i]);
    close_with(j, ']');
}

/* As on the command line: 0 = no limit. */
static void add_limits(struct json *j, const struct board *b)
{
    open_with(j, "limits", '{');
    add_count(j, "max_connections", b->max_connections);
    add_count(j, "max_per_ip", b->max_per_ip);
    add_count(j, "max_rate", b->max_rate);
    add_count(j, "max_accepts", b->max_accepts);
    add_seconds(j, "idle_timeout", b->timers[TIMER_IDLE]);
    add_seconds(j, "half_close_timeout", b->timers[TIMER_HALF_CLOSE]);
    add_seconds(j, "max_lifetime", b->timers[TIMER_LIFETIME]);
    add_seconds(j, "drain_timeout", b->drain_timeout);
    close_with(j, '}');
}

static void add_totals(struct json *j, const struct metrics_source *m)
{
    open_with(j, "totals", '{');
    add_count(j, "accepted", shared_accepts(m->shared));
    add_count(j, "received_bytes", count_of(m, -1, COUNT_BYTES_IN));
    add_count(j, "sent_bytes", count_of(m, -1, COUNT_BYTES_OUT));
    add_count(j, "tls_handshakes", count_of(m, -1, COUNT_HANDSHAKES));
    add_count(j, "children", count_of(m, -1, COUNT_CHILDREN));
    add_count(j, "restarts", count_of(m, -1, COUNT_RESTARTS));
    add_count(j, "accept_errors", count_of(m, -1, COUNT_SHORTAGES));
    open_with(j, "rejected", '{');
    for (int i = 0; i < REJECT_REASONS; i++)
        add_count(j, reject_reason_name((enum reject_reason)i), count_of(m, -1, COUNT_REJECTS + i));
    close_with(j, '}');
    open_with(j, "closed", '{');
    for (int i = CLOSE_NONE + 1; i < CLOSE_REASONS; i++)
        add_count(j, close_reason_name((enum close_reason)i), count_of(m, -1, COUNT_CLOSES + i));
    close_with(j, '}');
    close_with(j, '}');
}

/* Those that lasted no longer than `seconds`, and longer than the one before; of the last, null: no limit. */
static void add_durations(struct json *j, const struct metrics_source *m)
{
    open_with(j, "durations", '[');
    for (int i = 0; i < TIME_LIMITS; i++) {
        open_with(j, NULL, '{');
        next(j, "seconds");
        fprintf(j->out, isinf(shared_time_limits[i]) ? "null" : "%g", shared_time_limits[i]);
        add_count(j, "connections", count_of(m, -1, COUNT_TIMES + i));
        close_with(j, '}');
    }
    close_with(j, ']');
}

static void add_processes(struct json *j, const struct metrics_source *m)
{
    open_with(j, "processes", '[');
    for (int task = 0; task < m->board->processes; task++) {
        open_with(j, NULL, '{');
        add_count(j, "process", (uint64_t)task);
        add_count(j, "accepted", count_of(m, task, COUNT_ACCEPTS));
        add_count(j, "received_bytes", count_of(m, task, COUNT_BYTES_IN));
        add_count(j, "sent_bytes", count_of(m, task, COUNT_BYTES_OUT));
        add_count(j, "restarts", count_of(m, task, COUNT_RESTARTS));
        close_with(j, '}');
    }
    close_with(j, ']');
}

static void add_targets(struct json *j, const struct metrics_source *m)
{
    const struct board *b = m->board;
    open_with(j, "targets", '[');
    for (int i = 0; i < b->target_count; i++) {
        double retry = board_target_retry(b, i, m->now);
        open_with(j, NULL, '{');
        add_text(j, "name", board_target(b, i));
        add_flag(j, "up", isinf(retry));
        next(j, "retry_seconds");
        fprintf(j->out, isinf(retry) ? "null" : "%.3f", retry);
        add_count(j, "connections", board_target_connections(b, i));
        add_count(j, "failures", board_target_failures(b, i));
        close_with(j, '}');
    }
    close_with(j, ']');
}

static socklen_t length_of(const struct sockaddr *address)
{
    return address->sa_family == AF_INET    ? sizeof(struct sockaddr_in)
           : address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                            : sizeof address->sa_family;
}

static void add_streams(struct json *j, const struct metrics_source *m)
{
    char peer[ADDRESS_TEXT];
    struct live_stream *streams = calloc(BOARD_ROWS, sizeof *streams);
    unsigned count = streams ? shared_live_streams(m->shared, streams, BOARD_ROWS) : 0;
    open_with(j, "newest", '[');
    for (unsigned i = 0; i < count; i++) {
        const struct live_stream *s = &streams[i];
        open_with(j, NULL, '{');
        add_count(j, "id", s->id);
        add_text(j, "peer", address_text(&s->peer.any, length_of(&s->peer.any), peer, sizeof peer));
        add_count(j, "process", (uint64_t)s->task);
        add_seconds(j, "seconds", m->now > s->accepted_at ? m->now - s->accepted_at : 0);
        add_count(j, "in", s->bytes_in);
        add_count(j, "out", s->bytes_out);
        add_flag(j, "open", s->open);
        close_with(j, '}');
    }
    close_with(j, ']');
    free(streams);
}

char *metrics_json(const struct metrics_source *m, size_t *length)
{
    char *result = NULL;
    struct json j = {.out = open_memstream(&result, length)};
    if (!j.out)
        return NULL;
    fputc('{', j.out);
    add_server(&j, m);
    add_count(&j, "connections", shared_connections(m->shared));
    add_limits(&j, m->board);
    add_totals(&j, m);
    add_durations(&j, m);
    add_processes(&j, m);
    add_targets(&j, m);
    add_streams(&j, m);
    fputs("}\n", j.out);
    if (fclose(j.out) == 0)
        return result;
    free(result);
    return NULL;
}
