/* world.h - streams among chance: their peers, the kernel, the clock and their user do whatever is drawn, and after every step a model
 * says whether what came of it was right. The simulation draws from seeds, the fuzzer of relays from its own bytes. */
#ifndef TEST_WORLD_H
#define TEST_WORLD_H

#include "peer.h"

enum { WORLD_STREAMS = 4 };

/* One schedule, from the making of some streams to the proof that nothing is left of them. */
void world_run(struct choices *, int streams);
/* The loop and the engine, for any number of schedules. */
void world_begin(void);
void world_end(void);

#endif
