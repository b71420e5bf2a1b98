/* start.c - the ways to start a server: listen, or bind and start. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "tcpserver.h"

enum { MAX_ADDRESSES = 64 }; /* of one host name */

static unsigned port_of(int fd)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &length) != 0)
        return 0;
    return address_port((struct sockaddr *)&address);
}

int tcpserver_bind(struct tcpserver *server, const char *host, const char *port, const struct bind_options *options, struct errbuf *err)
{
    int fds[MAX_ADDRESSES];
    int count = bind_sockets(host, port, options, fds, MAX_ADDRESSES, err);
    if (count < 0)
        return -1;
    int bound = (int)port_of(fds[0]);
    if (bound == 0) {
        errbuf_set(err, "cannot tell which port was bound: %s", strerror(errno));
        while (count > 0)
            close(fds[--count]);
        return -1;
    }
    for (int i = 0; i < count; i++) {
        if (tcpserver_add_socket(server, fds[i], err) == 0)
            continue;
        while (i < count)
            close(fds[i++]);
        return -1;
    }
    return bound;
}

int tcpserver_listen(struct tcpserver *server, const char *host, const char *port, const struct bind_options *options, struct errbuf *err)
{
    if (!server->loop)
        return errbuf_set(err, "cannot listen: the server was made without a loop (bind and start it)");
    return tcpserver_bind(server, host, port, options, err);
}

static int start_here(struct tcpserver *server, struct errbuf *err)
{
    struct listener *listener;
    if (!server->loop) {
        struct ev_loop *loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
        if (!loop)
            return errbuf_set(err, "cannot make an event loop: %s", strerror(errno));
        server->own_loop = true;
        if (tcpserver_set_loop(server, loop, err) != 0) {
            ev_loop_destroy(loop);
            return -1;
        }
    }
    LIST_FOREACH (listener, &server->listeners, entry) {
        if (!listener->handler && tcpserver_accept_from(listener, err) != 0)
            return -1;
    }
    return 0;
}

int tcpserver_start(struct tcpserver *server, int processes, int max_restarts, int *exit_status, struct errbuf *err)
{
    int task = 0;
    *exit_status = 1;
    errbuf_set(err, "%s", "");
    if (processes != 1 && server->loop)
        return errbuf_set(err, "cannot fork: the server has a loop already (make it without one)");
    if (processes != 1) {
        if (admission_share(&server->admission, processes ? processes : cpu_count(), err) != 0)
            return -1;
        struct fork_options options = {.max_restarts = max_restarts, .shared = server->admission.shared};
        task = fork_processes(processes, &options, exit_status);
        if (task < 0)
            return -1;
    }
    if (start_here(server, err) != 0)
        return -1;
    fork_ready();
    return task;
}
