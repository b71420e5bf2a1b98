/* The command line. The input is its words, a line each. */
#include <string.h>

#include "../../cmd/options.h"
#include "fuzz.h"

enum { MAX_WORDS = 40 };

/* Whatever the words are, there is one sentence for the user, and what comes of them can be used. */
static void check(int status, const struct settings *s, const struct errbuf *err)
{
    if (status == OPTIONS_BAD) {
        must_be(*err->text && memchr(err->text, '\0', sizeof err->text));
        return;
    }
    if (status != OPTIONS_RUN)
        return;
    must_be(s->handler && s->handler_arguments);
    must_be(s->processes >= 0 && s->max_restarts >= 0 && s->backlog >= 0 && s->max_connections >= -1 && s->kill_after >= 0);
    must_be(s->max_buffer_bytes > 0);
    for (int i = 0; i < s->endpoint_count; i++)
        must_be(!s->endpoints[i].port != !s->endpoints[i].unix_path);
    for (int i = 0; i < s->bind_count; i++)
        must_be(s->binds[i] != NULL);
    must_be(!s->variables[s->variable_count]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *argv[MAX_WORDS + 2] = {"hark"}, *text = malloc(size + 1), *rest = text;
    int argc = 1;
    struct settings settings;
    struct errbuf err = {.text = ""};

    memcpy(text, data, size);
    text[size] = '\0';
    while (rest && argc <= MAX_WORDS)
        argv[argc++] = strsep(&rest, "\n");
    argv[argc] = NULL;
    check(options_parse(argc, argv, &settings, &err), &settings, &err);
    settings_release(&settings);
    free(text);
    return 0;
}
