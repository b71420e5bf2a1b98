/* Files that another process has sealed: whatever is there, there is a reason, or all of it is taken: sealed twice, which turns the order
 * of the files around twice, it is the same again. */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../core/internal.h"
#include "fuzz.h"

static struct bundle *take(int fd)
{
    struct errbuf err = {.text = ""};
    struct bundle *b = bundle_open(fd, &err);
    must_be(b ? !*err.text : *err.text && memchr(err.text, '\0', sizeof err.text));
    close(fd);
    return b;
}

static struct bundle *hand_on(struct bundle *b)
{
    struct errbuf err;
    int fd = bundle_seal(b, &err);
    must_be(fd >= 0);
    bundle_free(b);
    return take(fd);
}

static void check_file(struct bundle *b, const uint8_t *data, size_t size)
{
    struct errbuf err = {.text = ""};
    const struct bundle_file *file = bundle_file(b, "a", &err);
    must_be(file || *err.text);
    if (!file)
        return;
    must_be(file->kind == BUNDLE_REGULAR || file->kind == BUNDLE_DIRECTORY || file->kind == BUNDLE_OTHER);
    must_be(file->length <= size && memmem(data, size, file->bytes, file->length));
    must_be(file->kind != BUNDLE_DIRECTORY || file->length == 0 || file->bytes[file->length - 1] == '\0');
}

static void check_same(struct bundle *b, const uint8_t *data, size_t size)
{
    struct errbuf err;
    int fd = bundle_seal(b, &err);
    uint8_t *bytes = malloc(size + 1);
    must_be(fd >= 0 && pread(fd, bytes, size + 1, 0) == (ssize_t)size && memcmp(bytes, data, size) == 0);
    free(bytes);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd = memfd_create("bundle", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    must_be(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    must_be(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) == 0);
    struct bundle *b = take(fd);
    if (!b)
        return 0;
    check_file(b, data, size);
    b = hand_on(b);
    must_be(b);
    check_same(b, data, size);
    bundle_free(b);
    return 0;
}
