/* privileges.c - gives up the rights of root, and the sight of most files.
 *
 * The root directory goes first, since changing it takes rights; then the groups, while there are rights to change them; the user last.
 * Each step is checked, and then that there is no way back. Who that is in numbers is asked at start: user data bases are files, too. */
#include "privileges.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "number.h"

/* ---- who that is ---- */

/* -1: it is none, or that of nobody. */
static long long id_number(const char *text)
{
    long long number = whole_number(text, 10);
    return number >= 0 && number < UINT32_MAX ? number : -1; /* the last one means "leave it" */
}

static int find_group(struct privileges *p, const char *name, struct errbuf *err)
{
    const struct group *group = getgrnam(name);
    long long number = id_number(name);
    if (!group && number < 0)
        return errbuf_set(err, "option --user: there is no group \"%s\" (getent group shows them)", name);
    p->gid = group ? group->gr_gid : (gid_t)number;
    return 0;
}

/* All of the user's, unless a group was named: then that one alone. */
static int find_groups(struct privileges *p, bool all, struct errbuf *err)
{
    p->group_count = 1;
    if (all && p->name) {
        gid_t one;
        getgrouplist(p->name, p->gid, &one, &p->group_count);
    }
    p->groups = calloc((size_t)p->group_count, sizeof *p->groups);
    if (!p->groups)
        return errbuf_set(err, "option --user: %s", strerror(errno));
    p->groups[0] = p->gid;
    if (all && p->name && getgrouplist(p->name, p->gid, p->groups, &p->group_count) < 0)
        return errbuf_set(err, "option --user: the groups of \"%s\" change just now", p->name);
    return 0;
}

static int find_user(struct privileges *p, const char *name, const char *group, struct errbuf *err)
{
    long long number = id_number(name);
    const struct passwd *user = getpwnam(name);
    if (!user && number >= 0)
        user = getpwuid((uid_t)number);
    if (!user && number < 0)
        return errbuf_set(err, "option --user: there is no user \"%s\" (getent passwd shows them)", name);
    if (!user && !group)
        return errbuf_set(err, "option --user: there is no user %s, whose group could be taken: give --user %s:GROUP", name, name);
    p->user = true;
    p->uid = user ? user->pw_uid : (uid_t)number;
    p->gid = user ? user->pw_gid : 0;
    if (user && (!(p->name = strdup(user->pw_name)) || !(p->home = strdup(user->pw_dir))))
        return errbuf_set(err, "option --user: %s", strerror(errno));
    if (p->uid == 0)
        return errbuf_set(err, "option --user: %s is root, who gives up nothing", name);
    if (group && find_group(p, group, err) != 0)
        return -1;
    return find_groups(p, !group, err);
}

static int find_user_and_group(struct privileges *p, const char *text, struct errbuf *err)
{
    const char *colon = strchr(text, ':');
    char *name = colon ? strndup(text, (size_t)(colon - text)) : strdup(text);
    int result = -1;
    if (!name)
        errbuf_set(err, "option --user: %s", strerror(errno));
    else if (!*name || (colon && !colon[1]))
        errbuf_set(err, "option --user: \"%s\" is not USER or USER:GROUP", text);
    else
        result = find_user(p, name, colon ? colon + 1 : NULL, err);
    free(name);
    return result;
}

/* ---- may we ---- */

struct capabilities {
    struct __user_cap_header_struct header;
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
};

static int get_capabilities(struct capabilities *c)
{
    *c = (struct capabilities){.header.version = _LINUX_CAPABILITY_VERSION_3};
    return (int)syscall(SYS_capget, &c->header, c->data);
}

static int need_capability(int number, const char *name, const char *option, struct errbuf *err)
{
    struct capabilities c;
    if (get_capabilities(&c) == 0 && c.data[CAP_TO_INDEX(number)].effective & CAP_TO_MASK(number))
        return 0;
    return errbuf_set(err, "option --%s: only root can do that (%s is missing)", option, name);
}

static int check_rights(const struct privileges *p, struct errbuf *err)
{
    if (p->root && need_capability(CAP_SYS_CHROOT, "CAP_SYS_CHROOT", "chroot", err) != 0)
        return -1;
    if (!p->user)
        return 0;
    if (need_capability(CAP_SETUID, "CAP_SETUID", "user", err) != 0 || need_capability(CAP_SETGID, "CAP_SETGID", "user", err) != 0)
        return -1;
    return need_capability(CAP_KILL, "CAP_KILL", "user", err); /* the supervisor signals processes of that user */
}

int privileges_find(struct privileges *p, const struct settings *settings, struct errbuf *err)
{
    *p = (struct privileges){.text = settings->user, .root = settings->root};
    if ((!settings->user || find_user_and_group(p, settings->user, err) == 0) && check_rights(p, err) == 0)
        return 0;
    privileges_release(p);
    return -1;
}

void privileges_release(struct privileges *p)
{
    free(p->groups);
    free(p->name);
    free(p->home);
    *p = (struct privileges){.root = NULL};
}

/* ---- there ---- */

static int enter_root(const char *root, struct errbuf *err)
{
    if (root && (chroot(root) != 0 || chdir("/") != 0))
        return errbuf_set(err, "option --chroot: \"%s\": %s", root, strerror(errno));
    return 0;
}

/* saved: what the way back takes; the same as the ids, if there is to be none. */
static int become(const struct privileges *p, uid_t saved_uid, gid_t saved_gid, struct errbuf *err)
{
    if (!p->user)
        return 0;
    if (setgroups((size_t)p->group_count, p->groups) != 0)
        return errbuf_set(err, "option --user: cannot take the groups of user %u: %s", p->uid, strerror(errno));
    if (setresgid(p->gid, p->gid, saved_gid) != 0)
        return errbuf_set(err, "option --user: cannot become group %u: %s", p->gid, strerror(errno));
    if (setresuid(p->uid, p->uid, saved_uid) != 0)
        return errbuf_set(err, "option --user: cannot become user %u: %s", p->uid, strerror(errno));
    return 0;
}

/* ---- and back ---- */

struct place {
    int root, directory; /* descriptors; -1: not to be gone back to */
    uid_t uid;
    gid_t gid;
    gid_t *groups;
    int group_count, dumpable, death_signal;
};

static void forget_place(struct place *place)
{
    if (place->root >= 0)
        close(place->root);
    if (place->directory >= 0)
        close(place->directory);
    free(place->groups);
}

/* The kernel resets two flags of the process along with the user. */
static int note_place(struct place *place, struct errbuf *err)
{
    *place = (struct place){.root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC),
                            .directory = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC),
                            .uid = geteuid(),
                            .gid = getegid(),
                            .group_count = getgroups(0, NULL),
                            .dumpable = prctl(PR_GET_DUMPABLE)};
    place->groups = calloc((size_t)place->group_count + 1, sizeof *place->groups);
    prctl(PR_GET_PDEATHSIG, &place->death_signal);
    if (place->groups && place->root >= 0 && place->directory >= 0 && getgroups(place->group_count, place->groups) >= 0)
        return 0;
    errbuf_set(err, "cannot try --user and --chroot: %s", strerror(errno));
    forget_place(place);
    return -1;
}

static int go_back(const struct privileges *p, const struct place *place)
{
    if (p->user && (setresuid(place->uid, place->uid, place->uid) != 0 || setresgid(place->gid, place->gid, place->gid) != 0 ||
                    setgroups((size_t)place->group_count, place->groups) != 0))
        return -1;
    prctl(PR_SET_DUMPABLE, place->dumpable);
    prctl(PR_SET_PDEATHSIG, place->death_signal);
    return p->root && (fchdir(place->root) != 0 || chroot(".") != 0 || fchdir(place->directory) != 0) ? -1 : 0;
}

/* What it says is true there, and perhaps nowhere else. */
static int act_there(const struct privileges *p, int (*act)(void *arg, struct errbuf *), void *arg, struct errbuf *err)
{
    struct errbuf why;
    if (act(arg, &why) == 0)
        return 0;
    return errbuf_set(err, "%s (%s%s%s%s%s)", why.text, p->user ? "as " : "", p->user ? p->text : "", p->user && p->root ? ", " : "",
                      p->root ? "below " : "", p->root ? p->root : "");
}

int privileges_rehearse(const struct privileges *p, int (*act)(void *arg, struct errbuf *), void *arg, struct errbuf *err)
{
    struct place place;
    if (!p->user && !p->root)
        return act(arg, err);
    if (note_place(&place, err) != 0)
        return -1;
    int result = enter_root(p->root, err);
    if (result == 0)
        result = become(p, place.uid, place.gid, err);
    if (result == 0)
        result = act_there(p, act, arg, err);
    if (go_back(p, &place) != 0)
        result = errbuf_set(err, "cannot go back from trying --user and --chroot: %s", strerror(errno));
    forget_place(&place);
    return result;
}

/* ---- for good ---- */

static int drop_capabilities(void)
{
    struct capabilities none = {.header.version = _LINUX_CAPABILITY_VERSION_3};
    return (int)syscall(SYS_capset, &none.header, none.data);
}

/* In any order: the kernel sorts them. */
static bool has_groups(const struct privileges *p)
{
    int count = getgroups(0, NULL);
    gid_t *groups = calloc((size_t)count + 1, sizeof *groups);
    bool same = groups && getgroups(count, groups) == p->group_count;
    for (int i = 0; same && i < count; i++) {
        bool known = false;
        for (int j = 0; j < p->group_count; j++)
            known |= groups[i] == p->groups[j];
        same = known;
    }
    free(groups);
    return same;
}

static int check_no_way_back(const struct privileges *p, struct errbuf *err)
{
    uid_t uids[3];
    gid_t gids[3];
    struct capabilities c;
    bool gone = getresuid(&uids[0], &uids[1], &uids[2]) == 0 && getresgid(&gids[0], &gids[1], &gids[2]) == 0 && has_groups(p) &&
                get_capabilities(&c) == 0;
    for (int i = 0; gone && i < 3; i++)
        gone = uids[i] == p->uid && gids[i] == p->gid;
    for (int i = 0; gone && i < _LINUX_CAPABILITY_U32S_3; i++)
        gone = (c.data[i].effective | c.data[i].permitted | c.data[i].inheritable) == 0;
    return gone && setuid(0) != 0 ? 0 : errbuf_set(err, "option --user: the rights of root are still there");
}

/* What a program takes for its user's. */
static int export_user(const struct privileges *p)
{
    if (!p->name)
        return unsetenv("HOME") | unsetenv("USER") | unsetenv("LOGNAME");
    return setenv("HOME", p->home, 1) | setenv("USER", p->name, 1) | setenv("LOGNAME", p->name, 1);
}

int privileges_give_up(const struct privileges *p, struct errbuf *err)
{
    pid_t parent = getppid();
    int death_signal = 0;
    if (enter_root(p->root, err) != 0)
        return -1;
    if (!p->user)
        return 0;
    prctl(PR_GET_PDEATHSIG, &death_signal);
    if (become(p, p->uid, p->gid, err) != 0)
        return -1;
    if (drop_capabilities() != 0 || export_user(p) != 0)
        return errbuf_set(err, "option --user: %s", strerror(errno));
    prctl(PR_SET_DUMPABLE, 0); /* programs of the same user are not to look for keys in here */
    prctl(PR_SET_PDEATHSIG, death_signal);
    if (death_signal && getppid() != parent) /* it died meanwhile */
        raise(death_signal);
    return check_no_way_back(p, err);
}
