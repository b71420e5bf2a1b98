/* board.c - writes and reads the board. */
#include "board.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static int count_targets(const struct settings *s)
{
    int count = 0;
    while (s->handler == &forward_handler && s->handler_arguments[count])
        count++;
    return count;
}

size_t board_size(const struct settings *s)
{
    size_t processes = (size_t)(s->processes ? s->processes : cpu_count());
    return sizeof(struct board) + (size_t)count_targets(s) * (BOARD_TEXT + processes * sizeof(struct board_view));
}

static struct board_view *view(const struct board *b, int task, int target)
{
    struct board_view *views = (void *)(uintptr_t)(b->targets + (size_t)b->target_count * BOARD_TEXT);
    return &views[task * b->target_count + target];
}

void board_fill(struct board *b, const struct settings *s, const struct listeners *l, int processes, unsigned max_connections)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    b->started_at = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
    snprintf(b->handler, sizeof b->handler, "%s", s->handler->name);
    snprintf(b->host, sizeof b->host, "%s", s->metrics.unix_path ? "" : s->metrics_host);
    while (b->listener_count < BOARD_LISTENERS &&
           listeners_name(l, b->listener_count, b->listeners[b->listener_count], sizeof b->listeners[0]) == 0)
        b->listener_count++;
    b->processes = processes;
    b->max_connections = max_connections;
    b->max_per_ip = (unsigned)s->max_per_ip;
    b->max_rate = (unsigned)s->max_rate;
    b->max_accepts = (uint64_t)s->max_accepts;
    memcpy(b->timers, s->timers, sizeof b->timers);
    b->drain_timeout = s->drain_timeout;
    b->tls = settings_use_tls(s);
    b->json = s->json;
    b->quiet = s->verbosity < 0;
    b->sandbox = s->sandbox;
    b->target_count = count_targets(s);
    for (int i = 0; i < b->target_count; i++)
        snprintf(b->targets + (ptrdiff_t)i * BOARD_TEXT, BOARD_TEXT, "%s", s->handler_arguments[i]);
}

/* ---- targets ---- */

const char *board_target(const struct board *b, int target)
{
    return b->targets + (ptrdiff_t)target * BOARD_TEXT;
}

void board_forget(struct board *b, int task)
{
    for (int i = 0; i < b->target_count; i++) {
        view(b, task, i)->retry_at = 0;
        view(b, task, i)->connections = 0;
    }
}

void board_set_target(struct board *b, int task, const char *name, double retry_at)
{
    int i = 0;
    while (i < b->target_count && strncmp(board_target(b, i), name, BOARD_TEXT - 1) != 0)
        i++;
    if (i == b->target_count)
        return;
    view(b, task, i)->retry_at = retry_at;
    view(b, task, i)->failures += retry_at > 0;
}

void board_set_connections(struct board *b, int task, unsigned target, unsigned connections)
{
    view(b, task, (int)target)->connections = connections;
}

/* Those that are down are passed over for these. */
static bool has_others(const struct board *b, int task)
{
    for (int i = 0; i < b->target_count; i++) {
        if (view(b, task, i)->retry_at <= 0)
            return true;
    }
    return false;
}

double board_target_retry(const struct board *b, int target, double now)
{
    double soonest = INFINITY;
    for (int task = 0; task < b->processes; task++) {
        double at = view(b, task, target)->retry_at, left = at > now && has_others(b, task) ? at - now : 0;
        if (at > 0 && left < soonest)
            soonest = left;
    }
    return soonest;
}

unsigned board_target_connections(const struct board *b, int target)
{
    unsigned connections = 0;
    for (int task = 0; task < b->processes; task++)
        connections += view(b, task, target)->connections;
    return connections;
}

uint64_t board_target_failures(const struct board *b, int target)
{
    uint64_t failures = 0;
    for (int task = 0; task < b->processes; task++)
        failures += view(b, task, target)->failures;
    return failures;
}
