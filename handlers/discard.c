/* discard.c - reads and forgets; ends when the peer does (RFC 863). */
#include "handlers.h"

static void on_eof(struct iostream *stream, void *arg)
{
    (void)arg;
    iostream_finish(stream);
}

static int serve(struct handler_run *run, struct iostream *stream)
{
    (void)run;
    iostream_on_eof(stream, on_eof, NULL);
    return iostream_discard(stream);
}

const struct handler discard_handler = {
    .name = "discard", .arguments = "", .summary = "reads and forgets", .descriptors = 1, .serve = serve};
