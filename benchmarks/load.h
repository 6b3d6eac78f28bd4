/* What the loads (load.c, net/load.c) have in common: sockets under one level-triggered epoll, the
 * clock, and how an error ends them. Each is one program of one file that includes this once.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>

/* The first member of a connection: an event's `data.ptr` is both. */
typedef struct {
    int fd;
    int wants_out; /* registered for writability: what is sent did not fit the socket's buffer */
    size_t sent;   /* bytes of the present request or message that the socket took */
} Link;

static int poller;

static void
fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static double
now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void
watch(Link *link, int operation, int out)
{
    struct epoll_event event = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = link};
    if (epoll_ctl(poller, operation, link->fd, &event) < 0) {
        fail("epoll_ctl: %s", strerror(errno));
    }
    link->wants_out = out;
}

/* Sends what is left of them; gives 1 when all are sent, else it is watched for room. */
static int
send_rest(Link *link, const char *bytes, size_t size)
{
    while (link->sent < size) {
        ssize_t n = send(link->fd, bytes + link->sent, size - link->sent, MSG_NOSIGNAL);
        if (n >= 0) {
            link->sent += (size_t)n;
        }
        else if (errno == EAGAIN) {
            if (!link->wants_out) {
                watch(link, EPOLL_CTL_MOD, 1);
            }
            return 0;
        }
        else if (errno != EINTR) {
            fail("send: %s", strerror(errno));
        }
    }
    if (link->wants_out) {
        watch(link, EPOLL_CTL_MOD, 0);
    }
    return 1;
}
