/* values.h - the values of options: each kind is read by a function, which says what would be right if it is wrong. */
#ifndef HARK_VALUES_H
#define HARK_VALUES_H

#include "options.h"

typedef int set_value(struct settings *, const struct option *, const char *value, struct errbuf *);
extern set_value *const option_setters[]; /* by enum option_type */

bool is_ipv4(const char *text);
bool is_ipv6(const char *text); /* a scope may follow */

#endif
