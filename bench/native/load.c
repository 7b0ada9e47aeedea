/* The load client: thousands of WebSocket clients in one thread, cheaper than any server it measures.

   load PORT [PING PONG]         a text message PING is answered with PONG

   Commands come as lines on stdin; each is answered with one line of JSON on stdout:
     connect ROLE FILE IN_FLIGHT SECONDS   one connection per line of FILE; ROLE: member, publisher or idle. A line:
                                           TARGET \t HEADERS ('|' between them) { \t MESSAGE \t EXPECTED }
                                           Each MESSAGE is sent; goes on when EXPECTED (a part of a message) has come.
     publish COUNT WINDOW RATE FILE SECONDS   the publisher sends FILE's text COUNT times, with `{seq}` replaced by
                                           `seq=000000123;`: WINDOW of them under way at once, or RATE a second (not 0)
     ask COUNT IN_FLIGHT FILE EXPECTED SECONDS   members send FILE's text, each its next when EXPECTED has come
     stall COUNT                           the first COUNT members read no more, and nothing is expected of them
     run SECONDS                           nothing but reading, and answering pings
     frames FILE                           writes the compressed frames of the last `publish`: u32 length, payload
     close                                 closes all connections
   Between commands clients read and answer pings too; whoever was closed then is counted by the next command.
   Each delivery is counted, and must be the member's next one. Compressed frames must equal, byte for byte, those of
   the first member; the caller inflates that one's. Masks are zero: masking with them is the identity. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES 262144
#define SENT_RING 65536
#define BUCKETS 2048

enum role { MEMBER, PUBLISHER, IDLE };
enum state { CONNECTING, UPGRADING, SCRIPT, OPEN, DEAD };

struct buffer {
    char *data;
    size_t start, end, room;
};

struct conn {
    int fd;
    uint8_t role, state;
    bool stalled, asking;
    uint32_t next_seq, compressed;
    char *script, *expected; /* what is left of its line; part of the message that it waits for */
    double asked_at;
    struct buffer in, out;
};

static struct conn **conns;
static size_t conn_count, conn_room;
static int epoll, timer_fd, port;
static bool input; /* a command waits on stdin */
static const char *ping = NULL, *pong = "";
static char scratch[READ_BYTES];

/* What the command under way counts. */
static struct {
    size_t opened, failed, finished, closed;
    uint64_t delivered, bytes, disordered, asked, answered;
    char failure[128];
} count;

static uint32_t seq;               /* of the next publication */
static uint32_t phase_seq;         /* the first of this phase */
static double sent_at[SENT_RING];  /* by seq */
static uint64_t histogram[BUCKETS];
static struct buffer *reference;   /* the first member's compressed frames of this phase */
static size_t reference_count, reference_room;
static char *ask_frame, *ask_expected;
static size_t ask_frame_size;
static uint64_t ask_total;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static double own_cpu(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* Latencies in microseconds: exact to 1/32. */
static unsigned bucket_of(double us) {
    if (us < 32) return us < 0 ? 0 : (unsigned)us;
    int exponent = ilogb(us);
    unsigned bucket = 32 * (exponent - 4) + (unsigned)(us / ldexp(1, exponent - 5)) - 32;
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

static double bucket_value(unsigned bucket) {
    return bucket < 32 ? bucket : ldexp(32 + bucket % 32, bucket / 32 - 1);
}

static double percentile(double share) {
    uint64_t total = 0, seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++) total += histogram[i];
    for (unsigned i = 0; i < BUCKETS; i++)
        if (total && (seen += histogram[i]) >= share * total) return bucket_value(i);
    return 0;
}

/* -- buffers */

static void append(struct buffer *b, const void *data, size_t size) {
    if (b->start == b->end) b->start = b->end = 0;
    if (b->end + size > b->room) {
        b->room = (b->end + size) * 2;
        if (!(b->data = realloc(b->data, b->room))) die("memory");
    }
    memcpy(b->data + b->end, data, size);
    b->end += size;
}

static void drop(struct buffer *b) {
    free(b->data);
    memset(b, 0, sizeof *b);
}

static char *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file) die(path);
    struct buffer all = {0};
    for (size_t n; (n = fread(scratch, 1, sizeof scratch, file)) > 0;) append(&all, scratch, n);
    fclose(file);
    append(&all, "", 1);
    if (size) *size = all.end - 1;
    return all.data;
}

/* -- what goes out */

static void watch(struct conn *c, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event)) die("epoll_ctl");
}

static void closed(struct conn *c, const char *why) {
    if (c->state == DEAD) return;
    if (c->state != OPEN) {
        if (!count.failed++) snprintf(count.failure, sizeof count.failure, "%s", why);
    } else if (!c->stalled) {
        count.closed++;
    }
    c->state = DEAD;
    close(c->fd);
    drop(&c->in);
    drop(&c->out);
}

static void flush(struct conn *c) {
    struct buffer *b = &c->out;
    while (b->start < b->end) {
        ssize_t n = send(c->fd, b->data + b->start, b->end - b->start, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            watch(c, EPOLLIN | EPOLLOUT);
            return;
        }
        if (n < 0) {
            closed(c, "cannot send");
            return;
        }
        b->start += n;
    }
    drop(b);
}

static void put(struct conn *c, const void *data, size_t size) {
    bool waits = c->out.start < c->out.end;
    append(&c->out, data, size);
    if (!waits) flush(c);
}

static size_t frame_head(unsigned char *head, int opcode, size_t size) {
    size_t n = 2;
    head[0] = 0x80 | opcode;
    if (size < 126) {
        head[1] = 0x80 | size;
    } else if (size < 65536) {
        head[1] = 0x80 | 126;
        head[2] = size >> 8, head[3] = size;
        n = 4;
    } else {
        head[1] = 0x80 | 127;
        for (int i = 0; i < 8; i++) head[2 + i] = (uint64_t)size >> (56 - 8 * i);
        n = 10;
    }
    memset(head + n, 0, 4); /* the mask */
    return n + 4;
}

static void put_frame(struct conn *c, int opcode, const char *payload, size_t size) {
    unsigned char head[14];
    struct buffer whole = {0};
    append(&whole, head, frame_head(head, opcode, size));
    append(&whole, payload, size);
    put(c, whole.data, whole.end);
    drop(&whole);
}

/* -- scripts */

static char *field(struct conn *c) {
    char *found = c->script;
    if (found) {
        char *tab = strchr(found, '\t');
        if (tab) *tab = 0;
        c->script = tab ? tab + 1 : NULL;
    }
    return found;
}

/* Sends messages up to one whose answer is waited for. */
static void go_on(struct conn *c) {
    for (char *message; c->state == SCRIPT && (message = field(c));) {
        c->expected = field(c);
        if (*message) put_frame(c, 1, message, strlen(message));
        if (c->expected && *c->expected) return;
    }
    if (c->state == SCRIPT) {
        c->state = OPEN;
        c->next_seq = seq;
        count.finished++;
    }
}

/* -- what comes in */

static void upgraded(struct conn *c, char *head) {
    if (strncmp(head, "HTTP/1.1 101", 12)) {
        head[strcspn(head, "\r\n\"\\")] = 0;
        closed(c, head);
        return;
    }
    c->state = SCRIPT;
    count.opened++;
    go_on(c);
}

static double read_at; /* when the bytes in hand came */

static void came(double sent) { histogram[bucket_of((read_at - sent) * 1e6)]++; }

static void compressed_delivery(struct conn *c, const char *payload, size_t size) {
    size_t k = c->compressed++;
    if (k == reference_count) {
        if (reference_count == reference_room) {
            reference_room = reference_room ? 2 * reference_room : 64;
            if (!(reference = realloc(reference, reference_room * sizeof *reference))) die("memory");
        }
        memset(&reference[reference_count], 0, sizeof *reference);
        append(&reference[reference_count++], payload, size);
    }
    if (k >= reference_count || reference[k].end != size || memcmp(reference[k].data, payload, size)) count.disordered++;
    count.delivered++;
    count.bytes += size;
    came(sent_at[(phase_seq + k) % SENT_RING]);
}

static void delivery(struct conn *c, const char *payload, size_t size) {
    static size_t where; /* it stands at the same place in most messages */
    if (where + 4 > size || memcmp(payload + where, "seq=", 4)) {
        const char *found = memmem(payload, size, "seq=", 4);
        if (!found) return;
        where = found - payload;
    }
    uint32_t number = 0;
    for (size_t i = where + 4; i < size && payload[i] >= '0' && payload[i] <= '9'; i++)
        number = number * 10 + payload[i] - '0';
    if (number != c->next_seq) count.disordered++;
    c->next_seq = number + 1;
    count.delivered++;
    count.bytes += size;
    came(sent_at[number % SENT_RING]);
}

static void message(struct conn *c, bool compressed, const char *payload, size_t size) {
    if (ping && size == strlen(ping) && !memcmp(payload, ping, size)) {
        put_frame(c, 1, pong, strlen(pong));
    } else if (c->state == SCRIPT) {
        if (memmem(payload, size, c->expected, strlen(c->expected))) go_on(c);
    } else if (c->asking && memmem(payload, size, ask_expected, strlen(ask_expected))) {
        count.answered++;
        came(c->asked_at);
        if (count.asked < ask_total) {
            count.asked++;
            c->asked_at = now();
            put(c, ask_frame, ask_frame_size);
        }
    } else if (c->role == MEMBER && compressed) {
        compressed_delivery(c, payload, size);
    } else if (c->role == MEMBER) {
        delivery(c, payload, size);
    }
}

/* Reads what is whole; returns how many bytes that were. */
static size_t frames(struct conn *c, char *data, size_t size) {
    size_t at = 0;
    while (c->state == SCRIPT || c->state == OPEN) {
        const unsigned char *p = (const unsigned char *)data + at;
        size_t have = size - at, head = 2, length;
        if (have < 2) break;
        length = p[1] & 0x7f;
        if (length >= 126) {
            head = length == 126 ? 4 : 10;
            if (have < head) break;
            length = 0;
            for (size_t i = 2; i < head; i++) length = length << 8 | p[i];
        }
        if (have < head + length) break;
        at += head + length;
        char *payload = data + at - length;
        switch (p[0] & 0x0f) {
        case 1: case 2: message(c, p[0] & 0x40, payload, length); break;
        case 8: closed(c, "closed by the server"); break;
        case 9: put_frame(c, 10, payload, length); break;
        }
    }
    return at;
}

static size_t consume(struct conn *c, char *data, size_t size) {
    if (c->state != UPGRADING) return frames(c, data, size);
    char *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end) return 0;
    *end = 0;
    upgraded(c, data);
    size_t head = end + 4 - data;
    return head + frames(c, data + head, size - head);
}

static void readable(struct conn *c) {
    for (;;) {
        ssize_t n = recv(c->fd, scratch, sizeof scratch, 0);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) {
            closed(c, "connection lost");
            return;
        }
        read_at = now();
        if (c->in.start == c->in.end) {
            size_t used = consume(c, scratch, n);
            if (c->state != DEAD && used < (size_t)n) append(&c->in, scratch + used, n - used);
        } else {
            append(&c->in, scratch, n);
            size_t used = consume(c, c->in.data + c->in.start, c->in.end - c->in.start);
            if (c->state != DEAD && (c->in.start += used) == c->in.end) drop(&c->in);
        }
        if (c->state == DEAD || n < (ssize_t)sizeof scratch) return;
    }
}

static void begin_upgrade(struct conn *c) {
    struct buffer request = {0};
    char *target = field(c), *headers = field(c);
    char line[4096];
    int n = snprintf(line, sizeof line,
                     "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
                     target, port);
    append(&request, line, n);
    for (char *header = headers ? strtok(headers, "|") : NULL; header; header = strtok(NULL, "|")) {
        append(&request, header, strlen(header));
        append(&request, "\r\n", 2);
    }
    append(&request, "\r\n", 2);
    c->state = UPGRADING;
    watch(c, EPOLLIN);
    put(c, request.data, request.end);
    drop(&request);
}

/* -- the loop: one turn; `*times` grows by the ticks of the publisher's timer */

static void turn(double deadline, uint64_t *times) {
    struct epoll_event events[512];
    double left = deadline - now();
    int n = epoll_wait(epoll, events, 512, left < 0 ? 0 : left > 0.5 ? 500 : (int)(left * 1000) + 1);
    if (n < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < n; i++) {
        struct conn *c = events[i].data.ptr;
        if (events[i].data.ptr == stdin) {
            input = true;
            continue;
        }
        if (!c) {
            uint64_t ticks = 0;
            if (read(timer_fd, &ticks, sizeof ticks) == sizeof ticks && times) *times += ticks;
            continue;
        }
        if (c->state == DEAD) continue;
        if (c->state == CONNECTING) {
            if (events[i].events & (EPOLLERR | EPOLLHUP)) closed(c, "connection refused");
            else begin_upgrade(c);
            continue;
        }
        if (events[i].events & EPOLLOUT) {
            watch(c, EPOLLIN);
            flush(c);
        }
        if (c->state != DEAD && events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
            if (c->stalled) closed(c, "stalled");
            else readable(c);
        }
    }
}

static void begin(void) {
    size_t closed = count.closed; /* between commands */
    memset(&count, 0, sizeof count);
    count.closed = closed;
    memset(histogram, 0, sizeof histogram);
}

static void open_one(enum role role, char *line) {
    struct conn *c = calloc(1, sizeof *c);
    if (conn_count == conn_room) {
        conn_room = conn_room ? 2 * conn_room : 1024;
        conns = realloc(conns, conn_room * sizeof *conns);
    }
    if (!c || !conns) die("memory");
    c->role = role;
    c->script = line;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) die("socket");
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    conns[conn_count++] = c;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) die("connect");
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = c};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl");
}

static void command_connect(char *role, char *file, size_t in_flight, double seconds) {
    begin();
    double began = now(), deadline = began + seconds;
    char *lines = read_file(file, NULL), *rest = lines, *line;
    enum role as = !strcmp(role, "member") ? MEMBER : !strcmp(role, "publisher") ? PUBLISHER : IDLE;
    size_t begun = 0;
    while ((line = strsep(&rest, "\n"))) {
        if (!*line) continue;
        while (begun - count.finished - count.failed >= in_flight && now() < deadline) turn(deadline, NULL);
        open_one(as, line);
        begun++;
    }
    while (count.finished + count.failed < begun && now() < deadline) turn(deadline, NULL);
    for (size_t i = 0; i < conn_count; i++)
        if (conns[i]->state != OPEN) closed(conns[i], "not done in time");
    free(lines);
    printf("{\"connected\": %zu, \"failed\": %zu, \"failure\": \"%s\", \"seconds\": %.6f}\n", count.finished,
           count.failed, count.failure, now() - began);
}

static struct conn *publisher(void) {
    for (size_t i = 0; i < conn_count; i++)
        if (conns[i]->role == PUBLISHER && conns[i]->state == OPEN) return conns[i];
    errno = ENOTCONN;
    die("publish");
    return NULL;
}

static void publish_one(struct conn *c, const char *before, const char *after) {
    char number[32];
    struct buffer text = {0};
    append(&text, before, strlen(before));
    append(&text, number, snprintf(number, sizeof number, "seq=%09u;", seq));
    append(&text, after, strlen(after));
    sent_at[seq++ % SENT_RING] = now();
    put_frame(c, 1, text.data, text.end);
    drop(&text);
}

static void set_rate(double rate) {
    struct itimerspec spec = {0};
    if (rate > 0) {
        spec.it_interval.tv_sec = (time_t)(1 / rate);
        spec.it_interval.tv_nsec = (long)((1 / rate - spec.it_interval.tv_sec) * 1e9);
        spec.it_value = spec.it_interval;
    }
    if (timerfd_settime(timer_fd, 0, &spec, NULL)) die("timerfd_settime");
}

static void command_publish(uint64_t total, uint64_t window, double rate, char *file, double seconds) {
    begin();
    while (reference_count) drop(&reference[--reference_count]);
    uint64_t members = 0, sent = 0, due = 0;
    for (size_t i = 0; i < conn_count; i++) {
        conns[i]->compressed = 0;
        members += conns[i]->role == MEMBER && conns[i]->state == OPEN && !conns[i]->stalled;
    }
    char *before = read_file(file, NULL), *mark = strstr(before, "{seq}");
    if (!mark) die("no {seq} in the template");
    *mark = 0;
    struct conn *c = publisher();
    double began = now(), deadline = began + seconds, cpu = own_cpu();
    phase_seq = seq;
    set_rate(rate);
    while ((sent < total || count.delivered < total * members) && now() < deadline && c->state == OPEN && !count.closed) {
        while (rate <= 0 && sent < total && sent * members < count.delivered + window * members) {
            publish_one(c, before, mark + 5);
            sent++;
        }
        turn(deadline, &due);
        for (; rate > 0 && due && sent < total; due--, sent++) publish_one(c, before, mark + 5);
    }
    set_rate(0);
    free(before);
    printf("{\"sent\": %lu, \"expected\": %lu, \"delivered\": %lu, \"disordered\": %lu, \"closed\": %zu, \"bytes\": %lu, "
           "\"seconds\": %.6f, \"p50_us\": %.0f, \"p99_us\": %.0f, \"client_cpu\": %.3f}\n",
           sent, total * members, count.delivered, count.disordered, count.closed, count.bytes, now() - began,
           percentile(0.5), percentile(0.99), own_cpu() - cpu);
}

static void command_ask(uint64_t total, size_t in_flight, char *file, char *expected, double seconds) {
    begin();
    size_t size;
    char *text = read_file(file, &size);
    unsigned char head[14];
    struct buffer frame = {0};
    append(&frame, head, frame_head(head, 1, size));
    append(&frame, text, size);
    ask_frame = frame.data, ask_frame_size = frame.end, ask_expected = expected, ask_total = total;
    double began = now(), deadline = began + seconds;
    for (size_t i = 0; i < conn_count && count.asked < in_flight && count.asked < total; i++)
        if (conns[i]->role == MEMBER && conns[i]->state == OPEN) {
            conns[i]->asking = true;
            conns[i]->asked_at = now();
            count.asked++;
            put(conns[i], ask_frame, ask_frame_size);
        }
    while (count.answered < total && now() < deadline && !count.closed) turn(deadline, NULL);
    for (size_t i = 0; i < conn_count; i++) conns[i]->asking = false;
    drop(&frame);
    free(text);
    printf("{\"asked\": %lu, \"answered\": %lu, \"closed\": %zu, \"seconds\": %.6f, \"p50_us\": %.0f, \"p99_us\": %.0f}\n",
           count.asked, count.answered, count.closed, now() - began, percentile(0.5), percentile(0.99));
}

static void command_stall(size_t many) {
    size_t stalled = 0;
    for (size_t i = 0; i < conn_count && stalled < many; i++)
        if (conns[i]->role == MEMBER && conns[i]->state == OPEN) {
            int small = 4096; /* else the kernel takes megabytes for it before anybody notices */
            setsockopt(conns[i]->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
            conns[i]->stalled = true;
            watch(conns[i], 0);
            stalled++;
        }
    printf("{\"stalled\": %zu}\n", stalled);
}

static void command_run(double seconds) {
    begin();
    double deadline = now() + seconds;
    while (now() < deadline) turn(deadline, NULL);
    printf("{\"closed\": %zu}\n", count.closed);
}

static void command_frames(const char *path) {
    FILE *file = fopen(path, "wb");
    if (!file) die(path);
    for (size_t i = 0; i < reference_count; i++) {
        uint32_t size = reference[i].end;
        fwrite(&size, sizeof size, 1, file);
        fwrite(reference[i].data, 1, size, file);
    }
    fclose(file);
    printf("{\"frames\": %zu}\n", reference_count);
}

static void command_close(void) {
    size_t n = conn_count;
    while (conn_count) {
        struct conn *c = conns[--conn_count];
        if (c->state != DEAD) close(c->fd);
        drop(&c->in);
        drop(&c->out);
        free(c);
    }
    printf("{\"closed\": %zu}\n", n);
}

int main(int argc, char **argv) {
    if (argc < 2) die("usage: load PORT [PING PONG]");
    port = atoi(argv[1]);
    if (argc > 3) ping = argv[2], pong = argv[3];
    epoll = epoll_create1(0);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN};
    if (epoll < 0 || timer_fd < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, timer_fd, &event)) die("epoll");
    event.data.ptr = stdin;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event)) die("epoll");
    static char line[8192], *words[8];
    for (;;) {
        while (!input) turn(now() + 1, NULL);
        input = false;
        if (!fgets(line, sizeof line, stdin)) return 0;
        int n = 0;
        for (char *word = strtok(line, " \n"); word && n < 8; word = strtok(NULL, " \n")) words[n++] = word;
        if (!n) continue;
        if (!strcmp(words[0], "connect") && n == 5) command_connect(words[1], words[2], atoi(words[3]), atof(words[4]));
        else if (!strcmp(words[0], "publish") && n == 6)
            command_publish(atoll(words[1]), atoll(words[2]), atof(words[3]), words[4], atof(words[5]));
        else if (!strcmp(words[0], "ask") && n == 6)
            command_ask(atoll(words[1]), atoi(words[2]), words[3], words[4], atof(words[5]));
        else if (!strcmp(words[0], "stall") && n == 2) command_stall(atoi(words[1]));
        else if (!strcmp(words[0], "run") && n == 2) command_run(atof(words[1]));
        else if (!strcmp(words[0], "frames") && n == 2) command_frames(words[1]);
        else if (!strcmp(words[0], "close") && n == 1) command_close();
        else printf("{\"error\": \"what is that?\"}\n");
        fflush(stdout);
        count.closed = 0;
    }
}
