/* files.h - what is read from files at start, and once more on SIGHUP: all of it, or nothing. */
#ifndef HARK_FILES_H
#define HARK_FILES_H

#include "ssl.h"

/* What the rules for connections say; ssl.h has what is read for TLS. */
struct files {
    const struct settings *settings;
    struct networks *allow, *deny, *proxies; /* NULL: the option was not given */
};

int files_read(struct files *, const struct settings *, struct bundle *, struct errbuf *); /* -1: nothing is kept */
void files_release(struct files *);

/* Reads everything anew, certificates too: prepares what is new, and then puts it in place of what was there. -1: an error line says
 * which file is bad, and all is as it was. The process that reads from the disk tells of it, and makes a new ticket key; sealed, unless
 * it is NULL, then holds what was read, for others (files_take), or -1: there was nothing to read. */
int files_reload(struct files *, struct ssl *, int *sealed);
int files_take(struct files *, struct ssl *, int sealed); /* the same, with what such a process has read */

bool files_admit(const struct files *, const struct sockaddr *); /* by --allow and --deny, which say nothing of unix sockets */

#endif
