/* sandbox.h - what a serving process can do without is given up for good, so that who breaks into it has little to break out with. */
#ifndef HARK_SANDBOX_H
#define HARK_SANDBOX_H

#include "options.h"

/* To be called when all that serving needs is open. What the kernel does not have is done without; one warning says so. */
void sandbox_enter(const struct settings *);
/* The same for a process that accepts, and answers from its memory; what the kernel does not have those above tell. */
void sandbox_enter_to_answer(void);

/* ---- for landlock.c and seccomp.c ---- */

/* What will be opened and connected later. */
struct sandbox_needs {
    const struct settings *settings;
    bool tcp, local;         /* kinds of sockets to connect with */
    bool abstract;           /* of the local ones some are */
    bool names;              /* what they stand for is asked */
    bool system_authorities; /* certificates are looked for where the system has them */
    bool answers_only;       /* nothing at all */
};

/* Restricts files, TCP ports, and what reaches other processes. Returns the ABI of what holds from now on; 0: nothing does. */
int landlock_enter(const struct sandbox_needs *, struct errbuf *);
enum { LANDLOCK_ABI_PORTS = 4 }; /* below it, TCP ports are free */

int seccomp_enter(const struct sandbox_needs *, struct errbuf *); /* restricts system calls; -1: none */

bool sandbox_target_is_unix(const char *target);
int sandbox_target_port(const char *target); /* -1: none */

#endif
