/* metrics_text.c - the counts for Prometheus: its text format, and its conventions for names. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "metrics.h"

static void family(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void counter(FILE *out, const char *name, uint64_t value, const char *help)
{
    family(out, name, "counter", help);
    fprintf(out, "%s %" PRIu64 "\n", name, value);
}

static void gauge(FILE *out, const char *name, double value, const char *help)
{
    family(out, name, "gauge", help);
    fprintf(out, "%s %.15g\n", name, value);
}

/* {name="value"}, with what the format wants escaped. */
static void label(FILE *out, const char *name, const char *value)
{
    fprintf(out, "%s=\"", name);
    for (; *value; value++) {
        if (*value == '\n')
            fputs("\\n", out);
        else
            fprintf(out, *value == '"' || *value == '\\' ? "\\%c" : "%c", *value);
    }
    fputc('"', out);
}

static uint64_t total(const struct metrics_source *m, int which)
{
    return shared_count(m->shared, -1, (enum shared_count)which);
}

static void by_reason(FILE *out, const char *name, const char *reason, uint64_t value)
{
    fprintf(out, "%s{reason=\"%s\"} %" PRIu64 "\n", name, reason, value);
}

static void by_target(FILE *out, const char *name, const char *target, uint64_t value)
{
    fprintf(out, "%s{", name);
    label(out, "target", target);
    fprintf(out, "} %" PRIu64 "\n", value);
}

/* Its count is the sum of what was read for the buckets, so that the two agree whatever happens meanwhile. */
static void durations(FILE *out, const struct metrics_source *m)
{
    uint64_t sum = total(m, COUNT_MICROSECONDS), count = 0;
    family(out, "hark_connection_duration_seconds", "histogram", "How long connections lasted that have ended.");
    for (int i = 0; i < TIME_LIMITS; i++) {
        count += total(m, COUNT_TIMES + i);
        fputs("hark_connection_duration_seconds_bucket{le=\"", out);
        fprintf(out, isinf(shared_time_limits[i]) ? "+Inf" : "%g", shared_time_limits[i]);
        fprintf(out, "\"} %" PRIu64 "\n", count);
    }
    fprintf(out, "hark_connection_duration_seconds_sum %.6f\n", (double)sum / 1e6);
    fprintf(out, "hark_connection_duration_seconds_count %" PRIu64 "\n", count);
}

static void connections(FILE *out, const struct metrics_source *m)
{
    gauge(out, "hark_connections", shared_connections(m->shared), "Connections there are now, handshakes included.");
    if (m->board->max_connections)
        gauge(out, "hark_connections_limit", m->board->max_connections, "At how many of them clients have to wait.");
    counter(out, "hark_connections_accepted_total", shared_accepts(m->shared), "Connections that came to their handler.");
    family(out, "hark_connections_rejected_total", "counter", "Connections that did not come to their handler.");
    for (int i = 0; i < REJECT_REASONS; i++)
        by_reason(out, "hark_connections_rejected_total", reject_reason_name((enum reject_reason)i), total(m, COUNT_REJECTS + i));
    family(out, "hark_connections_closed_total", "counter", "Connections that have ended, by the log's close reasons.");
    for (int i = CLOSE_NONE + 1; i < CLOSE_REASONS; i++)
        by_reason(out, "hark_connections_closed_total", close_reason_name((enum close_reason)i), total(m, COUNT_CLOSES + i));
    durations(out, m);
    counter(out, "hark_received_bytes_total", total(m, COUNT_BYTES_IN), "Bytes that clients have sent.");
    counter(out, "hark_sent_bytes_total", total(m, COUNT_BYTES_OUT), "Bytes that were sent to clients.");
}

static void targets(FILE *out, const struct metrics_source *m)
{
    const struct board *b = m->board;
    if (b->target_count == 0)
        return;
    family(out, "hark_target_up", "gauge", "1, or 0 while a process leaves the target alone because it could not be reached.");
    for (int i = 0; i < b->target_count; i++)
        by_target(out, "hark_target_up", board_target(b, i), isinf(board_target_retry(b, i, m->now)));
    family(out, "hark_target_connections", "gauge", "Connections to a target that there are now, or are being made.");
    for (int i = 0; i < b->target_count; i++)
        by_target(out, "hark_target_connections", board_target(b, i), board_target_connections(b, i));
    family(out, "hark_target_failures_total", "counter", "How often a target was found to be down.");
    for (int i = 0; i < b->target_count; i++)
        by_target(out, "hark_target_failures_total", board_target(b, i), board_target_failures(b, i));
}

char *metrics_text(const struct metrics_source *m, size_t *length)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, length);
    if (!out)
        return NULL;
    family(out, "hark_build_info", "gauge", "Which hark this is, and what it does; always 1.");
    fprintf(out, "hark_build_info{version=\"%s\",handler=\"%s\"} 1\n", HARK_VERSION, m->board->handler);
    gauge(out, "hark_start_time_seconds", m->board->started_at, "When it was started, in seconds since 1970.");
    gauge(out, "hark_processes", m->board->processes, "Processes that serve.");
    counter(out, "hark_process_restarts_total", total(m, COUNT_RESTARTS), "Crashed processes that were restarted.");
    connections(out, m);
    counter(out, "hark_tls_handshakes_total", total(m, COUNT_HANDSHAKES), "TLS handshakes that succeeded.");
    counter(out, "hark_children_started_total", total(m, COUNT_CHILDREN), "Programs that got a connection.");
    counter(out, "hark_accept_errors_total", total(m, COUNT_SHORTAGES),
            "How often accepting had to rest for want of descriptors or memory.");
    targets(out, m);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}
