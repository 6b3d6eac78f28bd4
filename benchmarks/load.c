/* load: keeps N connections busy with one request each, checks every answer.
 *
 * Usage: load PORT CONNECTIONS REQUESTS STATUS LENGTH < request
 * The request's bytes come from standard input.  Each connection (127.0.0.1, kept alive) sends it,
 * reads the whole response, and sends it again, until REQUESTS answers have come.  Prints the wall
 * seconds.  Any answer that is not STATUS with a body of LENGTH bytes ends it with exit status 1
 * and one line that says why.
 *
 * In C because it must outrun the servers: it is their CPU time that is measured, and a server
 * that waits for its load pays a poll and a wake-up per request instead of one per batch.
 * One thread, level-triggered epoll.
 *
 *   connection:  SENDING --all sent--> HEAD --blank line--> BODY --LENGTH bytes--> SENDING
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_LIMIT = 8192, REQUEST_LIMIT = 1 << 20, MAX_CONNECTIONS = 1024, DEADLINE_S = 60 };

typedef enum { SENDING, HEAD, BODY } State;

typedef struct {
    int fd;
    State state;
    size_t sent;      /* bytes of the request that the socket took; meaningful while SENDING */
    size_t head_size; /* bytes in `head`; meaningful while HEAD */
    size_t body_left; /* meaningful while BODY */
    int wants_out;    /* registered for writability: the request did not fit the socket's buffer */
    char head[HEAD_LIMIT + 1];
} Connection;

static char request[REQUEST_LIMIT];
static size_t request_size;
static char received[1 << 18];
static int want_status;
static size_t want_length;
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

static void
watch(Connection *connection, int operation, int out)
{
    struct epoll_event event = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = connection};
    if (epoll_ctl(poller, operation, connection->fd, &event) < 0) {
        fail("epoll_ctl: %s", strerror(errno));
    }
    connection->wants_out = out;
}

static void
open_connection(Connection *connection, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1;
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->fd < 0
        || connect(connection->fd, (struct sockaddr *)&address, sizeof address) < 0) {
        fail("cannot connect to port %d: %s", port, strerror(errno));
    }
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(connection->fd, F_SETFL, O_NONBLOCK);
    watch(connection, EPOLL_CTL_ADD, 0);
}

static void
continue_sending(Connection *connection)
{
    while (connection->sent < request_size) {
        ssize_t n = send(connection->fd, request + connection->sent,
                         request_size - connection->sent, MSG_NOSIGNAL);
        if (n >= 0) {
            connection->sent += (size_t)n;
        }
        else if (errno == EAGAIN) {
            if (!connection->wants_out) {
                watch(connection, EPOLL_CTL_MOD, 1);
            }
            return;
        }
        else if (errno != EINTR) {
            fail("send: %s", strerror(errno));
        }
    }
    if (connection->wants_out) {
        watch(connection, EPOLL_CTL_MOD, 0);
    }
    connection->state = HEAD;
    connection->head_size = 0;
}

static void
begin_request(Connection *connection)
{
    connection->state = SENDING;
    connection->sent = 0;
    continue_sending(connection);
}

/* Reads the status and the length; `head` is complete and ends with a zero byte. */
static void
check_head(Connection *connection)
{
    int status = 0;
    if (sscanf(connection->head, "HTTP/1.1 %d", &status) != 1 || status != want_status) {
        fail("status %d instead of %d: %.60s", status, want_status, connection->head);
    }
    for (char *line = strstr(connection->head, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, "content-length:", 15) == 0) {
            size_t length = strtoul(line + 17, NULL, 10);
            if (length != want_length) {
                fail("a body of %zu bytes instead of %zu", length, want_length);
            }
            return;
        }
    }
    fail("a response without Content-Length");
}

/* Takes `size` received bytes; gives 1 if they complete the response. */
static int
take(Connection *connection, const char *bytes, size_t size)
{
    if (connection->state == SENDING) {
        fail("an answer came before the request was sent");
    }
    if (connection->state == HEAD) {
        size_t room = HEAD_LIMIT - connection->head_size;
        size_t part = size < room ? size : room;
        memcpy(connection->head + connection->head_size, bytes, part);
        size_t before = connection->head_size;
        connection->head_size += part;
        connection->head[connection->head_size] = '\0';
        /* A blank line may straddle two reads. */
        char *end = strstr(connection->head + (before > 3 ? before - 3 : 0), "\r\n\r\n");
        if (end == NULL) {
            if (part < size || connection->head_size == HEAD_LIMIT) {
                fail("a response head over %d bytes", HEAD_LIMIT);
            }
            return 0;
        }
        end[2] = '\0';
        check_head(connection);
        size_t used = (size_t)(end + 4 - connection->head) - before;
        size -= used;
        connection->state = BODY;
        connection->body_left = want_length;
    }
    if (size > connection->body_left) {
        fail("%zu bytes after the response", size - connection->body_left);
    }
    connection->body_left -= size;
    return connection->body_left == 0;
}

/* Gives 1 if the response is complete. */
static int
continue_receiving(Connection *connection)
{
    ssize_t n = recv(connection->fd, received, sizeof received, 0);
    if (n > 0) {
        return take(connection, received, (size_t)n);
    }
    if (n == 0) {
        fail("the server closed a connection");
    }
    if (errno != EAGAIN && errno != EINTR) {
        fail("recv: %s", strerror(errno));
    }
    return 0;
}

static double
now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int
main(int count, char **words)
{
    if (count != 6) {
        fail("usage: load PORT CONNECTIONS REQUESTS STATUS LENGTH < request");
    }
    int port = atoi(words[1]);
    long connections = atol(words[2]), requests = atol(words[3]);
    want_status = atoi(words[4]);
    want_length = strtoul(words[5], NULL, 10);
    if (connections < 1 || connections > MAX_CONNECTIONS || requests < connections) {
        fail("1 to %d connections, and at least one request for each", MAX_CONNECTIONS);
    }
    request_size = fread(request, 1, sizeof request, stdin);
    if (request_size == 0 || !feof(stdin)) {
        fail("a request of 1 byte to under 1 MiB is expected on standard input");
    }
    alarm(DEADLINE_S); /* a server that stops answering ends the run, too */
    poller = epoll_create1(EPOLL_CLOEXEC);
    Connection *all = calloc((size_t)connections, sizeof *all);
    if (poller < 0 || all == NULL) {
        fail("set-up: %s", strerror(errno));
    }
    for (long i = 0; i < connections; i++) {
        open_connection(&all[i], port);
    }
    double start = now();
    long begun = 0, answered = 0;
    for (; begun < connections; begun++) {
        begin_request(&all[begun]);
    }
    while (answered < requests) {
        struct epoll_event events[256];
        int ready = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            Connection *connection = events[i].data.ptr;
            if (connection->state == SENDING && events[i].events & EPOLLOUT) {
                continue_sending(connection);
            }
            if (!(events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                || !continue_receiving(connection)) {
                continue;
            }
            answered++;
            if (begun < requests) {
                begun++;
                begin_request(connection);
            }
        }
    }
    printf("%.6f\n", now() - start);
    return 0;
}
