/* scenes.h - what hark does for its users, in short: scenarios to be played while something fails. Each has a loop and descriptors of its
 * own, of which nothing may be left, and looks whether too much came of the trouble: more than one connection ended, the next one was
 * not served, a constructor failed without a sentence. */
#ifndef TEST_SCENES_H
#define TEST_SCENES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

#include "../../core/internal.h"

extern struct trouble {
    bool on;       /* things may fail now */
    bool hit;      /* something has */
    bool harmless; /* what nobody may notice */
} trouble;

struct scene {
    const char *name;
    void (*play)(void);
    bool caches; /* OpenSSL keeps what it likes for later: only LeakSanitizer can tell that from what is lost */
};
enum { SCENES = 11, TURNS = 2000 };
extern const struct scene scenes[SCENES];
void play_scene(void (*play)(void), bool in_trouble);

/* For scenes of one test alone. */
struct ev_loop *scene_loop(void);
int serve_relay(struct iostream *);
struct tcpserver *open_server(int (*serve)(struct iostream *), const struct tcpserver_options *,
                              struct errbuf *); /* NULL: it is said why */
int dial(void);
bool talk(int fd); /* it is answered, and not cut off */

#endif
