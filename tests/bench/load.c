/* load.c - the command line of the load generator, and its conversation with whoever runs it.
 *
 *   load [OPTION]... PORT TEST
 *
 * says "ready" when its clients are connected. For each line on its stdin it runs one slice and answers with a line of KEY=VALUE. At the
 * end of stdin it exits; its connections live until then. */
#include "load.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct test *const tests[] = {&pingpong_test, &bulk_test, &connect_test, &idle_test};
static const char *const endings[] = {[END_FIN] = "fin", [END_RST] = "rst", [END_EOF] = "eof"};

enum { TESTS = sizeof tests / sizeof *tests, ENDINGS = sizeof endings / sizeof *endings };

void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (!memory)
        die("out of memory");
    return memory;
}

static void usage(void)
{
    die("usage: load [--connections N] [--size BYTES] [--count N] [--end fin|rst|eof] [--tls] [--resume] PORT pingpong|bulk|connect|idle");
}

static uint64_t number(const char *text)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (*end || end == text || value == 0)
        die("not a number above 0: %s", text);
    return value;
}

static enum ending ending_named(const char *name)
{
    for (unsigned i = 0; i < ENDINGS; i++)
        if (strcmp(endings[i], name) == 0)
            return i;
    die("no such end: %s", name);
}

static const struct test *test_named(const char *name)
{
    for (unsigned i = 0; i < TESTS; i++)
        if (strcmp(tests[i]->name, name) == 0)
            return tests[i];
    die("no such test: %s", name);
}

static const struct test *parse(int argc, char **argv, struct load *load)
{
    static const struct option options[] = {
        {"connections", required_argument, NULL, 'c'},
        {"size", required_argument, NULL, 's'},
        {"count", required_argument, NULL, 'n'},
        {"end", required_argument, NULL, 'e'},
        {"tls", no_argument, NULL, 't'},
        {"resume", no_argument, NULL, 'r'},
        {0},
    };
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 'c')
            load->connections = (unsigned)number(optarg);
        else if (option == 's')
            load->size = number(optarg);
        else if (option == 'n')
            load->count = number(optarg);
        else if (option == 'e')
            load->ending = ending_named(optarg);
        else if (option == 't')
            load->tls = true;
        else if (option == 'r')
            load->resume = true;
        else
            usage();
    }
    if (argc - optind != 2)
        usage();
    load->port = (uint16_t)number(argv[optind]);
    if (load->size > PATTERN_CHUNK)
        die("a message has at most %d bytes", PATTERN_CHUNK);
    return test_named(argv[optind + 1]);
}

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static void report(struct result *result, double seconds)
{
    printf("count=%ju seconds=%.6f resumed=%ju", (uintmax_t)result->count, seconds, (uintmax_t)result->resumed);
    if (result->latency_seconds) {
        static const double parts[] = {50, 90, 99, 99.9};
        qsort(result->latency_seconds, result->count, sizeof(double), compare);
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
            printf(" p%g=%.7f", parts[i], result->latency_seconds[(size_t)((double)(result->count - 1) * parts[i] / 100)]);
    }
    putchar('\n');
}

int main(int argc, char **argv)
{
    struct load load = {.connections = 1, .size = 64, .count = 1000};
    const struct test *test = parse(argc, argv, &load);
    struct result result = {0};
    char line[64];

    setvbuf(stdout, NULL, _IOLBF, 0);
    wire_setup(&load);
    test->prepare(&load);
    puts("ready");
    if (test != &bulk_test)
        result.latency_seconds = allocate(load.count, sizeof(double));
    while (fgets(line, sizeof line, stdin)) {
        double start = now_seconds();
        result.count = result.resumed = 0;
        test->slice(&load, &result);
        report(&result, now_seconds() - start);
    }
    return 0;
}
