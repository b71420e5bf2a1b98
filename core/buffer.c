/* buffer.c - a byte queue in one piece of memory. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { SMALLEST_CAPACITY = 512 };

static size_t bigger_capacity(size_t capacity, size_t wanted)
{
    if (!capacity)
        capacity = SMALLEST_CAPACITY;
    while (capacity < wanted && capacity <= SIZE_MAX / 4)
        capacity *= 2;
    return capacity;
}

static int make_room(struct buffer *b, size_t more)
{
    struct buffer_block *old = b->block;
    size_t length = buffer_length(b);
    if (old && old->capacity - old->start - length >= more)
        return 0;
    if (old && old->capacity - length >= more && old->start >= length) { /* cheap to move down: each byte moves once per doubling */
        memcpy(old->bytes, buffer_bytes(b), length);
        old->start = 0;
        return 0;
    }
    size_t capacity = bigger_capacity(old ? old->capacity : 0, length + more);
    struct buffer_block *block = capacity - length < more ? NULL : malloc(sizeof *block + capacity);
    if (!block) {
        errno = ENOMEM;
        return -1;
    }
    *block = (struct buffer_block){.length = length, .capacity = capacity};
    if (old)
        memcpy(block->bytes, buffer_bytes(b), length);
    free(old);
    b->block = block;
    return 0;
}

int buffer_append(struct buffer *b, const void *bytes, size_t length)
{
    if (length == 0)
        return 0;
    if (make_room(b, length) != 0)
        return -1;
    struct buffer_block *block = b->block;
    memcpy(block->bytes + block->start + block->length, bytes, length);
    block->length += length;
    return 0;
}

void buffer_consume(struct buffer *b, size_t count)
{
    if (!b->block)
        return;
    b->block->start += count;
    b->block->length -= count;
    if (b->block->length == 0)
        buffer_release(b);
}

void buffer_release(struct buffer *b)
{
    free(b->block);
    b->block = NULL;
}
