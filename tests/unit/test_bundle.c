/* test_bundle.c - files as they were when they were read, here and in another process. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../core/internal.h"

static char directory[] = "/tmp/hark-bundle.XXXXXX";

static const char *path_of(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static void put(const char *name, const char *bytes, size_t length)
{
    FILE *file = fopen(path_of(name), "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    fclose(file);
}

static void holds(struct bundle *b, const char *name, const char *bytes, size_t length)
{
    struct errbuf err = {""};
    const struct bundle_file *file = bundle_file(b, path_of(name), &err);
    assert_string_equal(err.text, "");
    assert_int_equal(file->length, length);
    assert_memory_equal(file->bytes, bytes, length);
}

static void lacks(struct bundle *b, const char *name, int error)
{
    struct errbuf err;
    char text[sizeof err.text];
    snprintf(text, sizeof text, "\"%s\": %s", path_of(name), strerror(error));
    assert_null(bundle_file(b, path_of(name), &err));
    assert_string_equal(err.text, text);
}

/* What is in b, as another process gets it. */
static struct bundle *handed_on(const struct bundle *b)
{
    struct errbuf err;
    int fd = bundle_seal(b, &err);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "x", 1), -1);
    assert_int_equal(ftruncate(fd, 0), -1);
    struct bundle *other = bundle_open(fd, &err);
    close(fd);
    assert_non_null(other);
    return other;
}

static void what_was_read_stays(void **state)
{
    (void)state;
    struct errbuf err;
    struct bundle *b = bundle_new(&err), *other;
    put("a", "one", 3);
    put("zero", "", 0);
    put("binary", "\0\1\n\0", 4);
    holds(b, "a", "one", 3);
    holds(b, "zero", "", 0);
    holds(b, "binary", "\0\1\n\0", 4);
    lacks(b, "none", ENOENT);
    put("a", "other", 5);
    holds(b, "a", "one", 3);
    other = handed_on(b);
    bundle_free(b);
    unlink(path_of("zero"));
    holds(other, "a", "one", 3);
    holds(other, "zero", "", 0);
    holds(other, "binary", "\0\1\n\0", 4);
    put("later", "x", 1);
    lacks(other, "later", ENOENT); /* it is on the disk, which is not looked at */
    bundle_free(other);
}

static void large_files_are_read_whole(void **state)
{
    (void)state;
    struct errbuf err;
    const size_t size = 3 << 20;
    char *bytes = malloc(size);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (char)(i * 7 + i / 4096);
    put("large", bytes, size);
    struct bundle *b = bundle_new(&err);
    holds(b, "large", bytes, size);
    struct bundle *other = handed_on(b);
    holds(other, "large", bytes, size);
    bundle_free(other);
    bundle_free(b);
    free(bytes);
    b = bundle_new(&err);
    assert_null(bundle_file(b, "/dev/zero", &err));
    assert_string_equal(err.text, "\"/dev/zero\": File too large");
    assert_non_null(bundle_file(b, "/proc/self/status", &err)); /* says of itself that it is empty */
    assert_true(bundle_file(b, "/proc/self/status", &err)->length > 100);
    bundle_free(b);
}

static void kinds_are_known_everywhere(void **state)
{
    (void)state;
    struct errbuf err;
    struct bundle *both[2] = {bundle_new(&err)};
    mkdir(path_of("d"), 0700);
    put("d/b", "x", 1);
    put("d/a", "x", 1);
    put("d/.hidden", "x", 1);
    holds(both[0], "d", "a\0b", 4);
    holds(both[0], "a", "other", 5);
    assert_non_null(bundle_file(both[0], "/dev/null", &err));
    both[1] = handed_on(both[0]);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(bundle_file(both[i], path_of("d"), &err)->kind, BUNDLE_DIRECTORY);
        assert_int_equal(bundle_file(both[i], path_of("a"), &err)->kind, BUNDLE_REGULAR);
        assert_int_equal(bundle_file(both[i], "/dev/null", &err)->kind, BUNDLE_OTHER);
        bundle_free(both[i]);
    }
}

static void nothing_is_something_to_hand_on(void **state)
{
    (void)state;
    struct errbuf err;
    struct bundle *b = bundle_new(&err), *other = handed_on(b);
    lacks(other, "a", ENOENT);
    bundle_free(other);
    bundle_free(b);
    bundle_free(NULL);
}

static void not_taken(const char *bytes, size_t length, unsigned seals)
{
    struct errbuf err = {""};
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(write(fd, bytes, length), length);
    fcntl(fd, F_ADD_SEALS, seals);
    assert_null(bundle_open(fd, &err));
    assert_true(err.text[0]);
    close(fd);
}

/* Cut anywhere, or not sealed, it is refused. */
static void what_is_damaged_is_refused(void **state)
{
    (void)state;
    struct errbuf err;
    char bytes[1024];
    struct bundle *b = bundle_new(&err);
    holds(b, "a", "other", 5);
    int fd = bundle_seal(b, &err);
    ssize_t length = pread(fd, bytes, sizeof bytes, 0), head = 12;
    assert_true(length > head);
    for (ssize_t cut = 0; cut < length; cut++)
        if (cut != head) /* that is an empty one */
            not_taken(bytes, (size_t)cut, F_SEAL_SHRINK | F_SEAL_WRITE);
    not_taken(bytes, (size_t)length, 0);
    memset(bytes + head, 0xff, 8); /* the length of the first file */
    not_taken(bytes, (size_t)length, F_SEAL_SHRINK | F_SEAL_WRITE);
    assert_null(bundle_open(-1, &err));
    close(fd);
    bundle_free(b);
}

/* A sealed one of a single file, as bundle.c has it. */
static size_t lay_out(char *bytes, const void *path, uint32_t path_size, uint32_t kind, const char *content, uint64_t length)
{
    char *end = mempcpy(bytes, "hark files\n", 12);
    end = mempcpy(end, &length, sizeof length);
    end = mempcpy(end, &path_size, sizeof path_size);
    end = mempcpy(end, &kind, sizeof kind);
    end = mempcpy(end, path, path_size);
    end = mempcpy(end, content, length);
    return (size_t)(end - bytes);
}

static void not_taken_laid_out(const void *path, uint32_t path_size, uint32_t kind, const char *content, uint64_t length)
{
    char bytes[128];
    not_taken(bytes, lay_out(bytes, path, path_size, kind, content, length), F_SEAL_SHRINK | F_SEAL_WRITE);
}

/* What only somebody else's program could write: names that do not end, kinds that are none, paths that are two. */
static void what_nobody_seals_is_refused(void **state)
{
    (void)state;
    struct errbuf err;
    char bytes[128];
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    size_t length = lay_out(bytes, "/d", 3, BUNDLE_DIRECTORY, "a\0b", 4);
    assert_int_equal(write(fd, bytes, length), length);
    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_WRITE);
    struct bundle *b = bundle_open(fd, &err);
    assert_non_null(b); /* or the others would be refused for nothing */
    bundle_free(b);
    close(fd);
    not_taken_laid_out("/d", 3, BUNDLE_DIRECTORY, "a\0b", 3);
    not_taken_laid_out("/d", 3, BUNDLE_OTHER + 1, "a\0b", 4);
    not_taken_laid_out("/d\0e", 5, BUNDLE_REGULAR, "a", 1);
    not_taken_laid_out("/d", 2, BUNDLE_REGULAR, "a", 1);
    not_taken_laid_out("", 0, BUNDLE_REGULAR, "a", 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_read_stays),        cmocka_unit_test(large_files_are_read_whole),
        cmocka_unit_test(kinds_are_known_everywhere), cmocka_unit_test(nothing_is_something_to_hand_on),
        cmocka_unit_test(what_is_damaged_is_refused), cmocka_unit_test(what_nobody_seals_is_refused),
    };
    if (!mkdtemp(directory))
        return 1;
    int result = cmocka_run_group_tests(tests, NULL, NULL);
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    return system(command) == 0 ? result : 1;
}
