/* The other floor: TCP echo in C on epoll itself, one thread, edge-triggered, receive then send.
 *
 * One receive buffer for all connections, and no memory of a connection but what its peer has not taken yet. The driver
 * has bound the process to its CPU. It ends with its stdin, like the others. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 1024, FILES = 1 << 20 };

static char received[64 * 1024];
static struct unsent {
  char *bytes;
  size_t count;
} unsent[FILES]; /* by descriptor */

static int check(int result) {
  if (result < 0) {
    perror("the epoll server");
    exit(1);
  }
  return result;
}

static void *until_end_of_stdin(void *nothing) {
  char byte;
  while (read(0, &byte, 1) > 0) {
  }
  exit(0);
  return nothing;
}

static int is_over(ssize_t result) { return result < 0 && errno != EAGAIN && errno != EINTR; }

static void hang_up(int fd) {
  free(unsent[fd].bytes);
  unsent[fd] = (struct unsent){0};
  close(fd);
}

/* Whether all that was kept back is out. */
static int flush(int fd) {
  struct unsent *rest = &unsent[fd];
  ssize_t sent = send(fd, rest->bytes, rest->count, MSG_NOSIGNAL);
  if (is_over(sent)) return -1;
  if (sent < 0) sent = 0;
  rest->count -= (size_t)sent;
  memmove(rest->bytes, rest->bytes + sent, rest->count);
  return rest->count == 0;
}

static int keep(int fd, const char *bytes, size_t count) {
  struct unsent *rest = &unsent[fd];
  rest->bytes = realloc(rest->bytes, count);
  if (rest->bytes == NULL) return -1;
  memcpy(rest->bytes, bytes, count);
  rest->count = count;
  return 0;
}

static void echo(int fd, unsigned events) {
  if (unsent[fd].count > 0) {
    int is_out = flush(fd);
    if (is_out < 0) hang_up(fd);
    if (is_out <= 0) return;
  }
  for (;;) {
    ssize_t count = recv(fd, received, sizeof received, 0);
    if (count == 0 || is_over(count)) {
      hang_up(fd);
      return;
    }
    if (count < 0) {
      if (errno == EINTR) continue;
      return;
    }
    ssize_t sent = send(fd, received, (size_t)count, MSG_NOSIGNAL);
    if (is_over(sent)) {
      hang_up(fd);
      return;
    }
    if (sent < count) {
      size_t done = sent > 0 ? (size_t)sent : 0;
      if (keep(fd, received + done, (size_t)count - done) < 0) hang_up(fd);
      return;
    }
    /* Room is left: what comes later makes a new edge, but for the end of the stream. */
    if ((size_t)count < sizeof received && !(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))) return;
  }
}

static void watch(int selector, int fd, unsigned events) {
  struct epoll_event event = {.events = events, .data.fd = fd};
  check(epoll_ctl(selector, EPOLL_CTL_ADD, fd, &event));
}

static void accept_all(int selector, int listener) {
  for (;;) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && errno == EAGAIN) return;
    if (fd < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
    check(fd);
    if (fd >= FILES) {
      close(fd);
      continue;
    }
    int on = 1;
    check(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
    watch(selector, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
  }
}

int main(void) {
  static struct epoll_event events[EVENTS];
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  pthread_t watcher;
  int selector = check(epoll_create1(EPOLL_CLOEXEC));
  int listener = check(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  check(bind(listener, (struct sockaddr *)&address, length));
  check(listen(listener, 1024));
  check(getsockname(listener, (struct sockaddr *)&address, &length));
  watch(selector, listener, EPOLLIN | EPOLLET);
  if (pthread_create(&watcher, NULL, until_end_of_stdin, NULL) != 0) check(-1);
  printf("listening 127.0.0.1:%d\n", ntohs(address.sin_port));
  fflush(stdout);
  for (;;) {
    int count = epoll_wait(selector, events, EVENTS, -1);
    if (count < 0 && errno == EINTR) continue;
    check(count);
    for (int i = 0; i < count; i++) {
      if (events[i].data.fd == listener)
        accept_all(selector, listener);
      else
        echo(events[i].data.fd, events[i].events);
    }
  }
}
