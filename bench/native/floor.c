/* The floor: what the kernel alone asks for. Frames that a publisher sends are written to each member with send(), in a
   loop, and nothing else is done. Not a WebSocket server: it checks nothing, and it waits for whoever does not read.

   floor PORT        a connection whose target begins with /publish is a publisher, any other one a member */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST 65536
#define MESSAGE_BYTES 262144

static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
                             "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

static int members[MOST], member_count;
static char kind[MOST]; /* by descriptor: 0 before the upgrade, 'm', 'p' */
static unsigned char incoming[MESSAGE_BYTES], outgoing[MESSAGE_BYTES + 16];
static size_t incoming_size; /* there is one publisher */

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void write_all(int fd, const unsigned char *data, size_t size) {
    while (size) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) {
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            poll(&wait, 1, -1);
        } else if (n < 0) {
            return;
        } else {
            data += n, size -= n;
        }
    }
}

static void broadcast(const unsigned char *payload, size_t size) {
    size_t head = 2;
    outgoing[0] = 0x81;
    if (size < 126) {
        outgoing[1] = size;
    } else if (size < 65536) {
        outgoing[1] = 126, outgoing[2] = size >> 8, outgoing[3] = size;
        head = 4;
    } else {
        outgoing[1] = 127;
        for (int i = 0; i < 8; i++) outgoing[2 + i] = (uint64_t)size >> (56 - 8 * i);
        head = 10;
    }
    memcpy(outgoing + head, payload, size);
    for (int i = 0; i < member_count; i++) write_all(members[i], outgoing, head + size);
}

/* The load client masks with zeros, so a payload is what it says. */
static void published(void) {
    size_t at = 0;
    for (;;) {
        const unsigned char *p = incoming + at;
        size_t have = incoming_size - at, head = 6, size;
        if (have < 2) break;
        size = p[1] & 0x7f;
        if (size >= 126) {
            head = size == 126 ? 8 : 14;
            if (have < head) break;
            size = 0;
            for (size_t i = 2; i < head - 4; i++) size = size << 8 | p[i];
        }
        if (have < head + size) break;
        if ((p[0] & 0x0f) == 1) broadcast(p + head, size);
        at += head + size;
    }
    memmove(incoming, incoming + at, incoming_size -= at);
}

static void leave(int fd) {
    for (int i = 0; i < member_count; i++)
        if (members[i] == fd) members[i] = members[--member_count];
    close(fd);
}

static void readable(int fd) {
    if (kind[fd] == 'p') {
        ssize_t n = recv(fd, incoming + incoming_size, sizeof incoming - incoming_size, 0);
        if (n <= 0) {
            incoming_size = 0;
            leave(fd);
            return;
        }
        incoming_size += n;
        published();
        return;
    }
    char data[8192];
    ssize_t n = recv(fd, data, sizeof data, 0);
    if (n <= 0) {
        leave(fd);
    } else if (!kind[fd]) {
        kind[fd] = !strncmp(data, "GET /publish", 12) ? 'p' : 'm';
        if (kind[fd] == 'm') members[member_count++] = fd;
        write_all(fd, (const unsigned char *)answer, sizeof answer - 1);
    }
}

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "usage: floor PORT\n"), 2;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1, buffer = 65536, epoll = epoll_create1(0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) die("floor");
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[256];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int n = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd != listener) {
                readable(fd);
                continue;
            }
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0 && fd < MOST) {
                setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
                setsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &one, sizeof one);
                kind[fd] = 0;
                event.data.fd = fd;
                epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
            }
        }
    }
}
