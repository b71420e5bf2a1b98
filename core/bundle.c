/* bundle.c - what files held when they were read, kept by path, and handed on in a memfd. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

enum { MOST_BYTES = 64 * 1024 * 1024, FIRST_BYTES = 4096, PIPE_MILLISECONDS = 5000 };

struct entry {
    LIST_ENTRY(entry) link;
    struct bundle_file file;
    char path[];
};

struct bundle {
    LIST_HEAD(, entry) entries;
    char *sealed; /* all files' bytes, mapped; NULL: they are read from the disk */
    size_t sealed_size;
};

/* A sealed one begins with the magic; then comes each file: its record, its path and its bytes. */
static const char magic[] = "hark files\n";

struct record {
    uint64_t length;
    uint32_t path_size; /* with its NUL */
    uint32_t kind;
};

struct bundle *bundle_new(struct errbuf *err)
{
    struct bundle *b = calloc(1, sizeof *b);
    if (b)
        LIST_INIT(&b->entries);
    else
        errbuf_set(err, "%s", strerror(errno));
    return b;
}

static void forget(char *bytes, size_t length)
{
    if (bytes)
        explicit_bzero(bytes, length); /* it may be a key */
    free(bytes);
}

void bundle_free(struct bundle *b)
{
    struct entry *e;
    if (!b)
        return;
    while ((e = LIST_FIRST(&b->entries))) {
        LIST_REMOVE(e, link);
        if (!b->sealed)
            forget(e->file.bytes, e->file.length);
        free(e);
    }
    if (b->sealed)
        munmap(b->sealed, b->sealed_size);
    free(b);
}

/* ---- from the disk ---- */

static bool comes_soon(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int n;
    while ((n = poll(&p, 1, PIPE_MILLISECONDS)) < 0 && errno == EINTR)
        ;
    errno = n == 0 ? EAGAIN : errno;
    return n == 1;
}

/* Who writes to a pipe, as to that of cert <(command), may need a moment. */
static ssize_t read_soon(int fd, void *bytes, size_t size)
{
    ssize_t n;
    while ((n = read(fd, bytes, size)) < 0 && (errno == EINTR || (errno == EAGAIN && comes_soon(fd))))
        ;
    return n;
}

/* realloc(3) would leave a copy behind. */
static char *grow(char *bytes, size_t length, size_t size)
{
    char *more = malloc(size);
    if (more && bytes)
        memcpy(more, bytes, length);
    forget(bytes, length);
    return more;
}

/* In memory, and whole: what is parsed cannot change meanwhile. -1 with errno. */
static int read_whole(int fd, size_t expected, struct bundle_file *file)
{
    size_t size = expected < MOST_BYTES ? expected + 1 : FIRST_BYTES; /* one more, to see the end */
    ssize_t n = 1;
    file->bytes = malloc(size);
    while (file->bytes && file->length <= MOST_BYTES && (n = read_soon(fd, file->bytes + file->length, size - file->length)) > 0) {
        file->length += (size_t)n;
        if (file->length == size)
            file->bytes = grow(file->bytes, file->length, size = 2 * size + FIRST_BYTES);
    }
    if (file->bytes && n == 0)
        return 0;
    int error = !file->bytes ? ENOMEM : n > 0 ? EFBIG : errno;
    if (file->bytes)
        forget(file->bytes, file->length);
    errno = error;
    return -1;
}

static int by_text(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_not_hidden(const struct dirent *item)
{
    return item->d_name[0] != '.';
}

/* The names in it, in an order that is the same everywhere, each with its NUL. */
static int read_names(const char *path, struct bundle_file *file)
{
    struct dirent **items;
    int count = scandir(path, &items, is_not_hidden, by_text);
    size_t size = 1;
    if (count < 0)
        return -1;
    for (int i = 0; i < count; i++)
        size += strlen(items[i]->d_name) + 1;
    file->bytes = malloc(size);
    for (int i = 0; i < count; i++) {
        if (file->bytes)
            file->length += strlen(strcpy(file->bytes + file->length, items[i]->d_name)) + 1;
        free(items[i]);
    }
    free(items);
    return file->bytes ? 0 : -1;
}

static int read_from_disk(const char *path, struct bundle_file *file)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* so that a named pipe does not hold us up */
    if (fd < 0)
        return -1;
    int result = fstat(fd, &st);
    *file = (struct bundle_file){.kind = result != 0           ? BUNDLE_OTHER
                                         : S_ISDIR(st.st_mode) ? BUNDLE_DIRECTORY
                                         : S_ISREG(st.st_mode) ? BUNDLE_REGULAR
                                                               : BUNDLE_OTHER};
    if (result == 0)
        result = file->kind == BUNDLE_DIRECTORY ? read_names(path, file) : read_whole(fd, (size_t)st.st_size, file);
    int error = errno;
    close(fd);
    errno = error;
    return result;
}

/* ---- what is asked ---- */

static struct entry *find(const struct bundle *b, const char *path)
{
    struct entry *e;
    LIST_FOREACH (e, &b->entries, link) {
        if (strcmp(e->path, path) == 0)
            break;
    }
    return e;
}

static struct entry *add(struct bundle *b, const char *path)
{
    struct entry *e = calloc(1, sizeof *e + strlen(path) + 1);
    if (e) {
        strcpy(e->path, path);
        LIST_INSERT_HEAD(&b->entries, e, link);
    }
    return e;
}

const struct bundle_file *bundle_file(struct bundle *b, const char *path, struct errbuf *err)
{
    struct entry *e = find(b, path);
    if (e)
        return &e->file;
    struct bundle_file file = {.bytes = NULL};
    errno = ENOENT;
    if (b->sealed || read_from_disk(path, &file) != 0) {
        errbuf_set(err, "\"%s\": %s", path, strerror(errno));
        return NULL;
    }
    e = add(b, path);
    if (!e) {
        errbuf_set(err, "\"%s\": %s", path, strerror(errno));
        forget(file.bytes, file.length);
        return NULL;
    }
    e->file = file;
    return &e->file;
}

/* ---- from process to process ---- */

static int write_all(int fd, const void *bytes, size_t length)
{
    for (const char *next = bytes; length > 0;) {
        ssize_t n = write(fd, next, length);
        if (n < 0 && errno != EINTR)
            return -1;
        next += n > 0 ? n : 0;
        length -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int write_entries(const struct bundle *b, int fd)
{
    const struct entry *e;
    if (write_all(fd, magic, sizeof magic) != 0)
        return -1;
    LIST_FOREACH (e, &b->entries, link) {
        const struct record r = {.length = e->file.length, .path_size = (uint32_t)strlen(e->path) + 1, .kind = e->file.kind};
        if (write_all(fd, &r, sizeof r) != 0 || write_all(fd, e->path, r.path_size) != 0 ||
            write_all(fd, e->file.bytes, e->file.length) != 0)
            return -1;
    }
    return 0;
}

int bundle_seal(const struct bundle *b, struct errbuf *err)
{
    int fd = memfd_create("hark-files", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd >= 0 && write_entries(b, fd) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) == 0)
        return fd;
    errbuf_set(err, "cannot keep what was read: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

/* Who walks through the names in a directory goes from NUL to NUL. */
static bool is_whole(const struct bundle_file *file)
{
    return file->kind == BUNDLE_DIRECTORY ? file->length == 0 || file->bytes[file->length - 1] == '\0'
                                          : file->kind == BUNDLE_REGULAR || file->kind == BUNDLE_OTHER;
}

/* Returns how many bytes the record at `at` takes, or 0 if there is no whole one, or no memory. */
static size_t open_record(struct bundle *b, size_t at)
{
    struct record r;
    size_t left = b->sealed_size - at;
    if (left < sizeof r)
        return 0;
    memcpy(&r, b->sealed + at, sizeof r);
    left -= sizeof r;
    char *path = b->sealed + at + sizeof r;
    if (r.path_size > left || memchr(path, '\0', r.path_size) != path + r.path_size - 1 || r.length > left - r.path_size)
        return 0;
    const struct bundle_file file = {.kind = (enum bundle_kind)r.kind, .bytes = path + r.path_size, .length = r.length};
    struct entry *e = is_whole(&file) ? add(b, path) : NULL;
    if (!e)
        return 0;
    e->file = file;
    return sizeof r + r.path_size + r.length;
}

static bool is_sealed(int fd)
{
    const int wanted = F_SEAL_SHRINK | F_SEAL_WRITE; /* or it could end under our eyes */
    int seals = fcntl(fd, F_GET_SEALS);
    return seals >= 0 && (seals & wanted) == wanted;
}

struct bundle *bundle_open(int fd, struct errbuf *err)
{
    struct stat st;
    if (!is_sealed(fd) || fstat(fd, &st) != 0 || st.st_size < (off_t)sizeof magic) {
        errbuf_set(err, "what was read by another process is not there");
        return NULL;
    }
    struct bundle *b = bundle_new(err);
    if (!b)
        return NULL;
    void *mapped = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    size_t at = sizeof magic, size = 1;
    if (mapped != MAP_FAILED) {
        b->sealed = mapped;
        b->sealed_size = (size_t)st.st_size;
        if (memcmp(b->sealed, magic, sizeof magic) != 0)
            size = 0;
        for (; size > 0 && at < b->sealed_size; at += size)
            size = open_record(b, at);
    }
    if (b->sealed && size > 0)
        return b;
    errbuf_set(err, "cannot take what was read by another process: %s", b->sealed ? "it is damaged" : strerror(errno));
    bundle_free(b);
    return NULL;
}
