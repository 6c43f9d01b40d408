/* The libuv server: one loop, echo over TCP or UDP.
 *
 * One receive buffer for all connections; an answer is tried at once, and copied only for a peer that does not
 * read. The driver has bound the process to its CPU. It ends with its stdin, like the others. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

static char received[64 * 1024];

static void check(int result) {
  if (result < 0) {
    fprintf(stderr, "%s\n", uv_strerror(result));
    exit(1);
  }
}

static void announce(const struct sockaddr_in *address) {
  printf("listening 127.0.0.1:%d\n", ntohs(address->sin_port));
  fflush(stdout);
}

static void lend(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer) {
  (void)handle, (void)suggested;
  *buffer = uv_buf_init(received, sizeof received);
}

static void release(uv_handle_t *handle) { free(handle); }

static void hang_up(uv_stream_t *stream) {
  if (!uv_is_closing((uv_handle_t *)stream)) uv_close((uv_handle_t *)stream, release);
}

static void rest_written(uv_write_t *request, int status) {
  uv_stream_t *stream = request->handle;
  free(request);
  if (status < 0) hang_up(stream);
}

static void echo(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer) {
  if (count < 0) {
    hang_up(stream);
    return;
  }
  uv_buf_t answer = uv_buf_init(buffer->base, (unsigned)count);
  int sent = uv_try_write(stream, &answer, 1);
  if (sent == count) return;
  if (sent < 0 && sent != UV_EAGAIN) {
    hang_up(stream);
    return;
  }
  size_t done = sent > 0 ? (size_t)sent : 0, rest = (size_t)count - done;
  uv_write_t *request = malloc(sizeof *request + rest);
  char *copy = (char *)(request + 1);
  memcpy(copy, buffer->base + done, rest);
  answer = uv_buf_init(copy, (unsigned)rest);
  check(uv_write(request, stream, &answer, 1, rest_written));
}

static void accept_one(uv_stream_t *listener, int status) {
  check(status);
  uv_tcp_t *connection = malloc(sizeof *connection);
  check(uv_tcp_init(listener->loop, connection));
  check(uv_accept(listener, (uv_stream_t *)connection));
  check(uv_tcp_nodelay(connection, 1));
  check(uv_read_start((uv_stream_t *)connection, lend, echo));
}

static void echo_datagram(uv_udp_t *socket, ssize_t count, const uv_buf_t *buffer,
                          const struct sockaddr *from, unsigned flags) {
  (void)flags;
  if (count < 0 || from == NULL) return;
  uv_buf_t answer = uv_buf_init(buffer->base, (unsigned)count);
  check(uv_udp_try_send(socket, &answer, 1, from));
}

static void until_end_of_stdin(void *nothing) {
  (void)nothing;
  char byte;
  while (read(0, &byte, 1) > 0) {
  }
  exit(0);
}

int main(int count, char **arguments) {
  int is_udp = count > 1 && strcmp(arguments[1], "--service=udp") == 0;
  uv_loop_t *loop = uv_default_loop();
  struct sockaddr_in address;
  int length = sizeof address;
  uv_thread_t watcher;
  check(uv_ip4_addr("127.0.0.1", 0, &address));
  check(uv_thread_create(&watcher, until_end_of_stdin, NULL));
  if (is_udp) {
    static uv_udp_t socket;
    check(uv_udp_init(loop, &socket));
    check(uv_udp_bind(&socket, (struct sockaddr *)&address, 0));
    check(uv_udp_getsockname(&socket, (struct sockaddr *)&address, &length));
    check(uv_udp_recv_start(&socket, lend, echo_datagram));
  } else {
    static uv_tcp_t listener;
    check(uv_tcp_init(loop, &listener));
    check(uv_tcp_bind(&listener, (struct sockaddr *)&address, 0));
    check(uv_listen((uv_stream_t *)&listener, 1024, accept_one));
    check(uv_tcp_getsockname(&listener, (struct sockaddr *)&address, &length));
  }
  announce(&address);
  return uv_run(loop, UV_RUN_DEFAULT);
}
