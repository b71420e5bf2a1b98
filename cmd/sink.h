/* sink.h - where finished log lines go: stderr, syslog or a file. */
#ifndef HARK_SINK_H
#define HARK_SINK_H

#include <stdbool.h>
#include <stddef.h>

#include "../core/hark.h"

/* stderr, syslog, or the path of a file. Lines go to stderr all the same until sink_use: who starts hark is to see why it does not
 * start. check: nothing is made that is not there. */
int sink_open(const char *to, bool check, struct errbuf *);
void sink_use(void);
/* The file of that path anew, if it is a file. On failure the old one stays. */
int sink_reopen(struct errbuf *);
/* For other processes that write to the same file: a descriptor of it, or -1: it is no file; and to take one over. */
int sink_share(void);
void sink_take(int fd);

/* For a program that this process becomes: two numbers that say where lines go, and what it makes of them. A descriptor of a file is open
 * in that program, too; it lets go of it by sink_leave, since nobody opens the file anew for it, and has nothing to say after that. */
enum { SINK_NUMBERS = 2 };
void sink_pass_on(int numbers[SINK_NUMBERS]);
void sink_adopt(const int numbers[SINK_NUMBERS]);
void sink_leave(void);

bool write_all(int fd, const char *bytes, size_t length); /* in one call, as a rule; false: there is nobody to tell */
bool file_can_be_made(const char *path);                  /* it is not there, and opening would make it */
bool sink_wants_priority(void);                           /* before the line, as the journal reads it: <6> */
bool sink_wants_time(void);                               /* nobody else would add it */
/* A line with its newline. The priority is one of syslog's. */
void sink_write(int priority, const char *line, size_t length);

#endif
