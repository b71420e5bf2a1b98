/* report.c - makes log lines; sink.c writes them. What comes from peers is escaped: it cannot forge a line or a terminal sequence. */
#include "report.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "flood.h"
#include "sink.h"

static struct {
    enum report_level level;
    bool json;
    size_t progress_width;
} style;

void report_setup(enum report_level level, bool json)
{
    style.level = level;
    style.json = json;
}

bool report_wants(enum report_level level)
{
    return level <= style.level;
}

/* ---- kinds of lines; all others are LOG_INFO */

struct report_kind {
    const char *event;
    int priority;
    bool limited; /* peers can cause it as often as they like, without it being asked for */
    struct flood flood;
};

static struct report_kind kinds[] = {
    {"error", .priority = LOG_ERR, .limited = true},
    {"warning", .priority = LOG_WARNING, .limited = true},
    {"reject", .priority = LOG_INFO, .limited = true},
    {"restart", .priority = LOG_WARNING},
    {"suppressed", .priority = LOG_WARNING},
    {"listen", .priority = LOG_NOTICE},
    {"metrics", .priority = LOG_NOTICE},
    {"certificate", .priority = LOG_NOTICE},
    {"reload", .priority = LOG_NOTICE},
    {"stop", .priority = LOG_NOTICE},
    {"process", .priority = LOG_DEBUG},
    {"target", .priority = LOG_DEBUG},
    {NULL, .priority = LOG_INFO}, /* the last */
};

static struct report_kind *kind_of(const char *event)
{
    struct report_kind *kind = kinds;
    while (kind->event && strcmp(kind->event, event) != 0)
        kind++;
    return kind;
}

/* ---- building a line; what does not fit is cut, the newline always fits ---- */

enum {
    TAIL_BYTES = 8,    /* room for the closing quote, brace and newline */
    SHORT_BYTES = 256, /* a value that is no longer is not cut to make room for others */
    OTHERS_BYTES = 4096
};

static void add(struct report *r, const char *bytes, size_t length)
{
    r->full |= r->length + length > sizeof r->line - TAIL_BYTES;
    if (r->full)
        return; /* whole characters and escapes only */
    memcpy(r->line + r->length, bytes, length);
    r->length += length;
}

static void add_text(struct report *r, const char *text)
{
    add(r, text, strlen(text));
}

/* How many bytes the UTF-8 character at text takes, or 0 if there is none that may be printed (RFC 3629; not C0, DEL or C1). */
static size_t printable_length(const unsigned char *text, size_t left)
{
    unsigned char c = text[0];
    size_t length = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    if (length == 0 || length > left || (length == 1 && (c < 0x20 || c == 0x7f)))
        return 0;
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    }
    bool overlong = (c == 0xe0 && text[1] < 0xa0) || (c == 0xf0 && text[1] < 0x90);
    bool outside = (c == 0xed && text[1] >= 0xa0) || (c == 0xf4 && text[1] >= 0x90);
    bool control = c == 0xc2 && text[1] < 0xa0;
    return overlong || outside || control ? 0 : length;
}

/* A byte that may not stand for itself. */
static void add_escape(struct report *r, unsigned char byte)
{
    char escape[8];
    if (byte == '"' || byte == '\\')
        snprintf(escape, sizeof escape, "\\%c", byte);
    else if (byte == '\n' || byte == '\t')
        snprintf(escape, sizeof escape, "\\%c", byte == '\n' ? 'n' : 't');
    else
        snprintf(escape, sizeof escape, style.json ? "\\u%04x" : "\\x%02x", byte);
    add_text(r, escape);
}

/* A long one ends where the fields after it need the room, with three dots. */
static void add_escaped(struct report *r, const char *value, size_t length)
{
    const unsigned char *text = (const unsigned char *)value;
    size_t most = length > SHORT_BYTES ? sizeof r->line - OTHERS_BYTES : sizeof r->line;
    for (size_t i = 0; i < length && !r->full;) {
        if (r->length >= most) {
            add_text(r, "...");
            return;
        }
        size_t n = printable_length(text + i, length - i);
        if (n == 0 || text[i] == '"' || text[i] == '\\')
            add_escape(r, text[i]);
        else
            add(r, value + i, n);
        i += n ? n : 1;
    }
}

static bool is_plain(const char *value, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (value[i] <= ' ' || value[i] > '~' || value[i] == '"' || value[i] == '\\' || value[i] == '=')
            return false;
    }
    return length > 0;
}

/* A key and its value, or what that begins with: all of it or nothing. */
static void add_field(struct report *r, const char *key, const char *value)
{
    char text[128];
    snprintf(text, sizeof text, style.json ? ",\"%s\":%s" : " %s=%s", key, value);
    add_text(r, text);
}

void report_bytes(struct report *r, const char *key, const char *value, size_t length)
{
    bool quoted = style.json || !is_plain(value, length);
    add_field(r, key, quoted ? "\"" : "");
    bool fits = !r->full;
    add_escaped(r, value, length);
    if (fits && quoted)
        r->line[r->length++] = '"'; /* TAIL_BYTES keeps room, also when the value was cut */
}

void report_text(struct report *r, const char *key, const char *value)
{
    report_bytes(r, key, value, strlen(value));
}

void report_number(struct report *r, const char *key, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    add_field(r, key, text);
}

void report_seconds(struct report *r, const char *key, double value)
{
    char text[32];
    snprintf(text, sizeof text, "%.3f", value);
    add_field(r, key, text);
}

/* RFC 3339 */
static const char *time_text(char *text, size_t size)
{
    char seconds[40];
    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    strftime(seconds, sizeof seconds, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(text, size, "%s.%03ldZ", seconds, now.tv_nsec / 1000000);
    return text;
}

void report_begin(struct report *r, const char *event)
{
    char text[64];
    r->length = 0;
    r->full = false;
    r->kind = kind_of(event);
    if (sink_wants_priority()) {
        snprintf(text, sizeof text, "<%d>", r->kind->priority);
        add_text(r, text);
    }
    if (style.json) {
        add_text(r, "{\"event\":\"");
        add_text(r, event);
        add_text(r, "\"");
        report_text(r, "time", time_text(text, sizeof text));
        return;
    }
    if (sink_wants_time()) {
        add_text(r, time_text(text, sizeof text));
        add_text(r, " ");
    }
    add_text(r, "hark: ");
    add_text(r, event);
}

/* ---- out ---- */

static double monotonic_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void write_line(struct report *r)
{
    if (style.json)
        r->line[r->length++] = '}';
    r->line[r->length++] = '\n';
    report_progress(NULL);
    sink_write(r->kind->priority, r->line, r->length);
}

static void tell_suppressed(double now, bool last)
{
    struct report r;
    for (struct report_kind *kind = kinds; kind->event; kind++) {
        uint64_t count = kind->limited ? flood_suppressed(&kind->flood, now, last) : 0;
        if (count == 0)
            continue;
        report_begin(&r, "suppressed");
        report_text(&r, "event", kind->event);
        report_number(&r, "lines", count);
        write_line(&r);
    }
}

void report_end(struct report *r)
{
    double now = monotonic_seconds();
    tell_suppressed(now, false);
    if (!r->kind->limited || flood_allows(&r->kind->flood, now))
        write_line(r);
}

void report_finish(void)
{
    tell_suppressed(0, true);
}

static void __attribute__((format(printf, 2, 0))) report_sentence(const char *word, const char *format, va_list arguments)
{
    struct report r;
    char sentence[2048];
    vsnprintf(sentence, sizeof sentence, format, arguments);
    report_begin(&r, word);
    if (style.json) {
        report_text(&r, "message", sentence);
    } else {
        add_text(&r, ": ");
        const unsigned char *text = (const unsigned char *)sentence;
        for (size_t i = 0; text[i];) { /* quotes and backslashes may stay: it is a sentence */
            size_t n = printable_length(text + i, strlen(sentence + i));
            if (n)
                add(&r, sentence + i, n);
            else
                add_escape(&r, text[i]);
            i += n ? n : 1;
        }
    }
    report_end(&r);
}

void report_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    report_sentence("error", format, arguments);
    va_end(arguments);
}

void report_warning(const char *format, ...)
{
    va_list arguments;
    if (!report_wants(REPORT_NORMAL))
        return;
    va_start(arguments, format);
    report_sentence("warning", format, arguments);
    va_end(arguments);
}

void report_reopen(void)
{
    struct errbuf err;
    if (sink_reopen(&err) != 0)
        report_error("%s", err.text); /* in the old one */
}

void report_progress(const char *text)
{
    char line[256];
    size_t width = text ? strlen(text) : 0;
    if (!text && style.progress_width == 0)
        return;
    int n = snprintf(line, sizeof line, "\r%s%*s%s", text ? text : "",
                     width < style.progress_width ? (int)(style.progress_width - width) : 0, "", text ? "" : "\r");
    if (write(STDERR_FILENO, line, n < (int)sizeof line ? (size_t)n : sizeof line - 1) < 0)
        return; /* the terminal has gone */
    style.progress_width = width;
}
