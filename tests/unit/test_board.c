/* The board: what processes have found out about targets, put together. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../cmd/board.h"
#include "../../handlers/handlers.h"

enum { PROCESSES = 2 };
static const double NOW = 1000;

static char host[] = "localhost", one[] = "one:1", two[] = "two:2", *targets[] = {one, two, NULL};

static struct board *make(void)
{
    const struct settings settings = {
        .handler = &forward_handler, .handler_arguments = targets, .processes = PROCESSES, .metrics_host = host};
    struct board *b = aligned_alloc(64, (board_size(&settings) + 63) / 64 * 64);
    const struct listeners none = {0};
    assert_non_null(b);
    memset(b, 0, board_size(&settings));
    board_fill(b, &settings, &none, PROCESSES, 0);
    return b;
}

static void connections_of_all_processes_are_added(void **state)
{
    (void)state;
    struct board *b = make();
    board_set_connections(b, 0, 1, 3);
    board_set_connections(b, 1, 1, 4);
    board_set_connections(b, 1, 0, 1);
    assert_int_equal(board_target_connections(b, 0), 1);
    assert_int_equal(board_target_connections(b, 1), 7);
    board_set_connections(b, 0, 1, 0);
    assert_int_equal(board_target_connections(b, 1), 4);
    free(b);
}

static void the_next_try_is_the_soonest_of_all_processes(void **state)
{
    (void)state;
    struct board *b = make();
    assert_true(isinf(board_target_retry(b, 0, NOW)));
    board_set_target(b, 0, "one:1", NOW + 8);
    assert_true(board_target_retry(b, 0, NOW) == 8);
    board_set_target(b, 1, "one:1", NOW + 4);
    assert_true(board_target_retry(b, 0, NOW) == 4);
    assert_true(board_target_retry(b, 0, NOW + 3) == 1);
    assert_true(board_target_retry(b, 0, NOW + 5) == 0); /* with the next client */
    board_set_target(b, 1, "one:1", 0);
    assert_true(board_target_retry(b, 0, NOW + 5) == 3);
    board_set_target(b, 0, "one:1", 0);
    assert_true(isinf(board_target_retry(b, 0, NOW)));
    assert_true(isinf(board_target_retry(b, 1, NOW)));
    assert_int_equal(board_target_failures(b, 0), 2);
    free(b);
}

/* Nothing is passed over then. */
static void while_all_are_down_each_client_tries_them(void **state)
{
    (void)state;
    struct board *b = make();
    board_set_target(b, 0, "one:1", NOW + 8);
    board_set_target(b, 1, "two:2", NOW + 9);
    assert_true(board_target_retry(b, 0, NOW) == 8); /* for each process there is another one */
    assert_true(board_target_retry(b, 1, NOW) == 9);
    board_set_target(b, 0, "two:2", NOW + 8);
    assert_true(board_target_retry(b, 0, NOW) == 0);
    assert_true(board_target_retry(b, 1, NOW) == 0);
    free(b);
}

static void what_an_ended_process_had_is_forgotten_but_counted(void **state)
{
    (void)state;
    struct board *b = make();
    board_set_target(b, 0, "two:2", NOW + 8);
    board_set_connections(b, 0, 0, 5);
    board_set_connections(b, 1, 0, 2);
    board_forget(b, 0);
    assert_true(isinf(board_target_retry(b, 1, NOW)));
    assert_int_equal(board_target_connections(b, 0), 2);
    assert_int_equal(board_target_failures(b, 1), 1);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connections_of_all_processes_are_added),
        cmocka_unit_test(the_next_try_is_the_soonest_of_all_processes),
        cmocka_unit_test(while_all_are_down_each_client_tries_them),
        cmocka_unit_test(what_an_ended_process_had_is_forgotten_but_counted),
    };
    return cmocka_run_group_tests_name("board", tests, NULL, NULL);
}
