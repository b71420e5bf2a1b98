/* suggest.c - did you mean? */
#include "suggest.h"

#include "options.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* ---- the nearest name ---- */

enum { LONGEST_NAME = 31 };

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* How many letters have to be inserted, dropped, changed or swapped with the next one to make b of a. */
static int edit_distance(const char *a, size_t a_length, const char *b)
{
    int rows[3][LONGEST_NAME + 2];
    int *before = rows[0], *last = rows[1], *row = rows[2];
    size_t b_length = strlen(b);

    for (size_t j = 0; j <= b_length; j++)
        row[j] = (int)j;
    for (size_t i = 1; i <= a_length; i++) {
        int *oldest = before;
        before = last;
        last = row;
        row = oldest;
        row[0] = (int)i;
        for (size_t j = 1; j <= b_length; j++) {
            row[j] = least(least(last[j], row[j - 1]) + 1, last[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = least(row[j], before[j - 2] + 1);
        }
    }
    return row[b_length];
}

/* The best name so far for a word that is none. */
struct nearest {
    const char *word, *name;
    size_t length;
    int distance; /* what a better one has to stay below */
};

static struct nearest nearest_start(const char *word, size_t length)
{
    return (struct nearest){.word = word, .length = length, .distance = (int)length / 3 + 1};
}

static void nearest_try(struct nearest *nearest, const char *name)
{
    if (strlen(name) > LONGEST_NAME)
        return;
    bool abbreviated = nearest->length > 1 && strncmp(nearest->word, name, nearest->length) == 0;
    int longer = abs((int)nearest->length - (int)strlen(name)); /* so many letters differ at least */
    int distance = abbreviated ? 0 : longer < nearest->distance ? edit_distance(nearest->word, nearest->length, name) : longer;
    if (distance < nearest->distance) {
        nearest->distance = distance;
        nearest->name = name;
    }
}

static const char *nearest_option(const char *word, size_t length)
{
    struct nearest nearest = nearest_start(word, length);

    for (const struct option *option = option_table; option->name; option++)
        nearest_try(&nearest, option->name);
    return nearest.name;
}

/* ---- habits ---- */

struct habit {
    char letter;
    const char *name; /* without its dashes */
    bool needless;    /* it asks for what hark does anyway */
    const char *text; /* why, or what to type instead */
};

static const struct habit habits[] = {
    {'l', "listen", true, "hark always listens"},
    {'k', "keep-open", true, "hark serves until it is stopped"},
    {'n', "nodns", true, "hark never looks up the names of clients"},
    {'N', NULL, true, "hark passes on the end of each direction by itself"},
    {'R', NULL, true, "hark asks no one who the client is"},
    {'e', "exec", false, "type --handler exec PROGRAM [ARG]..., after all other options"},
    {'c', "sh-exec", false, "type --handler exec sh -c COMMAND, after all other options (to limit connections: --max-connections N)"},
    {'m', "max-conns", false, "type --max-connections N"},
    {'s', "source", false, "type --bind ADDRESS"},
    {'d', NULL, false, "type --handler stdio --recv-only"},
    {'1', NULL, false, "type --ready-fd 1, which writes the address, too"},
    {0, "daemon", false, "hark stays in the foreground; put & after it, or run it under systemd"},
    {'u', "udp", false, "hark serves TCP and unix sockets, not UDP"},
    {'w', "wait", false, "type --idle-timeout TIME (to stop waiting for connections: --exit-idle TIME)"},
    {'i', NULL, false, "type --idle-timeout TIME"},
    {'o', "output", false, "hark keeps no copy of what passes"},
    {'x', "hex-dump", false, "hark keeps no copy of what passes"},
    {'C', "crlf", false, "hark changes no byte of what passes"},
    {'t', "telnet", false, "hark changes no byte of what passes"},
    {'z', NULL, false, "hark only listens, and never scans"},
    {0, "allowfile", false, "type --allow @FILE"},
    {0, "denyfile", false, "type --deny @FILE"},
    {0, "haproxy-protocol", false, "type --proxy-protocol CIDR, with the proxy's address"},
    {0, "accept-proxy", false, "type --proxy-protocol CIDR, with the proxy's address"},
    {0, "send-proxy-v2", false, "type --send-proxy 2"},
    {0, "broker", false, "hark does not join clients with each other"},
    {0, "chat", false, "hark does not join clients with each other"},
    {0, "ssl", false, "type --ssl-cert FILE [--ssl-key FILE], or --ssl-self-signed for tests"},
    {0, "ssl-trustfile", false, "type --ssl-ca FILE"},
};

static const struct habit *habit_of_letter(char letter)
{
    for (size_t i = 0; i < sizeof(habits) / sizeof(habits[0]); i++)
        if (habits[i].letter && habits[i].letter == letter)
            return &habits[i];
    return NULL;
}

static const struct habit *habit_of_name(const char *name, size_t length)
{
    for (size_t i = 0; i < sizeof(habits) / sizeof(habits[0]); i++)
        if (habits[i].name && strlen(habits[i].name) == length && strncmp(habits[i].name, name, length) == 0)
            return &habits[i];
    return NULL;
}

/* ---- words where nc and tcpserver have them: [HOST] PORT [PROGRAM [ARG]...] ---- */

struct instead {
    char text[256]; /* what to type, "" if there is nothing to say */
};

static bool is_port(const char *word)
{
    size_t digits = word ? strspn(word, "0123456789") : 0;

    return digits > 0 && digits < 6 && word[digits] == '\0';
}

static struct instead instead_of_words(char *const *words)
{
    struct instead instead = {""};
    const char *host = "";

    if (words[0] && is_port(words[1]) && !is_port(words[0]) && words[0][0] != '-')
        host = *words++;
    else if (words[0] && is_port(words[1]) && strcmp(words[0], "0") == 0)
        words++; /* tcpserver's word for every interface */
    if (!is_port(words[0]))
        return instead;
    bool program = words[1] && words[1][0] != '-';
    snprintf(instead.text, sizeof(instead.text), "%s%s%s--port %s%s%s%s", host[0] ? "--bind " : "", host, host[0] ? " " : "", words[0],
             program ? " --handler exec " : "", program ? words[1] : "", program && words[2] ? " ..." : "");
    return instead;
}

/* What is left of a cluster such as -lvnp without its needless letters. */
static struct instead instead_of_cluster(const char *word)
{
    struct instead instead = {""};
    size_t length = 0;

    for (; *word && length + 1 < sizeof(instead.text); word++) {
        const struct habit *habit = habit_of_letter(*word);
        if (!habit || !habit->needless)
            instead.text[length++] = *word;
    }
    if (length == 1) /* the dash */
        length = 0;
    instead.text[length] = '\0';
    return instead;
}

static bool is_needless(const char *word)
{
    return word && word[0] == '-' && word[1] != '-' && word[1] && instead_of_cluster(word).text[0] == '\0';
}

/* As in -q 1 -p 80, where nc's -q takes a number: hark's does not, and its options end there. */
static bool port_follows(char *const *words)
{
    for (; *words; words++)
        if (strncmp(*words, "-p", 2) == 0 || strncmp(*words, "--port", 6) == 0)
            return true;
    return false;
}

int suggest_words(const char *handler, bool listening, char *const *words, struct errbuf *err)
{
    bool after = port_follows(words);
    struct instead instead = listening || after ? (struct instead){""} : instead_of_words(words);
    char problem[200];

    snprintf(problem, sizeof(problem), "unexpected argument \"%s\": handler %s takes none", words[0], handler);
    if (instead.text[0])
        return errbuf_set(err, "%s; type %s", problem, instead.text);
    if (handler_find(words[0]))
        return errbuf_set(err, "%s; type --handler %s", problem, words[0]);
    if (strcasestr(words[0], "-LISTEN:"))
        return errbuf_set(err, "%s; type --port PORT (or --unix PATH) and --handler NAME", problem);
    if (after)
        return errbuf_set(err, "%s, and options end there", problem);
    if (is_port(words[0]))
        return errbuf_set(err, "%s", problem);
    return errbuf_set(err, "%s; to run a program, type --handler exec %s", problem, words[0]);
}

/* ---- options ---- */

/* shown: the option as it was typed; kept: what is left to type of the word it was in. */
static int say_habit(const struct habit *habit, const char *shown, struct instead kept, char *const *rest, struct errbuf *err)
{
    if (!habit->needless)
        return errbuf_set(err, "unknown option %s: %s", shown, habit->text);
    if (!kept.text[0]) {
        while (is_needless(*rest))
            rest++;
        kept = instead_of_words(rest);
    }
    if (!kept.text[0])
        return errbuf_set(err, "option %s is not needed: %s", shown, habit->text);
    return errbuf_set(err, "option %s is not needed: %s; type %s", shown, habit->text, kept.text);
}

int suggest_long(const char *word, char *const *rest, struct errbuf *err)
{
    int length = (int)strcspn(word, "=");
    const struct habit *habit = habit_of_name(word + 2, (size_t)length - 2);
    const char *name = nearest_option(word + 2, (size_t)length - 2);
    char shown[64];

    snprintf(shown, sizeof(shown), "%.*s", length, word);
    if (habit)
        return say_habit(habit, shown, (struct instead){""}, rest, err);
    if (name)
        return errbuf_set(err, "unknown option %s (did you mean --%s?)", shown, name);
    return errbuf_set(err, "unknown option %s (hark --help lists them all)", shown);
}

int suggest_short(const char *word, const char *letter, char *const *rest, struct errbuf *err)
{
    const struct habit *habit = habit_of_letter(*letter);
    size_t length = strcspn(word + 1, "=");
    const char *name = length > 2 ? nearest_option(word + 1, length) : NULL;
    char shown[64];

    /* A long name behind one dash (-port, -listen) is no cluster of letters. */
    if (length > 1 && habit_of_name(word + 1, length))
        return say_habit(habit_of_name(word + 1, length), word, (struct instead){""}, rest, err);
    if (name)
        return errbuf_set(err, "unknown option %s (did you mean --%s?)", word, name);
    if (word[2] && isalnum((unsigned char)*letter))
        snprintf(shown, sizeof(shown), "-%c (in %s)", *letter, word);
    else
        snprintf(shown, sizeof(shown), "%s", word);
    if (habit)
        return say_habit(habit, shown, instead_of_cluster(word), rest, err);
    return errbuf_set(err, "unknown option %s (hark --help lists them all)", shown);
}

/* ---- handlers ---- */

int suggest_handler(const char *option, const char *name, struct errbuf *err)
{
    struct nearest nearest = nearest_start(name, strlen(name));
    char names[256] = "";
    size_t length = 0;

    for (const struct handler *const *handler = handlers; *handler && length < sizeof(names); handler++) {
        nearest_try(&nearest, (*handler)->name);
        length += (size_t)snprintf(names + length, sizeof(names) - length, "%s%s", length > 0 ? ", " : "", (*handler)->name);
    }
    if (nearest.name)
        return errbuf_set(err, "option --%s: \"%s\" is not a handler (did you mean %s?)", option, name, nearest.name);
    return errbuf_set(err, "option --%s: \"%s\" is not a handler (%s)", option, name, names);
}
