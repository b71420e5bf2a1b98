/* listener.c - the end of a listening socket, without a reset for anyone whom the kernel has let in.
 *
 * Once closed, it resets who waits in its backlog, and who has an answer to his SYN and is about to send the last packet of the
 * handshake. So first packets are dropped before anything else, which leaves those clients to try again. */
#include <linux/filter.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <unistd.h>

#include "internal.h"

void listener_let_nobody_in(int fd)
{
    enum { FLAGS = 13, SYN = 0x02, ACK = 0x10 }; /* of a TCP header, RFC 9293 */
    struct sock_filter drop_first_packets[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, FLAGS),      BPF_STMT(BPF_ALU | BPF_AND | BPF_K, SYN | ACK),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYN, 0, 1), BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
    };
    const struct sock_fprog program = {.len = sizeof drop_first_packets / sizeof *drop_first_packets, .filter = drop_first_packets};
    struct sockaddr_storage own = {0};
    socklen_t length = sizeof own;

    if (getsockname(fd, (struct sockaddr *)&own, &length) == 0 && own.ss_family == AF_UNIX)
        shutdown(fd, SHUT_RD); /* connect(2) is refused from now on, and who has connected can be accepted */
    else
        setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

/* Asks for sockets of that port in the state SYN_RECV; the answer comes in the same system call. */
static bool ask_for_handshakes(int netlink, const struct sockaddr *own)
{
    enum { STATE_SYN_RECV = 3 };
    struct {
        struct nlmsghdr header;
        struct inet_diag_req_v2 request;
    } question = {.header = {.nlmsg_len = sizeof question, .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
                  .request = {.sdiag_family = (uint8_t)own->sa_family,
                              .sdiag_protocol = IPPROTO_TCP,
                              .idiag_states = 1 << STATE_SYN_RECV,
                              .id.idiag_sport = htons((in_port_t)address_port(own))}};
    union {
        struct nlmsghdr header;
        char bytes[16 * 1024];
    } answer;
    if (send(netlink, &question, sizeof question, 0) != sizeof question)
        return false;
    ssize_t length = recv(netlink, &answer, sizeof answer, MSG_DONTWAIT);
    return length >= (ssize_t)sizeof answer.header && answer.header.nlmsg_type == SOCK_DIAG_BY_FAMILY;
}

bool listener_has_handshakes(int fd)
{
    struct sockaddr_storage own = {0};
    socklen_t length = sizeof own;
    if (getsockname(fd, (struct sockaddr *)&own, &length) != 0 || own.ss_family == AF_UNIX)
        return false;
    int netlink = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (netlink < 0)
        return false;
    bool some = ask_for_handshakes(netlink, (struct sockaddr *)&own);
    close(netlink);
    return some;
}
