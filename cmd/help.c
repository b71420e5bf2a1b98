/* help.c - the option table as --help. */
#include "options.h"

#include <string.h>

enum { WIDTH = 79, TEXT_COLUMN = 30, LETTER_INDENT = 2, NAME_INDENT = 6 };

static const char usage[] = "Usage: hark [OPTION]... [--] [ARGUMENT]...\n"
                            "Serves TCP connections and unix sockets from the shell.\n"
                            "\n"
                            "Examples:\n"
                            "  hark -p 8888                                        sends back what it gets\n"
                            "  hark -p 8888 -b localhost -H exec sh -c 'date; id'  runs a program\n"
                            "  hark -p 8888 -H forward 127.0.0.1:80                passes connections on\n"
                            "  hark -p 8888 -H stdio --once --recv-only > file     receives a file\n";

static const char notes[] = "Options end at the first word that is not one. Sizes are 64k, 1M or 2G (powers of 1024). "
                            "Exit status: 0 done, 1 started and then failed, 2 did not start. More is in hark(1).";

const char *option_group_title(enum option_group group)
{
    static const char *const titles[OPTION_GROUPS] = {
        [GROUP_LISTENING] = "Listening",
        [GROUP_HANDLERS] = "Handlers",
        [GROUP_STREAMS] = "Streams, limits, access",
        [GROUP_TLS] = "TLS",
        [GROUP_SAYING] = "Saying and showing",
    };

    return titles[group];
}

const char *option_summary(const struct option *option, char *text, size_t size)
{
    if (option->initial)
        snprintf(text, size, "%s (default: %s)", option->help, option->initial);
    else
        snprintf(text, size, "%s", option->help);
    return text;
}

const char *option_typed(const struct option *option, char *text, size_t size)
{
    const char *argument = option->argument ? option->argument : "";

    if (argument[0] == '[')
        snprintf(text, size, "--%s[=%s", option->name, argument + 1);
    else
        snprintf(text, size, "--%s%s%s", option->name, argument[0] ? " " : "", argument);
    return text;
}

void print_wrapped(FILE *file, const char *text, int column, int indent, int width)
{
    bool first = true; /* on its line */

    while (*(text += strspn(text, " "))) {
        int length = (int)strcspn(text, " ");
        if (!first && column + 1 + length > width) {
            fprintf(file, "\n%*s", indent, "");
            column = indent;
            first = true;
        }
        column += fprintf(file, "%s%.*s", first ? "" : " ", length, text);
        text += length;
        first = false;
    }
    putc('\n', file);
}

/* What one types, and beside it, or below where that is too long, what it does. */
static void print_entry(FILE *file, int indent, const char *typed, const char *text)
{
    int column = fprintf(file, "%*s%s", indent, "", typed);

    if (column + 2 > TEXT_COLUMN) {
        putc('\n', file);
        column = 0;
    }
    fprintf(file, "%*s", TEXT_COLUMN - column, "");
    print_wrapped(file, text, TEXT_COLUMN, TEXT_COLUMN, WIDTH);
}

static void print_handlers(FILE *file)
{
    char typed[128], summary[256];

    for (const struct handler *const *handler = handlers; *handler; handler++) {
        snprintf(typed, sizeof(typed), "%s %s", (*handler)->name, (*handler)->arguments);
        snprintf(summary, sizeof(summary), "%s%s", (*handler)->summary, handler == handlers ? " (default)" : "");
        print_entry(file, NAME_INDENT, typed, summary);
    }
}

static void print_option(FILE *file, const struct option *option)
{
    char name[64], typed[80], letter[] = {'-', option->letter, ',', ' ', '\0'}, summary[256], text[512];

    snprintf(typed, sizeof(typed), "%s%s", option->letter ? letter : "", option_typed(option, name, sizeof(name)));
    option_summary(option, summary, sizeof(summary));
    snprintf(text, sizeof(text), "%s%s%s", option->handler ? option->handler : "", option->handler ? ": " : "", summary);
    print_entry(file, option->letter ? LETTER_INDENT : NAME_INDENT, typed, text);
    if (option->type == TYPE_HANDLER)
        print_handlers(file);
}

void options_help(FILE *file)
{
    const struct option *before = NULL;

    fputs(usage, file);
    for (const struct option *option = option_table; option->name; before = option++) {
        if (!before || before->group != option->group)
            fprintf(file, "\n%s:\n", option_group_title(option->group));
        print_option(file, option);
    }
    putc('\n', file);
    print_wrapped(file, notes, 0, 0, WIDTH);
}
