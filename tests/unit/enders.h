/* enders.h - one cell of a matrix: a world with one of everything that can be ended, in which a callback is provoked, the row; in there
 * the column's call is made. Then nothing may be left. */
#ifndef TEST_ENDERS_H
#define TEST_ENDERS_H

#include "site.h"

/* What ends something, and proves that it did. */
struct column {
    const char *name;
    void (*call)(void);
    bool calls_back; /* before it returns, as its contract says */
};
enum { COLUMNS = 13 };
extern const struct column columns[COLUMNS];

/* What is called back, and what makes it so. */
struct row {
    const char *name, *moment;        /* the row, and the callback as look_inside has it */
    void (*provoke)(void);            /* NULL: it comes by itself */
    struct tcpserver_options options; /* beside those of all */
    unsigned max_per_ip;
    bool over_tls;
    const char *script; /* that the spawner runs; NULL: true */
    unsigned warm;
    bool has_child; /* on a stream: the spawner is not to be freed */
};

struct dial {
    struct target *target;
    struct connecting *connecting;
};

extern struct cell {
    const struct row *row;
    const struct column *column;
    bool armed, done; /* the column's call is due, was made */
    bool calling;     /* is being made */
    struct iostream *stream;
    struct party *guest; /* whom the server has served before */
    struct shared *shared;
    unsigned places_left; /* when the server was freed ... */
    size_t told;          /* ... and how much it had said */
    struct accept_handler *acceptor;
    int door, caller;                     /* the acceptor's socket, and who is at it; or -1 */
    struct dial waiting, dialling, *dial; /* nobody answers the first; the row's own; the one to cancel */
    struct spawner *spawner;
    struct rlimit files; /* as it was before descriptors ran out */
    bool no_files;
} cell;

extern struct tls_context *tls_server, *tls_client; /* of a.test */
int open_cells(void **);                            /* for cmocka: once for all tests */
int close_cells(void **);
void play_cell(const struct row *, const struct column *);
void close_cell(void); /* of a cell that failed */
bool is_legal(const struct row *, const struct column *);

/* For rows. */
void in_callback_of(const char *moment, struct iostream *); /* NULL: it is about none */
iostream_cb on_secure;
void connect_to(struct dial *, const char *host, int port, struct tls_context *); /* NULL: plain */
void let_descriptors_run_out(void);                                               /* until the callback */
int port_at(int fd);

#endif
