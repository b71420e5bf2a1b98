/* report.h - log lines: an event word and key=value, or a JSON object with the same keys. sink.h says where they go. */
#ifndef HARK_REPORT_H
#define HARK_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum report_level { REPORT_ERROR = -1, REPORT_NORMAL, REPORT_CONNECTIONS, REPORT_DEBUG };

/* What is above this level is not reported. */
void report_setup(enum report_level, bool json);
bool report_wants(enum report_level);

/* One sentence, for `error:` and `warning:`. */
void report_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void report_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* One event: begin, any number of fields, end. */
struct report {
    char line[32 * 1024]; /* room for a line of a child, each byte of it escaped, and for more; a longer value ends in "..." */
    size_t length;
    struct report_kind *kind;
    bool full; /* something did not fit: nothing more is added */
};
void report_begin(struct report *, const char *event);
void report_text(struct report *, const char *key, const char *value);
void report_bytes(struct report *, const char *key, const char *value, size_t length);
void report_number(struct report *, const char *key, uint64_t value);
void report_seconds(struct report *, const char *key, double value);
/* Of lines that peers can cause without limit (errors, rejects) 10 in 5 s are written, then how many were `suppressed`. */
void report_end(struct report *);
void report_reopen(void); /* the log file, after it was moved away */
void report_finish(void); /* what is still to be said when the process ends */

/* A line on the terminal that the next one replaces; NULL takes it away. */
void report_progress(const char *text);

#endif
