/* Log lines that are full: what does not fit is cut, and what is there is still a line. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../cmd/report.h"

enum { FIELDS = 40 };

static char line[2 * sizeof(struct report)], most[sizeof(struct report)];

/* What report_end prints. */
static void print(struct report *r)
{
    int file = memfd_create("log", 0), saved = dup(STDERR_FILENO);
    dup2(file, STDERR_FILENO);
    report_end(r);
    dup2(saved, STDERR_FILENO);
    close(saved);
    ssize_t n = pread(file, line, sizeof line - 1, 0);
    close(file);
    assert_true(n > 0);
    line[n] = '\0';
}

/* A line that a long value has filled, and then many fields. */
static void overfill(bool json, const char *value)
{
    struct report r;
    report_setup(REPORT_DEBUG, json);
    report_begin(&r, "event");
    report_text(&r, "long", value);
    for (int i = 0; i < FIELDS; i++) {
        report_text(&r, "text", "two words");
        report_number(&r, "n", 7);
        report_seconds(&r, "s", 0.5);
    }
    assert_true(r.length < sizeof r.line);
    print(&r);
    report_setup(REPORT_NORMAL, false);
}

static void assert_ends(const char *end)
{
    assert_true(strlen(line) > strlen(end));
    assert_string_equal(line + strlen(line) - strlen(end), end);
}

static void a_full_line_takes_no_more_fields(void **state)
{
    (void)state;
    memset(most, ' ', sizeof most - 1);
    overfill(false, most);
    assert_ends(" \"\n");
    overfill(true, most);
    assert_ends(" \"}\n");
}

static void a_field_is_there_with_its_key_and_value_or_not_at_all(void **state)
{
    (void)state;
    for (size_t length = sizeof((struct report *)NULL)->line - 200; length < sizeof most - 1; length++) {
        memset(most, '-', length);
        most[length] = '\0';
        overfill(false, most);
        const char *last = strrchr(line, ' ');
        bool cut_text = strncmp(last, " text=\"", 7) == 0 || strncmp(last, " w", 2) == 0 || strcmp(last, " \"\n") == 0;
        bool whole = strcmp(last, " s=0.500\n") == 0 || strcmp(last, " n=7\n") == 0 || strncmp(last, " long=-", 7) == 0;
        assert_true(whole || cut_text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_line_takes_no_more_fields),
        cmocka_unit_test(a_field_is_there_with_its_key_and_value_or_not_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
