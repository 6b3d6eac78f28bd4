/* load: keeps N connections busy with one request each, checks every answer.
 *
 * Usage: load [-r RATE] PORT CONNECTIONS REQUESTS STATUS LENGTH [PHRASE] < request
 * The request's bytes come from standard input.  Each connection (127.0.0.1, kept alive) sends it,
 * reads the whole response, and sends it again, until REQUESTS answers have come.  Prints the wall
 * seconds.  Any answer that is not STATUS with a body of LENGTH bytes ends it with exit status 1
 * and one line that says why.  LENGTH may be `any`: then each head says how much comes, by
 * Content-Length or in chunks.  With PHRASE each response, head or body, has to contain it.
 *
 * With RATE there are so many requests per second, each due at its own time whether or not earlier
 * ones are answered, and each on the connection that has been idle longest.  Then the median, the
 * 99th and the 99.9th percentile of the latencies are printed, too, in µs: from when a request was
 * due, so that a server that stops for a while pays for all that should have come meanwhile.
 *
 * In C because it must outrun the servers: it is their CPU time that is measured, and a server
 * that waits for its load pays a poll and a wake-up per request instead of one per batch.
 * One thread, level-triggered epoll.
 *
 *   connection:  SENDING --all sent--> HEAD --blank line--> BODY --its length--> DONE --> SENDING
 *                                       |                                         ^
 *                                       |            .----------------------.     |
 *                                       v            v                      |     |
 *                                  CHUNK_SIZE --> CHUNK --its size--> CHUNK_END   |
 *                                       '--0--> TRAILER --blank line--------------'
 *   (CHUNK_END goes on to CHUNK_SIZE)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <strings.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "load.h"

enum { HEAD_LIMIT = 8192, REQUEST_LIMIT = 1 << 20, MAX_CONNECTIONS = 1024, DEADLINE_S = 60 };

#define ANY_LENGTH ((size_t)-1)

typedef enum { SENDING, HEAD, BODY, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER, DONE } State;

typedef struct {
    Link link; /* `sent` is meaningful while SENDING */
    State state;
    size_t head_size; /* bytes in `head`; meaningful while HEAD */
    size_t body_left; /* of the body or the chunk; while CHUNK_SIZE the digits read so far */
    size_t line_size; /* bytes of the line so far; meaningful while CHUNK_SIZE and TRAILER */
    size_t matched;   /* bytes of the phrase that came last; all of them once it was found */
    double due;       /* when its request should have been sent; meaningful with a rate */
    char head[HEAD_LIMIT + 1];
} Connection;

static char request[REQUEST_LIMIT];
static size_t request_size;
static char received[1 << 18];
static int want_status;
static size_t want_length;
static const char *phrase = "";
static size_t phrase_size;
static size_t *fallback; /* Knuth, Morris, Pratt: where to go on in the phrase at a mismatch */
static Connection *all;
static long connections, requests;

static void
open_connection(Connection *connection, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1;
    connection->link.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->link.fd < 0
        || connect(connection->link.fd, (struct sockaddr *)&address, sizeof address) < 0) {
        fail("cannot connect to port %d: %s", port, strerror(errno));
    }
    setsockopt(connection->link.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(connection->link.fd, F_SETFL, O_NONBLOCK);
    watch(&connection->link, EPOLL_CTL_ADD, 0);
}

static void
continue_sending(Connection *connection)
{
    if (!send_rest(&connection->link, request, request_size)) {
        return;
    }
    connection->state = HEAD;
    connection->head_size = 0;
}

static void
begin_request(Connection *connection)
{
    connection->state = SENDING;
    connection->link.sent = 0;
    continue_sending(connection);
}

static void
prepare_phrase(const char *words)
{
    phrase = words;
    phrase_size = strlen(words);
    fallback = calloc(phrase_size + 1, sizeof *fallback);
    if (fallback == NULL) {
        fail("set-up: %s", strerror(errno));
    }
    for (size_t i = 1, matched = 0; i < phrase_size; i++) {
        while (matched > 0 && phrase[i] != phrase[matched]) {
            matched = fallback[matched];
        }
        matched += phrase[i] == phrase[matched];
        fallback[i + 1] = matched;
    }
}

/* The phrase may straddle reads and chunks, so it is looked for byte by byte. */
static void
look_for_phrase(Connection *connection, const char *bytes, size_t size)
{
    size_t matched = connection->matched;
    for (size_t i = 0; i < size && matched < phrase_size; i++) {
        while (matched > 0 && bytes[i] != phrase[matched]) {
            matched = fallback[matched];
        }
        matched += bytes[i] == phrase[matched];
    }
    connection->matched = matched;
}

/* Reads the status and how much comes; `head` is complete and ends with a zero byte. */
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
            if (want_length != ANY_LENGTH && length != want_length) {
                fail("a body of %zu bytes instead of %zu", length, want_length);
            }
            connection->body_left = length;
            connection->state = length > 0 ? BODY : DONE;
            return;
        }
        if (want_length == ANY_LENGTH && strncasecmp(line + 2, "transfer-encoding:", 18) == 0) {
            connection->body_left = connection->line_size = 0;
            connection->state = CHUNK_SIZE;
            return;
        }
    }
    fail("a response without Content-Length");
}

/* Takes what belongs to the head; gives how much that was. */
static size_t
take_head(Connection *connection, const char *bytes, size_t size)
{
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
        return size;
    }
    end[2] = '\0';
    connection->matched = 0;
    look_for_phrase(connection, connection->head, (size_t)(end - connection->head));
    check_head(connection);
    return (size_t)(end + 4 - connection->head) - before;
}

static int
hex_digit(char byte)
{
    if ('0' <= byte && byte <= '9') {
        return byte - '0';
    }
    byte |= 0x20; /* lower case */
    return 'a' <= byte && byte <= 'f' ? byte - 'a' + 10 : -1;
}

/* One byte of a chunk's frame. */
static void
take_frame(Connection *connection, char byte)
{
    if (byte != '\n') {
        int digit = hex_digit(byte);
        if (connection->state == CHUNK_SIZE && digit >= 0) {
            if (connection->body_left >> 24) {
                fail("a chunk of over 256 MiB");
            }
            connection->body_left = connection->body_left << 4 | (size_t)digit;
        }
        else if (byte != '\r' && connection->state != TRAILER) {
            fail("byte %d where a chunk's frame is", byte);
        }
        connection->line_size += byte != '\r';
        return;
    }
    if (connection->state == CHUNK_SIZE) {
        if (connection->line_size == 0) {
            fail("a chunk without a size");
        }
        connection->state = connection->body_left > 0 ? CHUNK : TRAILER;
    }
    else if (connection->state == CHUNK_END) {
        connection->state = CHUNK_SIZE;
        connection->body_left = 0;
    }
    else if (connection->line_size == 0) {
        connection->state = DONE;
    }
    connection->line_size = 0;
}

/* Takes `size` received bytes; gives 1 if they complete the response. */
static int
take(Connection *connection, const char *bytes, size_t size)
{
    const char *end = bytes + size;
    if (connection->state == SENDING) {
        fail("an answer came before the request was sent");
    }
    if (connection->state == HEAD) {
        bytes += take_head(connection, bytes, size);
    }
    while (bytes < end && connection->state != DONE) {
        if (connection->state != BODY && connection->state != CHUNK) {
            take_frame(connection, *bytes++);
            continue;
        }
        size_t there = (size_t)(end - bytes);
        size_t part = there < connection->body_left ? there : connection->body_left;
        look_for_phrase(connection, bytes, part);
        bytes += part;
        connection->body_left -= part;
        if (connection->body_left == 0) {
            connection->state = connection->state == BODY ? DONE : CHUNK_END;
        }
    }
    if (bytes < end) {
        fail("%zu bytes after the response", (size_t)(end - bytes));
    }
    if (connection->state == DONE && connection->matched < phrase_size) {
        fail("a response without '%s'", phrase);
    }
    return connection->state == DONE;
}

/* Gives 1 if the response is complete. */
static int
continue_receiving(Connection *connection)
{
    ssize_t n = recv(connection->link.fd, received, sizeof received, 0);
    if (n > 0) {
        return take(connection, received, (size_t)n);
    }
    if (n == 0 && connection->state == DONE) {
        close(connection->link.fd); /* it has no request left, and the others take their time */
        return 0;
    }
    if (n == 0) {
        fail("the server closed a connection");
    }
    if (errno != EAGAIN && errno != EINTR) {
        fail("recv: %s", strerror(errno));
    }
    return 0;
}

/* Gives 1 if the connection's response is complete. */
static int
serve(struct epoll_event *event)
{
    Connection *connection = event->data.ptr;
    if (connection->state == SENDING && event->events & EPOLLOUT) {
        continue_sending(connection);
    }
    return event->events & (EPOLLIN | EPOLLHUP | EPOLLERR) && continue_receiving(connection);
}

static void
keep_busy(void)
{
    long begun = 0, answered = 0;
    for (; begun < connections; begun++) {
        begin_request(&all[begun]);
    }
    while (answered < requests) {
        struct epoll_event events[256];
        int ready = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            if (!serve(&events[i])) {
                continue;
            }
            answered++;
            if (begun < requests) {
                begun++;
                begin_request(events[i].data.ptr);
            }
        }
    }
}

static int
by_size(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

/* Rings when it is `when`, in seconds of the monotonic clock.  Not before: a tick that came some
 * microseconds early found nothing due, and the request began with the next one's tick. */
static void
ring_at(int timer, double when)
{
    struct itimerspec at = {.it_value = {.tv_sec = (time_t)when}};
    at.it_value.tv_nsec = (long)((when - (double)at.it_value.tv_sec) * 1e9) + 1000;
    if (at.it_value.tv_nsec > 999999999) {
        at.it_value.tv_sec++;
        at.it_value.tv_nsec -= 1000000000;
    }
    if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL) < 0) {
        fail("set-up: %s", strerror(errno));
    }
}

/* Gives the latencies in order, in seconds. */
static double *
keep_pace(double rate)
{
    double *latencies = calloc((size_t)requests, sizeof *latencies);
    Connection **idle = calloc((size_t)connections, sizeof *idle); /* a ring */
    long first = 0, idling = connections, begun = 0, answered = 0;
    for (long i = 0; i < connections && idle != NULL; i++) {
        idle[i] = &all[i];
    }
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (latencies == NULL || idle == NULL || timer < 0
        || epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event) < 0) {
        fail("set-up: %s", strerror(errno));
    }
    double start = now();
    while (answered < requests) {
        for (; begun < requests && idling > 0 && start + (double)begun / rate <= now(); begun++) {
            Connection *connection = idle[first];
            first = (first + 1) % connections;
            idling--;
            connection->due = start + (double)begun / rate;
            begin_request(connection);
        }
        if (begun < requests && idling > 0) {
            ring_at(timer, start + (double)begun / rate);
        }
        struct epoll_event events[256];
        int ready = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            unsigned long long ticks;
            Connection *connection = events[i].data.ptr;
            if (connection == NULL) {
                (void)!read(timer, &ticks, sizeof ticks);
            }
            else if (serve(&events[i])) {
                latencies[answered++] = now() - connection->due;
                idle[(first + idling++) % connections] = connection;
            }
        }
    }
    qsort(latencies, (size_t)requests, sizeof *latencies, by_size);
    return latencies;
}

int
main(int count, char **words)
{
    double rate = 0;
    if (count > 2 && strcmp(words[1], "-r") == 0) {
        rate = atof(words[2]);
        words += 2;
        count -= 2;
        if (!(rate >= 1 && rate <= 1e6)) {
            fail("a rate of 1 to 1000000 requests per second");
        }
    }
    if (count != 6 && count != 7) {
        fail("usage: load [-r RATE] PORT CONNECTIONS REQUESTS STATUS LENGTH [PHRASE] < request");
    }
    int port = atoi(words[1]);
    connections = atol(words[2]);
    requests = atol(words[3]);
    want_status = atoi(words[4]);
    want_length = strcmp(words[5], "any") == 0 ? ANY_LENGTH : strtoul(words[5], NULL, 10);
    prepare_phrase(count == 7 ? words[6] : "");
    if (connections < 1 || connections > MAX_CONNECTIONS || requests < connections) {
        fail("1 to %d connections, and at least one request for each", MAX_CONNECTIONS);
    }
    request_size = fread(request, 1, sizeof request, stdin);
    if (request_size == 0 || !feof(stdin)) {
        fail("a request of 1 byte to under 1 MiB is expected on standard input");
    }
    alarm(DEADLINE_S); /* a server that stops answering ends the run, too */
    poller = epoll_create1(EPOLL_CLOEXEC);
    all = calloc((size_t)connections, sizeof *all);
    if (poller < 0 || all == NULL) {
        fail("set-up: %s", strerror(errno));
    }
    for (long i = 0; i < connections; i++) {
        open_connection(&all[i], port);
    }
    double start = now();
    if (rate == 0) {
        keep_busy();
        printf("%.6f\n", now() - start);
        return 0;
    }
    double *latencies = keep_pace(rate);
    printf("%.6f %.1f %.1f %.1f\n", now() - start, latencies[requests / 2] * 1e6,
           latencies[requests * 99 / 100] * 1e6, latencies[requests * 999 / 1000] * 1e6);
    return 0;
}
