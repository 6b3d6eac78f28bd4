/* load: the other side of an echo server; keeps N connections busy with one message each.
 *
 * Usage: load tcp|udp|unix|connect|ws ADDRESS CONNECTIONS SIZE
 * ADDRESS is a port of 127.0.0.1, or a path.  It connects, sends one message over each connection
 * and prints "ready".  For every number M that comes on standard input it then has M messages of
 * SIZE bytes echoed, checks their length and content, and prints the wall seconds.  `connect` opens
 * no connection in advance: a "message" of its is a connection that the server greets with one byte
 * and that the client then closes.  `ws` speaks WebSocket to `/`: a message is one masked frame of SIZE
 * bytes of text, whose echo has to be one frame without a mask.  Ends with standard input; any error ends it with status 1.
 *
 * In C because it must outrun the servers: it is their CPU time that is measured, and a server that
 * waits for its load pays a poll and a wake-up per message instead of one per batch.
 * One thread, level-triggered epoll; datagrams that are lost end the run at its deadline.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <unistd.h>

#include "../load.h"

enum { MAX_CONNECTIONS = 10000, MAX_SIZE = 1 << 20, MAX_HEAD = 14, DEADLINE_S = 30 };

typedef enum { TCP, UDP, UNIX, CONNECT, WS } Mode;

typedef struct {
    Link link;
    size_t received; /* bytes of the present message */
} Connection;

static Mode mode;
static const char *address;
static size_t size, answer_size;
static char message[MAX_SIZE + MAX_HEAD], answer[MAX_SIZE + MAX_HEAD];
static char received[MAX_SIZE + MAX_HEAD];
static Connection *all;
static long connections;

/* The socket still blocks. */
static void
shake_hands(int fd)
{
    static const char request[] =
        "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    size_t there = 0;
    if (send(fd, request, sizeof request - 1, MSG_NOSIGNAL) != sizeof request - 1) {
        fail("send: %s", strerror(errno));
    }
    while (there < 4 || memcmp(received + there - 4, "\r\n\r\n", 4) != 0) {
        ssize_t n = recv(fd, received + there, sizeof received - 1 - there, 0);
        if (n <= 0) {
            fail("no handshake: %s", n == 0 ? "the server closed" : strerror(errno));
        }
        there += (size_t)n;
    }
    received[there] = '\0';
    if (strncmp(received, "HTTP/1.1 101", 12) != 0) {
        fail("no handshake: %.60s", received);
    }
}

/* Writes a frame's first byte and length (RFC 6455, 5.2); gives how much that was. */
static size_t
frame_head(char *frame, size_t length, int masked)
{
    int bytes = length < 126 ? 0 : length < 1 << 16 ? 2 : 8;
    frame[0] = (char)0x81; /* text, and all of it */
    frame[1] = (char)((masked ? 0x80 : 0) | (bytes == 0 ? (int)length : bytes == 2 ? 126 : 127));
    for (int i = 0; i < bytes; i++) {
        frame[2 + i] = (char)(length >> 8 * (bytes - 1 - i));
    }
    return (size_t)(2 + bytes);
}

/* What is sent, and what has to come back. */
static void
prepare_message(void)
{
    answer_size = size;
    if (mode != WS) {
        for (size_t i = 0; i < size; i++) {
            message[i] = answer[i] = (char)(i * 7 + i / 256);
        }
        return;
    }
    static const char mask[4] = {0x11, 0x22, 0x33, 0x44};
    size_t head = frame_head(message, size, 1), answer_head = frame_head(answer, size, 0);
    memcpy(message + head, mask, sizeof mask);
    head += sizeof mask;
    for (size_t i = 0; i < size; i++) {
        answer[answer_head + i] = (char)(' ' + (i * 7 + i / 256) % 95);
        message[head + i] = answer[answer_head + i] ^ mask[i % sizeof mask];
    }
    answer_size += answer_head;
    size += head;
}

static void
open_connection(Connection *connection)
{
    struct sockaddr_in internet = {.sin_family = AF_INET, .sin_port = htons(atoi(address))};
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr *to = (struct sockaddr *)&internet;
    socklen_t length = sizeof internet;
    internet.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (mode == UNIX) {
        strncpy(local.sun_path, address, sizeof local.sun_path - 1);
        to = (struct sockaddr *)&local;
        length = sizeof local;
    }
    int one = 1, kind = mode == UDP ? SOCK_DGRAM : SOCK_STREAM;
    connection->link.fd = socket(to->sa_family, kind | SOCK_CLOEXEC, 0);
    if (connection->link.fd < 0 || connect(connection->link.fd, to, length) < 0) {
        fail("cannot connect to %s: %s", address, strerror(errno));
    }
    if (mode == TCP || mode == CONNECT || mode == WS) {
        setsockopt(connection->link.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    if (mode == WS) {
        shake_hands(connection->link.fd);
    }
    fcntl(connection->link.fd, F_SETFL, O_NONBLOCK);
    connection->link.sent = connection->received = 0;
    watch(&connection->link, EPOLL_CTL_ADD, 0);
}

static void
begin(Connection *connection)
{
    if (mode == CONNECT) {
        open_connection(connection);
        return;
    }
    connection->link.sent = connection->received = 0;
    send_rest(&connection->link, message, size);
}

/* Gives 1 when the message is complete. */
static int
receive(Connection *connection)
{
    ssize_t n = recv(connection->link.fd, received, sizeof received, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return 0;
    }
    if (n <= 0) {
        fail("recv: %s", n == 0 ? "the server closed a connection" : strerror(errno));
    }
    if (mode == CONNECT) {
        close(connection->link.fd);
        return 1;
    }
    if (connection->received + (size_t)n > (mode == WS ? answer_size : connection->link.sent)) {
        fail("more came back than was sent");
    }
    if (memcmp(received, answer + connection->received, (size_t)n) != 0) {
        fail("other bytes came back than were sent");
    }
    connection->received += (size_t)n;
    return connection->received == answer_size;
}

static double
exchange(long messages)
{
    double start = now();
    long begun = 0, done = 0;
    for (; begun < connections && begun < messages; begun++) {
        begin(&all[begun]);
    }
    while (done < messages) {
        struct epoll_event events[256];
        int ready = epoll_wait(poller, events, 256, DEADLINE_S * 1000);
        if (ready == 0) {
            fail("no answer in %d s, %ld messages of %ld done", DEADLINE_S, done, messages);
        }
        for (int i = 0; i < ready; i++) {
            Connection *connection = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) {
                send_rest(&connection->link, message, size);
            }
            if (!(events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) || !receive(connection)) {
                continue;
            }
            done++;
            if (begun < messages) {
                begun++;
                begin(connection);
            }
        }
    }
    return now() - start;
}

int
main(int count, char **words)
{
    if (count != 5) {
        fail("usage: load tcp|udp|unix|connect|ws ADDRESS CONNECTIONS SIZE");
    }
    const char *modes[] = {"tcp", "udp", "unix", "connect", "ws"};
    while (mode < WS && strcmp(words[1], modes[mode]) != 0) {
        mode++;
    }
    address = words[2];
    connections = atol(words[3]);
    size = strtoul(words[4], NULL, 10);
    if (connections < 1 || connections > MAX_CONNECTIONS || size < 1 || size > MAX_SIZE) {
        fail("1 to %d connections, messages of 1 byte to 1 MiB", MAX_CONNECTIONS);
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    prepare_message();
    poller = epoll_create1(EPOLL_CLOEXEC);
    all = calloc((size_t)connections, sizeof *all);
    if (poller < 0 || all == NULL) {
        fail("set-up: %s", strerror(errno));
    }
    if (mode != CONNECT) {
        for (long i = 0; i < connections; i++) {
            open_connection(&all[i]);
        }
    }
    exchange(connections);
    puts("ready");
    fflush(stdout);
    long messages;
    while (scanf("%ld", &messages) == 1) {
        printf("%.6f\n", exchange(messages));
        fflush(stdout);
    }
    return 0;
}
