/* errbuf.c - one whole sentence about what went wrong. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "hark.h"

int errbuf_set(struct errbuf *err, const char *format, ...)
{
    int error = errno;
    char text[sizeof err->text]; /* not err->text, which may be among the arguments */
    va_list args;

    va_start(args, format);
    int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (length >= (int)sizeof text)
        memcpy(text + sizeof text - sizeof "...", "...", sizeof "...");
    memcpy(err->text, text, strlen(text) + 1);
    errno = error;
    return -1;
}
