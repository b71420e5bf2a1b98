/* board.c - writes and reads the board. */
#include "board.h"

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

void board_join(struct board *b, int task)
{
    for (int i = 0; i < b->target_count; i++)
        view(b, task, i)->down = false;
}

void board_set_target(struct board *b, int task, const char *name, bool down)
{
    int i = 0;
    while (i < b->target_count && strncmp(board_target(b, i), name, BOARD_TEXT - 1) != 0)
        i++;
    if (i == b->target_count)
        return;
    view(b, task, i)->down = down;
    view(b, task, i)->failures += down;
}

int board_target_down(const struct board *b, int target)
{
    int down = 0;
    for (int task = 0; task < b->processes; task++)
        down += view(b, task, target)->down;
    return down;
}

uint64_t board_target_failures(const struct board *b, int target)
{
    uint64_t failures = 0;
    for (int task = 0; task < b->processes; task++)
        failures += view(b, task, target)->failures;
    return failures;
}
