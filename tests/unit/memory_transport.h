/* memory_transport.h - a transport without a kernel: the test writes down beforehand what each call will answer, and says itself when
 * the transport is ready. Any order of wants can be played on it, so that a stream is proven against every transport to come. */
#ifndef TEST_MEMORY_TRANSPORT_H
#define TEST_MEMORY_TRANSPORT_H

#include "../../core/internal.h"

enum memory_call { MEMORY_READ, MEMORY_WRITE, MEMORY_HANDSHAKE, MEMORY_SHUTDOWN, MEMORY_CALLS };
enum { MEMORY_ANSWERS = 64, MEMORY_BYTES = 4096 };

struct memory_answer {
    int result; /* as the call returns it; of MEMORY_WRITE: how many bytes it takes at most */
    int error;
    const char *bytes; /* what MEMORY_READ gives, in as many calls as it takes; NULL: result counts */
};

struct memory_transport {
    struct transport base;
    struct transport_ops ops; /* handshake and pending are NULL unless memory_init was told otherwise */
    struct memory_script {
        struct memory_answer answers[MEMORY_ANSWERS];
        size_t next, count;
    } scripts[MEMORY_CALLS];
    int watched;                /* the set of EV_READ and EV_WRITE last asked for */
    bool has_pending;           /* what the reads will give is here already: no event will tell */
    char written[MEMORY_BYTES]; /* all that was written, as text */
    char calls[MEMORY_BYTES];   /* "read write:5 shutdown:last free:reset": the calls in order */
};

/* secure: with a handshake, and bytes that no event announces, as TLS has them. */
void memory_init(struct memory_transport *, bool secure);

/* The next answers. When none is left, reads want EV_READ, and all else succeeds. */
void memory_will(struct memory_transport *, enum memory_call, int result);
void memory_will_fail(struct memory_transport *, enum memory_call, int error);
void memory_will_read(struct memory_transport *, const char *text);

/* Reports events, which have to be among those watched: nothing else ever is. */
void memory_ready(struct memory_transport *, int events);

#endif
