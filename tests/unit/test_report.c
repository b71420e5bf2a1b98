/* Long log lines: what does not fit is cut, and what is there is still a line. */
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

/* A line that fields have filled, and then more of them. */
static void overfill(bool json, const char *value)
{
    struct report r;
    report_setup(REPORT_DEBUG, json);
    report_begin(&r, "event");
    report_text(&r, "long", value);
    for (int i = 0; i < FIELDS; i++) {
        report_text(&r, "text", "two words");
        report_number(&r, "n", 7);
        report_seconds(&r, "s", 1234.5);
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

static size_t fields(void)
{
    size_t count = 0;
    for (const char *at = line; (at = strstr(at, "1234.500")); at++)
        count++;
    return count;
}

static void a_long_value_is_cut_and_marked_and_the_fields_after_it_are_there(void **state)
{
    (void)state;
    size_t step;
    for (size_t length = 1; length < sizeof most; length += step) {
        bool near_the_cut = length > 28000 && length < 29000;
        step = near_the_cut ? 1 : 501;
        memset(most, length % 2 ? '-' : ' ', length);
        most[length] = '\0';
        overfill(length % 3, most);
        assert_int_equal(fields(), FIELDS);
        bool whole = strstr(line, most);
        assert_true(whole || strstr(line, length % 2 ? "-..." : " ...\""));
        assert_true(whole || length > sizeof((struct report *)NULL)->line - 5000);
    }
}

static void a_value_that_is_escaped_is_cut_between_escapes(void **state)
{
    (void)state;
    memset(most, '\1', sizeof most - 1);
    overfill(false, most);
    assert_int_equal(fields(), FIELDS);
    assert_non_null(strstr(line, "\\x01...\" text="));
    overfill(true, most);
    assert_int_equal(fields(), FIELDS);
    assert_non_null(strstr(line, "\\u0001...\",\"text\":"));
}

static void of_two_long_values_the_second_is_cut_before_the_fields_after_it(void **state)
{
    (void)state;
    struct report r;
    memset(most, '-', sizeof most - 1);
    report_begin(&r, "event");
    report_text(&r, "first", most);
    report_text(&r, "second", most);
    report_number(&r, "last", 7);
    print(&r);
    assert_ends("-... second=... last=7\n");
}

static void a_line_that_is_full_of_fields_takes_whole_ones_only(void **state)
{
    (void)state;
    struct report r;
    for (int json = 0; json < 2; json++) {
        report_setup(REPORT_DEBUG, json);
        report_begin(&r, "event");
        for (size_t i = 0; i < sizeof r.line; i++)
            report_number(&r, "n", 7);
        assert_true(r.length < sizeof r.line);
        print(&r);
        report_setup(REPORT_NORMAL, false);
        assert_ends(json ? ",\"n\":7}\n" : " n=7\n");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_long_value_is_cut_and_marked_and_the_fields_after_it_are_there),
        cmocka_unit_test(a_value_that_is_escaped_is_cut_between_escapes),
        cmocka_unit_test(of_two_long_values_the_second_is_cut_before_the_fields_after_it),
        cmocka_unit_test(a_line_that_is_full_of_fields_takes_whole_ones_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
