/* memory_wire.h - two connected transports without a kernel, and with moods: reads and writes are cut short at any byte, say now and
 * then that they would block though they would not, want the other event than the obvious one, and shake hands first, if so told. What
 * they do depends on the seed alone. */
#ifndef TEST_MEMORY_WIRE_H
#define TEST_MEMORY_WIRE_H

#include "../../core/internal.h"

enum { MEMORY_WIRE_BYTES = 16 * 1024 }; /* on their way in each direction at most */

enum { WIRE_HANDSHAKE = 1, WIRE_WHOLE = 2 }; /* it shakes hands first; reads and writes are not cut short */

/* Each end is freed as the transport of its stream. */
void memory_wire_new(struct ev_loop *, unsigned seed, unsigned flags, struct transport *ends[2]);

#endif
