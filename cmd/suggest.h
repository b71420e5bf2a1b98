/* suggest.h - what to say to someone who types what hark does not know: the nearest name, or what to type instead of a flag of nc,
 * ncat, tcpserver or socat. All of them fill errbuf and return -1. */
#ifndef HARK_SUGGEST_H
#define HARK_SUGGEST_H

#include "../core/hark.h"

/* An unknown --name or --name=VALUE; rest: the words after it. */
int suggest_long(const char *word, char *const *rest, struct errbuf *);
/* An unknown letter in word, "-x" or "-vx". */
int suggest_short(const char *word, const char *letter, char *const *rest, struct errbuf *);
/* An unknown handler, the value of option. */
int suggest_handler(const char *option, const char *name, struct errbuf *);
/* Words given to a handler that takes none; listening: there is something to listen on, so that they are no port. */
int suggest_words(const char *handler, bool listening, char *const *words, struct errbuf *);

#endif
