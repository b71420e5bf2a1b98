/* optdoc.c - writes what is made from the option table: optdoc mdoc|bash|zsh|fish. `make man` runs it, by completions/generate. */
#include "options.h"

#include <ctype.h>
#include <string.h>

static const char origin[] = "made from cmd/options.def by `make man`, do not edit";

/* ---- what the shells share ---- */

/* The words to choose a value from, "" where there are none. */
static const char *value_words(const struct option *option, char *text, size_t size)
{
    text[0] = '\0';
    if (option->type == TYPE_CHOICE) {
        snprintf(text, size, "%s", option->argument);
        for (char *bar = text; (bar = strchr(bar, '|'));)
            *bar = ' ';
    } else if (option->type == TYPE_HANDLER) {
        size_t length = 0;
        for (const struct handler *const *handler = handlers; *handler && length < size; handler++)
            length += (size_t)snprintf(text + length, size - length, "%s%s", length > 0 ? " " : "", (*handler)->name);
    }
    return text;
}

static bool is_path(const struct option *option)
{
    return option->type == TYPE_PATH || option->type == TYPE_FILE || option->type == TYPE_CERTIFICATE;
}

static bool value_is_optional(const struct option *option)
{
    return option->argument && option->argument[0] == '[';
}

/* Handlers whose arguments are a command line, as a pattern: exec|other. */
static void print_program_handlers(void)
{
    const char *separator = "";

    for (const struct handler *const *handler = handlers; *handler; handler++)
        if (strncmp((*handler)->arguments, "PROGRAM", strlen("PROGRAM")) == 0) {
            printf("%s%s", separator, (*handler)->name);
            separator = "|";
        }
}

/* text, with a backslash before each of the characters in special. */
static void print_escaped(const char *text, const char *special)
{
    for (; *text; text++) {
        if (strchr(special, *text))
            putchar('\\');
        putchar(*text);
    }
}

/* ---- the manual ---- */

/* Dashes stay dashes, and nothing is a request. */
static void print_roff(const char *text, size_t length)
{
    char line[2048];
    size_t used = 0;

    if (length > 0 && strchr(".'", text[0]))
        used += (size_t)snprintf(line, sizeof(line), "\\&");
    for (size_t i = 0; i < length && used + 3 < sizeof(line); i++) {
        if (strchr("-\\", text[i]))
            line[used++] = '\\';
        line[used++] = text[i] == '\\' ? 'e' : text[i];
    }
    line[used] = '\0';
    print_wrapped(stdout, line, 0, 0, 78);
}

/* The few words of help as a sentence. */
static void print_roff_sentence(const char *words)
{
    char text[512];
    int length = snprintf(text, sizeof(text), "%s.", words);

    text[0] = (char)toupper((unsigned char)text[0]);
    print_roff(text, (size_t)length);
}

static void print_roff_sentences(const char *lines)
{
    while (lines && *lines) {
        size_t length = strcspn(lines, "\n");
        print_roff(lines, length);
        lines += length + (lines[length] == '\n');
    }
}

static void print_roff_handlers(void)
{
    puts(".Bl -tag -width Ds -compact");
    for (const struct handler *const *handler = handlers; *handler; handler++) {
        printf(".It Cm %s%s%s\n", (*handler)->name, (*handler)->arguments[0] ? " Ar " : "", (*handler)->arguments);
        print_roff_sentence((*handler)->summary);
        if (handler == handlers)
            puts("The default.");
    }
    puts(".El");
}

static void print_roff_option(const struct option *option)
{
    char summary[512];

    printf(".It ");
    if (option->letter)
        printf("Fl %c , ", option->letter);
    if (value_is_optional(option))
        printf("Fl -%s Ns Op = Ns Ar %.*s\n", option->name, (int)strlen(option->argument) - 2, option->argument + 1);
    else
        printf("Fl -%s%s%s\n", option->name, option->argument ? " Ar " : "", option->argument ? option->argument : "");
    print_roff_sentence(option_summary(option, summary, sizeof(summary)));
    if (option->handler)
        printf("Only with\n.Fl -handler Cm %s .\n", option->handler);
    if (option->type == TYPE_HANDLER)
        print_roff_handlers();
    print_roff_sentences(option->manual);
}

static void write_mdoc(void)
{
    puts(".Sh OPTIONS");
    for (const struct option *option = option_table; option->name; option++) {
        if (option == option_table || option[-1].group != option->group)
            printf(".Ss %s\n.Bl -tag -width Ds\n", option_group_title(option->group));
        print_roff_option(option);
        if (!option[1].name || option[1].group != option->group)
            puts(".El");
    }
}

/* ---- bash ---- */

static const char bash_code[] = "    local cur=${COMP_WORDS[COMP_CWORD]} handler='' option='' ended='' i word\n"
                                "    COMPREPLY=()\n"
                                "    # What stands before: an option that waits for its value, or the end of the options?\n"
                                "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
                                "        word=${COMP_WORDS[i]}\n"
                                "        if [[ $word == '=' ]]; then\n"
                                "            continue # bash makes three words of --name=value\n"
                                "        elif [[ $option ]]; then\n"
                                "            [[ $option == -H || $option == --handler ]] && handler=$word\n"
                                "            option=\n"
                                "        elif [[ $word == -- ]]; then\n"
                                "            ended=1 && ((++i)) && break\n"
                                "        elif [[ $word != -?* ]]; then\n"
                                "            ended=1 && break\n"
                                "        elif [[ ${values[$word]+known} ]]; then\n"
                                "            option=$word\n"
                                "        fi\n"
                                "    done\n"
                                "    [[ $cur == '=' ]] && cur=\n"
                                "    if [[ $option && ${values[$option]} == FILE ]]; then\n"
                                "        compopt -o filenames 2>/dev/null\n"
                                "        mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
                                "    elif [[ $option ]]; then\n"
                                "        mapfile -t COMPREPLY < <(compgen -W \"${values[$option]}\" -- \"$cur\")\n"
                                "    elif [[ ! $ended && ($cur == -* || ! $handler =~ ^($programs)$) ]]; then\n"
                                "        mapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$cur\")\n"
                                "    elif [[ ! $handler =~ ^($programs)$ ]]; then\n"
                                "        return\n"
                                "    elif declare -F _command_offset >/dev/null; then\n"
                                "        _command_offset \"$i\" # of bash-completion: as if the program stood alone\n"
                                "    elif ((i == COMP_CWORD)); then\n"
                                "        mapfile -t COMPREPLY < <(compgen -c -- \"$cur\")\n"
                                "    else\n"
                                "        compopt -o filenames 2>/dev/null\n"
                                "        mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
                                "    fi\n"
                                "}\n"
                                "complete -F _hark hark\n";

static void print_bash_values(const struct option *option)
{
    char words[256];

    if (is_path(option))
        snprintf(words, sizeof(words), "FILE");
    else
        value_words(option, words, sizeof(words));
    if (option->letter)
        printf("        [-%c]='%s'\n", option->letter, words);
    printf("        [--%s]='%s'\n", option->name, words);
}

static void write_bash(void)
{
    printf("# bash completion for hark: %s\n_hark() {\n    local options='", origin);
    for (const struct option *option = option_table; option->name; option++)
        printf("%s--%s", option == option_table ? "" : " ", option->name);
    printf("'\n    local programs='");
    print_program_handlers();
    puts("' # handlers whose arguments are a command\n    local -A values=( # of the options that take one");
    for (const struct option *option = option_table; option->name; option++)
        if (option->argument && !value_is_optional(option))
            print_bash_values(option);
    puts("    )");
    fputs(bash_code, stdout);
}

/* ---- zsh ---- */

static void print_zsh_argument(const struct option *option)
{
    char words[256];

    printf("%s:%s:", value_is_optional(option) ? ":" : "", option->argument);
    if (is_path(option))
        printf("_files");
    else if (value_words(option, words, sizeof(words))[0])
        printf("(%s)", words);
    else
        putchar(' ');
}

static void print_zsh_option(const struct option *option)
{
    const char *next = option->argument ? "+" : "", *equals = value_is_optional(option) ? "=-" : option->argument ? "=" : "";

    printf("    ");
    if (option_repeats(option))
        printf("'*'");
    else if (option->letter)
        printf("'(-%c --%s)'", option->letter, option->name);
    if (option->letter)
        printf("{-%c%s,--%s%s}", option->letter, next, option->name, equals);
    else
        printf("--%s%s", option->name, equals);
    printf("'[");
    print_escaped(option->help, "[]:\\");
    putchar(']');
    if (option->argument)
        print_zsh_argument(option);
    puts("' \\");
}

static void write_zsh(void)
{
    printf("#compdef hark\n# zsh completion for hark: %s\n", origin);
    puts("local context state state_descr line\n"
         "typeset -A opt_args\n"
         "\n"
         "_arguments -s -S -A '-*' \\");
    for (const struct option *option = option_table; option->name; option++)
        print_zsh_option(option);
    puts("    '*::argument:->argument' && return\n"
         "\n"
         "# The words after the options are the handler's.\n"
         "case $state,${opt_args[-H]:-${opt_args[--handler]}} in");
    printf("    argument,(");
    print_program_handlers();
    puts(")) _normal ;;\n"
         "    *) return 1 ;;\n"
         "esac");
}

/* ---- fish ---- */

static void print_fish_option(const struct option *option)
{
    char words[256];

    printf("complete -c hark");
    if (option->letter)
        printf(" -s %c", option->letter);
    printf(" -l %s", option->name);
    if (is_path(option))
        printf(" -r -F");
    else if (option->argument && !value_is_optional(option))
        printf(" -x");
    if (value_words(option, words, sizeof(words))[0])
        printf(" -a '%s'", words);
    printf(" -d '");
    print_escaped(option->help, "'\\");
    puts("'");
}

static void write_fish(void)
{
    printf("# fish completion for hark: %s\n", origin);
    puts("complete -c hark -f");
    printf("complete -c hark -n 'string match -qr \"^(");
    print_program_handlers();
    puts(")\\$\" -- (commandline -opc)' -a '(__fish_complete_command)'");
    for (const struct option *option = option_table; option->name; option++)
        print_fish_option(option);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*write)(void);
    } formats[] = {{"mdoc", write_mdoc}, {"bash", write_bash}, {"zsh", write_zsh}, {"fish", write_fish}};

    for (size_t i = 0; argc == 2 && i < sizeof(formats) / sizeof(formats[0]); i++)
        if (strcmp(argv[1], formats[i].name) == 0) {
            formats[i].write();
            return fflush(stdout) == 0 ? 0 : 1;
        }
    fputs("usage: optdoc mdoc|bash|zsh|fish\n", stderr);
    return 2;
}
