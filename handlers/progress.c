/* progress.c - bytes moved, rate, and, when the size is known, percent and time left. */
#include <ev.h>
#include <stdio.h>
#include <stdlib.h>

#include "progress.h"

struct progress {
    const struct handler_run *run;
    const struct iostream *stream;
    uint64_t total;
    ev_timer timer;
};

static const char *size_text(double bytes, char *text, size_t size)
{
    static const char units[] = "BKMGTP";
    size_t unit = 0;
    while (bytes >= 1024 && units[unit + 1]) {
        bytes /= 1024;
        unit++;
    }
    snprintf(text, size, unit && bytes < 100 ? "%.1f %c" : "%.0f %c", bytes, units[unit]);
    return text;
}

static void show(const struct progress *p)
{
    char text[128], moved_text[16], rate_text[16];
    uint64_t sent = iostream_bytes_out(p->stream);
    uint64_t moved = sent + iostream_bytes_in(p->stream);
    double seconds = iostream_seconds(p->stream);
    double rate = seconds > 0 ? (double)moved / seconds : 0;

    int n = snprintf(text, sizeof text, "%s, %s/s", size_text((double)moved, moved_text, sizeof moved_text),
                     size_text(rate, rate_text, sizeof rate_text));
    if (p->total && rate > 0 && sent <= p->total) {
        long left = (long)((double)(p->total - sent) / rate);
        snprintf(text + n, sizeof text - (size_t)n, ", %.0f %%, %ld:%02ld left", 100.0 * (double)sent / (double)p->total, left / 60,
                 left % 60);
    }
    p->run->host->progress(text);
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)loop, (void)events;
    show(timer->data);
}

struct progress *progress_start(const struct handler_run *run, const struct iostream *stream, uint64_t total)
{
    struct progress *p = malloc(sizeof *p);
    if (!p)
        return NULL;
    *p = (struct progress){.run = run, .stream = stream, .total = total};
    ev_timer_init(&p->timer, on_timer, 1, 1);
    p->timer.data = p;
    ev_timer_start(run->loop, &p->timer);
    return p;
}

void progress_stop(struct progress *p)
{
    if (!p)
        return;
    show(p);
    p->run->host->progress(NULL);
    ev_timer_stop(p->run->loop, &p->timer);
    free(p);
}
