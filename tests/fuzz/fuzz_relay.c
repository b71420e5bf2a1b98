/* Streams, alone and relayed, whose peers, events and user do what the input says, against the simulation's model. */
#include "../unit/world.h"
#include "fuzz.h"

static void crash(const char *what, const char *file, int line)
{
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return -1;
    struct choices choices = {.data = data + 1, .left = size - 1};
    world_failed = crash;
    world_traced = getenv("HARK_TRACE") != NULL;
    world_begin();
    world_run(&choices, 1 + data[0] % WORLD_STREAMS);
    world_end();
    return 0;
}
