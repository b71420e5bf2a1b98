/* buffer.c - a byte queue in one piece of memory. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { SMALLEST_CAPACITY = 512 };

static int make_room(struct buffer *b, size_t more)
{
    if (b->capacity - b->start - b->length >= more)
        return 0;
    if (b->capacity - b->length >= more && b->start >= b->length) { /* cheap to move down: each byte moves once per doubling */
        memcpy(b->data, buffer_bytes(b), b->length);
        b->start = 0;
        return 0;
    }
    size_t capacity = b->capacity ? b->capacity : SMALLEST_CAPACITY;
    while (capacity - b->length < more) {
        if (capacity > SIZE_MAX / 2) {
            errno = ENOMEM;
            return -1;
        }
        capacity *= 2;
    }
    char *data = malloc(capacity);
    if (!data)
        return -1;
    if (b->length)
        memcpy(data, buffer_bytes(b), b->length);
    free(b->data);
    *b = (struct buffer){.data = data, .length = b->length, .capacity = capacity};
    return 0;
}

int buffer_append(struct buffer *b, const void *bytes, size_t length)
{
    if (length == 0)
        return 0;
    if (make_room(b, length) != 0)
        return -1;
    memcpy(b->data + b->start + b->length, bytes, length);
    b->length += length;
    return 0;
}

void buffer_consume(struct buffer *b, size_t count)
{
    b->start += count;
    b->length -= count;
    if (b->length == 0)
        buffer_release(b);
}

void buffer_release(struct buffer *b)
{
    free(b->data);
    *b = (struct buffer){0};
}
