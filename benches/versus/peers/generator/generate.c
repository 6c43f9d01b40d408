/* The floor of load generators: a closed loop over one edge-triggered epoll, nothing else.
 *
 * usage: generate PORT CONNECTIONS SECONDS
 *
 * Sends 64 bytes on each connection, compares the echo with them, sends again; one clock reading a request, because a
 * generator that knows no latency is none. No histogram, no timetable, no report: what loadgen costs beyond this is what
 * its figures cost. Prints requests, seconds, and seconds of CPU time.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 64, EVENTS = 1024, BUFFER = 4096, WAIT_MS = 50 };

struct connection {
    int fd, received;
    double sent;
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static double cpu(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
}

static void check(int is_well, const char *what) {
    if (!is_well) {
        perror(what);
        exit(1);
    }
}

static void send_request(struct connection *c, const char *request, double at) {
    c->sent = at;
    c->received = 0;
    check(send(c->fd, request, SIZE, MSG_NOSIGNAL) == SIZE, "send");
}

int main(int argc, char **argv) {
    check(argc == 4, "usage: generate PORT CONNECTIONS SECONDS");
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    int count = atoi(argv[2]), one = 1, ep = epoll_create1(0);
    double seconds = atof(argv[3]), slowest = 0;
    inet_pton(AF_INET, "127.0.0.1", &server.sin_addr);

    char request[SIZE], buffer[BUFFER];
    memset(request, 7, SIZE);
    struct connection *connections = calloc(count, sizeof *connections);
    check(connections != NULL, "calloc");
    for (int i = 0; i < count; i++) {
        struct connection *c = &connections[i];
        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        check(connect(c->fd, (struct sockaddr *)&server, sizeof server) == 0, "connect");
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        struct epoll_event interest = {.events = EPOLLIN | EPOLLET, .data.ptr = c};
        check(epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &interest) == 0, "epoll_ctl");
    }

    double begun = now(), cpu_begun = cpu();
    long requests = 0;
    for (int i = 0; i < count; i++)
        send_request(&connections[i], request, now());
    struct epoll_event events[EVENTS];
    double at = begun;
    while (at < begun + seconds) {
        int ready = epoll_wait(ep, events, EVENTS, WAIT_MS);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            ssize_t got = recv(c->fd, buffer, BUFFER, 0);
            check(got > 0 && c->received + got <= SIZE, "recv");
            check(memcmp(buffer, request + c->received, got) == 0, "an answer is not what was sent");
            c->received += got;
            if (c->received < SIZE)
                continue;
            at = now();
            if (at - c->sent > slowest)
                slowest = at - c->sent;
            requests++;
            send_request(c, request, at);
        }
        if (ready <= 0)
            at = now();
    }
    printf("%ld requests in %.6f s, %.6f s of CPU time, the slowest took %.6f s\n", requests, now() - begun,
           cpu() - cpu_begun, slowest);
    return 0;
}
