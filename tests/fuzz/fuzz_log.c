/* Log lines: whatever bytes a peer or a child sends, a line stays one line of printable UTF-8 whose fields can be told apart, and in
 * JSON says just what was sent. The input is the format, and then fields: a length in two bytes, and the bytes. */
#include <ctype.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../cmd/report.h"
#include "fuzz.h"

static int output = -1;

/* The length of a well-formed character other than a control; 0: there is none. */
static size_t character(const unsigned char *text)
{
    unsigned value = text[0];
    size_t length = value < 0x80 ? 1 : value >= 0xf0 ? 4 : value >= 0xe0 ? 3 : value >= 0xc0 ? 2 : 0;
    static const unsigned masks[] = {0, 0x7f, 0x1f, 0x0f, 0x07}, least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (length == 0)
        return 0;
    value &= masks[length];
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
        value = value << 6 | (text[i] & 0x3f);
    }
    bool control = value < 0x20 || (value >= 0x7f && value < 0xa0);
    return value < least[length] || value > 0x10ffff || (value >= 0xd800 && value < 0xe000) || control ? 0 : length;
}

/* The value of so many hexadecimal digits; sscanf(3) would look for the end of the line first, each time. */
static unsigned hexadecimal(const char *text, int digits)
{
    unsigned value = 0;
    for (int i = 0; i < digits; i++) {
        must_be(isxdigit((unsigned char)text[i]) && !isupper((unsigned char)text[i]));
        value = value * 16 + (unsigned)(isdigit((unsigned char)text[i]) ? text[i] - '0' : text[i] - 'a' + 10);
    }
    return value;
}

/* Past a quoted string, which it undoes; NULL: it does not end. */
static const char *unquote(const char *text, bool json, char *bytes, size_t *length)
{
    *length = 0;
    for (text++; *text != '"'; text++) {
        unsigned value = (unsigned char)*text;
        if (!*text)
            return NULL;
        if (*text == '\\') {
            char kind = *++text;
            must_be(strchr(json ? "nt\"\\u" : "nt\"\\x", kind));
            value = kind == 'n' ? '\n' : kind == 't' ? '\t' : (unsigned char)kind;
            if (kind == 'u' || kind == 'x') {
                int digits = kind == 'u' ? 4 : 2;
                value = hexadecimal(text + 1, digits);
                must_be(value < 256);
                text += digits;
            }
        }
        bytes[(*length)++] = (char)value;
    }
    return text + 1;
}

static size_t end_line(struct report *r, char *line, size_t size)
{
    must_be(ftruncate(output, 0) == 0 && lseek(output, 0, SEEK_SET) == 0);
    report_end(r);
    ssize_t n = pread(output, line, size - 1, 0);
    must_be(n > 0 && n <= (ssize_t)sizeof r->line);
    line[n] = '\0';
    return (size_t)n;
}

static void check_line(const char *line, size_t length, bool json)
{
    must_be(line[length - 1] == '\n');
    for (size_t i = 0, n; i < length - 1; i += n)
        must_be((n = character((const unsigned char *)line + i)) > 0);
    must_be(!json || (line[0] == '{' && line[length - 2] == '}'));
}

/* Each field is there as it was sent, or the line was full, and it is cut. */
static void check_fields(const char *line, bool json, const uint8_t *data, size_t size)
{
    static char bytes[sizeof(struct report)];
    const char *next = strstr(line, json ? ",\"f\":" : " f="), *end = line + strlen(line);
    while (size >= 2 && next) {
        size_t sent = (size_t)data[0] * 64 + data[1], got = 0;
        sent = sent < size - 2 ? sent : size - 2;
        next += json ? 5 : 3;
        if (*next == '"') {
            next = unquote(next, json, bytes, &got);
            must_be(next);
        } else {
            must_be(!json);
            got = strcspn(next, " \n");
            memcpy(bytes, next, got);
            next += got;
        }
        must_be(got <= sent && memcmp(bytes, data + 2, got) == 0);
        must_be(got == sent || (end - next <= 4 && strlen(line) > sizeof(struct report) / 2));
        data += 2 + sent;
        size -= 2 + sent;
        must_be(!*next || *next == '\n' || strncmp(next, json ? ",\"f\":" : " f=", 3) == 0 || *next == '}');
        next = *next == '\n' || *next == '}' ? NULL : next;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char line[sizeof(struct report) + 1];
    if (size < 1)
        return -1;
    if (output < 0) { /* libFuzzer talks through a copy: -close_fd_mask would take ours */
        output = memfd_create("log", MFD_CLOEXEC);
        must_be(output >= 0);
    }
    bool json = data[0] & 1;
    const uint8_t *field = data + 1;
    size_t left = size - 1;
    struct report r;
    report_setup(REPORT_DEBUG, json);
    report_begin(&r, "event");
    while (left >= 2) {
        size_t length = (size_t)field[0] * 64 + field[1];
        length = length < left - 2 ? length : left - 2;
        report_bytes(&r, "f", (const char *)field + 2, length);
        field += 2 + length;
        left -= 2 + length;
    }
    int saved = dup(STDERR_FILENO);
    dup2(output, STDERR_FILENO);
    size_t length = end_line(&r, line, sizeof line);
    dup2(saved, STDERR_FILENO);
    close(saved);
    check_line(line, length, json);
    check_fields(line, json, data + 1, size - 1);
    return 0;
}
