/* The byte queue, against a model, and its promise to own memory only while it holds bytes. */
#include "harness.h"

enum { STEPS = 20000, BIGGEST_PIECE = 3000, MODEL_BYTES = 256 * 1024 };

static void assert_holds(const struct buffer *b, const char *bytes, size_t length)
{
    assert_int_equal(buffer_length(b), length);
    if (length > 0)
        assert_memory_equal(buffer_bytes(b), bytes, length);
}

static void gives_back_what_it_got_in_order(void **state)
{
    (void)state;
    struct buffer b = {0};
    assert_int_equal(buffer_append(&b, "one ", 4), 0);
    assert_int_equal(buffer_append(&b, "two ", 4), 0);
    assert_holds(&b, "one two ", 8);
    buffer_consume(&b, 3);
    assert_holds(&b, " two ", 5);
    assert_int_equal(buffer_append(&b, "three", 5), 0);
    assert_holds(&b, " two three", 10);
    buffer_release(&b);
    assert_holds(&b, "", 0);
}

static void owns_memory_only_while_it_holds_bytes(void **state)
{
    (void)state;
    struct buffer b = {0};
    assert_int_equal(buffer_append(&b, "", 0), 0);
    assert_null(b.block);
    assert_int_equal(buffer_append(&b, "abc", 3), 0);
    assert_non_null(b.block);
    buffer_consume(&b, 0);
    assert_holds(&b, "abc", 3);
    buffer_consume(&b, 3);
    assert_null(b.block);
    buffer_consume(&b, 0); /* of nothing */
    buffer_release(&b);    /* twice is once */
    buffer_release(&b);
}

/* Random pieces in and out; the model is one long row of bytes, of which [out, in) are in the buffer. */
static void agrees_with_a_model(void **state)
{
    (void)state;
    static char model[MODEL_BYTES];
    struct buffer b = {0};
    size_t in = 0, out = 0, most = 0;
    unsigned seed = 1;
    pattern(model, sizeof model, 0);
    for (int i = 0; i < STEPS; i++) {
        size_t piece = (size_t)rand_r(&seed) % BIGGEST_PIECE;
        if (rand_r(&seed) % 2 && in + piece <= sizeof model) {
            assert_int_equal(buffer_append(&b, model + in, piece), 0);
            in += piece;
        } else {
            piece = piece < in - out ? piece : in - out;
            buffer_consume(&b, piece);
            out += piece;
        }
        assert_holds(&b, model + out, in - out);
        most = buffer_length(&b) > most ? buffer_length(&b) : most;
        assert_true(!b.block || b.block->capacity <= 4 * most + 512);
        if (in == sizeof model && in == out)
            in = out = 0;
    }
    assert_true(most > BIGGEST_PIECE);
    buffer_release(&b);
}

/* A queue that never runs empty must not grow with what has passed through it. */
static void reuses_the_room_in_front(void **state)
{
    (void)state;
    struct buffer b = {0};
    char piece[100];
    pattern(piece, sizeof piece, 0);
    assert_int_equal(buffer_append(&b, piece, sizeof piece), 0);
    for (int i = 0; i < STEPS; i++) {
        assert_int_equal(buffer_append(&b, piece, sizeof piece), 0);
        buffer_consume(&b, sizeof piece);
        assert_holds(&b, piece, sizeof piece);
    }
    assert_true(b.block->capacity <= 1024);
    buffer_release(&b);
}

static void is_unchanged_by_what_it_cannot_hold(void **state)
{
    (void)state;
    struct buffer b = {0};
    volatile size_t too_much = SIZE_MAX - 1; /* volatile: or the compiler knows better */
    assert_int_equal(buffer_append(&b, "abc", 3), 0);
    errno = 0;
    assert_int_equal(buffer_append(&b, "", too_much), -1);
    assert_int_equal(errno, ENOMEM);
    assert_holds(&b, "abc", 3);
    buffer_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_back_what_it_got_in_order),
        cmocka_unit_test(owns_memory_only_while_it_holds_bytes),
        cmocka_unit_test(agrees_with_a_model),
        cmocka_unit_test(reuses_the_room_in_front),
        cmocka_unit_test(is_unchanged_by_what_it_cannot_hold),
    };
    return cmocka_run_group_tests_name("buffer", tests, NULL, NULL);
}
