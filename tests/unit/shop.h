/* shop.h - what the tests of children share: a spawner of shell scripts, and a look at a child that waits. */
#ifndef TEST_SHOP_H
#define TEST_SHOP_H

#include "../../core/child.h"
#include "harness.h"

enum { TEXT_BYTES = 64 * 1024, MANY_DESCRIPTORS = 300 };

struct shop {
    struct spawner *spawner;
    enum spawn_io io;
    char *argv[4];
    char lines[2 * TEXT_BYTES]; /* of standard error: "1:text|1:more|" */
    char failure[256];
    void (*inside)(struct iostream *); /* ends it when a line comes */
    void (*look)(void);                /* at a line, and a failure */
    struct party *party;
    struct tcpserver *server;
};
extern struct shop shop;
void on_stderr(void *arg, uint64_t id, const char *line, size_t length); /* arg: &shop */

int set_up_shop(void **);
#define SHOP_TEST(function, how)                                                    \
    {                                                                               \
#function "/" #how, function, set_up_shop, tear_down, (void *)(intptr_t)how \
    }
#define CHILD_TEST(function) SHOP_TEST(function, SPAWN_SOCKET), SHOP_TEST(function, SPAWN_PIPES)

void open_shop(const char *script, struct spawner_options);
void note_child(struct party *, const char *word); /* how it ended is the last word of the diary: exit:N, signal:N */
struct party *start_child(void);
struct party *run_script(const char *script, struct spawner_options);
void expect_answer(struct party *, const char *answer, const char *end);

/* A child that waits: its script begins with `echo $$`. */
extern const char waiting[];
pid_t learn_pid(struct party *);
size_t read_proc(pid_t, const char *name, char *bytes, size_t size); /* a file of /proc/PID; its length, since there may be NULs */
uint64_t read_signal_set(pid_t, const char *name);
void list_descriptors(pid_t, char *text, size_t size); /* "0 1 2" */
bool is_alive(pid_t);
void let_go(struct party *, const char *end);

#endif
