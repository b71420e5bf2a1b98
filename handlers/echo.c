/* echo.c - sends back what it gets. */
#include "handlers.h"

static int serve(struct handler_run *run, struct iostream *stream)
{
    (void)run;
    return iostream_relay(stream, stream);
}

const struct handler echo_handler = {
    .name = "echo", .arguments = "", .summary = "sends back what it gets", .descriptors = 1, .serve = serve};
