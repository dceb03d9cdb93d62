/* A load generator for HTTP and Redis with one loop for both, so that the client costs the same.
 *
 *   closed loop   each of N connections sends its next request when its answer has come
 *   open loop     requests arrive at a given rate, whatever the server does; one that finds every
 *                 connection busy waits in line, and its time counts from when it should have been
 *                 sent (so that a stall shows in all requests that it held up)
 *
 * --spin polls without sleeping: a server that answers a client that sleeps pays for waking it up,
 * which a client on another machine would not cost it.
 *
 * Prints one JSON object: requests, seconds, rate, p50_us, p95_us, p99_us, max_us, and client_busy,
 * the share of the time in which this client had something to do: near 1, the client is what was
 * measured.
 *
 * Threads: one. Failure: a sentence on standard error, status 1; an answer that is not the expected
 * one ends the run. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "load_gen.h"

enum {
    ANSWER_BYTES_MAX = 4 << 20,
    EVENTS_MAX = 256,
    SUB_BITS = 6, /* a power of two of nanoseconds has 64 buckets: 1.6 % wide */
    BUCKETS = (64 - SUB_BITS) << SUB_BITS,
};

struct connection {
    int fd;
    bool busy;
    uint32_t left;        /* answers that must still come */
    uint64_t intended_ns; /* when the request should have been sent */
    char *request;
    char *answer;
    size_t have; /* bytes in `answer` */
};

struct options {
    const struct protocol *protocol;
    struct workload workload;
    uint16_t port;
    uint32_t connections;
    double seconds, warmup_s, rate; /* rate 0 = closed loop */
    uint64_t requests_max;          /* closed loop: ends after so many; 0 = by the clock */
    bool poisson, spin;
    int cpu; /* -1 = any */
    uint64_t seed;
    const char *bodies;
};

struct run {
    const struct options *o;
    struct connection *connections;
    uint32_t *idle; /* stack of connections without a request */
    uint32_t nidle;
    int epoll;
    uint64_t rng;
    uint64_t next_ns; /* open loop: the next arrival */
    uint64_t measure_from_ns, until_ns;
    uint64_t requests;
    uint64_t max_ns;
    uint64_t idle_ns; /* waited for answers or arrivals */
    uint64_t histogram[BUCKETS];
};

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "load_gen: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

static uint64_t clock_ns(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- times ---- */

static unsigned bucket_of(uint64_t ns)
{
    if (ns < 1u << SUB_BITS)
        return (unsigned)ns;
    unsigned shift = 63 - (unsigned)__builtin_clzll(ns) - SUB_BITS;
    return ((shift + 1) << SUB_BITS) + (unsigned)((ns >> shift) - (1u << SUB_BITS));
}

static double bucket_us(unsigned bucket)
{
    unsigned row = bucket >> SUB_BITS, sub = bucket & ((1u << SUB_BITS) - 1);
    if (row == 0)
        return sub / 1e3;
    return ldexp((1u << SUB_BITS) + sub + 0.5, (int)row - 1) / 1e3;
}

static double quantile_us(const struct run *r, double q)
{
    uint64_t rank = (uint64_t)ceil(q * (double)r->requests), seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += r->histogram[i];
        if (seen >= rank)
            return bucket_us(i);
    }
    return 0;
}

static void note(struct run *r, const struct connection *c, uint64_t now_ns)
{
    if (c->intended_ns < r->measure_from_ns)
        return;
    uint64_t took_ns = now_ns - c->intended_ns;
    r->requests++;
    r->histogram[bucket_of(took_ns)]++;
    if (took_ns > r->max_ns)
        r->max_ns = took_ns;
}

/* ---- one connection ---- */

static void send_request(struct run *r, struct connection *c, uint64_t intended_ns)
{
    const struct workload *w = &r->o->workload;
    size_t n = r->o->protocol->request(w, &r->rng, c->request), at = 0;
    c->busy = true;
    c->intended_ns = intended_ns;
    c->left = r->o->protocol->answers(w);
    while (at < n) {
        ssize_t sent = send(c->fd, c->request + at, n - at, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            die("send");
        at += sent < 0 ? 0 : (size_t)sent;
    }
}

/* Takes complete answers off the front. True when the last one has come. */
static bool take_answers(struct run *r, struct connection *c)
{
    size_t at = 0;
    while (c->left > 0) {
        int64_t n = r->o->protocol->answer(c->answer + at, c->have - at);
        if (n < 0) {
            fprintf(stderr, "load_gen: not the answer that was expected: %.*s\n",
                    c->have - at > 400 ? 400 : (int)(c->have - at), c->answer + at);
            exit(1);
        }
        if (n == 0)
            break;
        at += (size_t)n;
        c->left--;
    }
    memmove(c->answer, c->answer + at, c->have - at);
    c->have -= at;
    return c->left == 0;
}

static bool receive(struct run *r, struct connection *c)
{
    ssize_t got = recv(c->fd, c->answer + c->have, ANSWER_BYTES_MAX - c->have, 0);
    if (got < 0 && errno == EAGAIN)
        return false;
    errno = got == 0 ? 0 : errno;
    if (got <= 0)
        die("the server closed a connection, or its answer is too long");
    c->have += (size_t)got;
    return take_answers(r, c);
}

/* ---- the loop ---- */

static void arrive(struct run *r, uint64_t now_ns)
{
    double gap_ns = 1e9 / r->o->rate;
    while (r->nidle > 0 && r->next_ns <= now_ns && r->next_ns < r->until_ns) {
        send_request(r, &r->connections[r->idle[--r->nidle]], r->next_ns);
        double unit = (double)((draw(&r->rng) >> 11) + 1) * 0x1p-53;
        r->next_ns += (uint64_t)(r->o->poisson ? -log(unit) * gap_ns : gap_ns);
    }
}

static void answered(struct run *r, struct connection *c)
{
    uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
    c->busy = false;
    note(r, c, now_ns);
    if (r->o->requests_max && r->requests + r->o->connections > r->o->requests_max)
        r->until_ns = now_ns;
    if (r->o->rate == 0 && now_ns < r->until_ns)
        send_request(r, c, now_ns);
    else
        r->idle[r->nidle++] = (uint32_t)(c - r->connections);
}

/* Until when to sleep: the next arrival, if a connection could take it. */
static struct timespec wait_time(const struct run *r, uint64_t now_ns)
{
    uint64_t until_ns = now_ns + 100000000;
    if (r->o->rate > 0 && r->nidle > 0 && r->next_ns < r->until_ns)
        until_ns = r->next_ns;
    uint64_t ns = until_ns > now_ns && !r->o->spin ? until_ns - now_ns : 0;
    return (struct timespec){(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
}

static bool is_over(const struct run *r, uint64_t now_ns)
{
    bool none_due = r->o->rate == 0 || r->next_ns >= r->until_ns;
    return now_ns >= r->until_ns && none_due && r->nidle == r->o->connections;
}

static void loop(struct run *r)
{
    struct epoll_event events[EVENTS_MAX];
    for (;;) {
        uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
        if (r->o->rate > 0)
            arrive(r, now_ns);
        if (is_over(r, now_ns))
            return;
        struct timespec wait = wait_time(r, now_ns);
        int n = epoll_pwait2(r->epoll, events, EVENTS_MAX, &wait, NULL);
        if (n < 0 && errno != EINTR)
            die("epoll");
        if (n <= 0 || !r->o->spin)
            r->idle_ns += clock_ns(CLOCK_MONOTONIC) - now_ns;
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (receive(r, c))
                answered(r, c);
        }
    }
}

/* ---- the start ---- */

static void open_connection(struct run *r, struct connection *c)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(r->o->port)};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    int on = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    c->request = malloc(REQUEST_BYTES_MAX);
    c->answer = malloc(ANSWER_BYTES_MAX);
    if (c->fd < 0 || !c->request || !c->answer ||
        connect(c->fd, (struct sockaddr *)&address, sizeof address) != 0)
        die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK) != 0 ||
        epoll_ctl(r->epoll, EPOLL_CTL_ADD, c->fd, &event) != 0)
        die("epoll");
}

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((unsigned)cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        die("pinning");
}

/* Bodies stand one after the other, each behind its length (u32, little-endian). */
static void read_bodies(struct workload *w, const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &st) != 0)
        die(path);
    size_t size = (size_t)st.st_size;
    uint8_t *all = malloc(size + 1);
    if (!all || read(fd, all, size) != (ssize_t)size)
        die(path);
    close(fd);
    errno = 0;
    for (size_t at = 0; at + 4 <= size;) {
        struct body b = {all + at + 4, 0};
        memcpy(&b.len, all + at, sizeof b.len);
        w->bodies = realloc(w->bodies, (w->nbodies + 1) * sizeof b);
        if (!w->bodies || b.len > size - at - 4 || b.len > REQUEST_BYTES_MAX / 2)
            die("the file of bodies is damaged");
        w->bodies[w->nbodies++] = b;
        at += 4 + (size_t)b.len;
    }
}

static void measure(const struct options *o)
{
    static struct run r;
    r.o = o;
    r.rng = o->seed;
    r.epoll = epoll_create1(0);
    r.connections = calloc(o->connections, sizeof *r.connections);
    r.idle = calloc(o->connections, sizeof *r.idle);
    if (r.epoll < 0 || !r.connections || !r.idle)
        die("starting");
    for (uint32_t i = 0; i < o->connections; i++) {
        open_connection(&r, &r.connections[i]);
        r.idle[r.nidle++] = i;
    }
    uint64_t start_ns = clock_ns(CLOCK_MONOTONIC);
    r.next_ns = start_ns;
    r.measure_from_ns = start_ns + (uint64_t)(o->warmup_s * 1e9);
    r.until_ns = r.measure_from_ns + (uint64_t)(o->seconds * 1e9);
    while (o->rate == 0 && r.nidle > 0)
        send_request(&r, &r.connections[r.idle[--r.nidle]], start_ns);
    loop(&r);
    double took_ns = (double)(clock_ns(CLOCK_MONOTONIC) - start_ns);
    double seconds = o->requests_max ? took_ns / 1e9 - o->warmup_s : o->seconds;
    printf("{\"requests\":%llu,\"seconds\":%.3f,\"rate\":%.1f,\"p50_us\":%.1f,\"p95_us\":%.1f,"
           "\"p99_us\":%.1f,\"max_us\":%.1f,\"client_busy\":%.3f}\n",
           (unsigned long long)r.requests, seconds, (double)r.requests / seconds,
           quantile_us(&r, 0.5), quantile_us(&r, 0.95), quantile_us(&r, 0.99),
           (double)r.max_ns / 1e3, 1 - (double)r.idle_ns / took_ns);
}

const struct protocol *const protocols[] = {&http_get,  &http_features_json, &http_features_octets,
                                            &http_post, &resp_hgetall,       &resp_hmget,
                                            &resp_body};

static const struct protocol *find_protocol(const char *name)
{
    for (size_t i = 0; i < sizeof protocols / sizeof protocols[0]; i++)
        if (strcmp(protocols[i]->name, name) == 0)
            return protocols[i];
    return NULL;
}

static _Noreturn void usage(void)
{
    fputs(
        "usage: load_gen --port N --workload "
        "get|features-json|features-octets|post|hgetall|hmget|resp\n"
        "  --keys N --int-keys --batch N           keys drawn from, their type, keys a request\n"
        "  --path P --content-type T --accept T    HTTP\n"
        "  --bodies FILE                           post, resp: (u32 length, bytes), and so on\n"
        "  --connections N --seconds S --warmup S --cpu N --seed N\n"
        "  --requests N                            closed loop: until so many are measured\n"
        "  --rate N [--poisson] [--spin]           open loop, else closed; poll without sleeping\n",
        stderr);
    exit(2);
}

static void set_option(struct options *o, int name, const char *value)
{
    struct workload *w = &o->workload;
    switch (name) {
    case 'p':
        o->port = (uint16_t)strtoul(value, NULL, 10);
        break;
    case 'w':
        o->protocol = find_protocol(value);
        break;
    case 'k':
        w->keys = (uint32_t)strtoul(value, NULL, 10);
        break;
    case 'i':
        w->int_keys = true;
        break;
    case 'b':
        w->batch = (uint32_t)strtoul(value, NULL, 10);
        break;
    case 'u':
        w->path = value;
        break;
    case 't':
        w->content_type = value;
        break;
    case 'a':
        w->accept = value;
        break;
    case 'B':
        o->bodies = value;
        break;
    case 'c':
        o->connections = (uint32_t)strtoul(value, NULL, 10);
        break;
    case 's':
        o->seconds = strtod(value, NULL);
        break;
    case 'W':
        o->warmup_s = strtod(value, NULL);
        break;
    case 'C':
        o->cpu = (int)strtol(value, NULL, 10);
        break;
    case 'S':
        o->seed = strtoul(value, NULL, 10);
        break;
    case 'r':
        o->rate = strtod(value, NULL);
        break;
    case 'n':
        o->requests_max = strtoull(value, NULL, 10);
        o->seconds = 1e6;
        break;
    case 'P':
        o->poisson = true;
        break;
    case 'I':
        o->spin = true;
        break;
    default:
        usage();
    }
}

int main(int argc, char **argv)
{
    static const struct option known[] = {
        {"port", 1, 0, 'p'},
        {"workload", 1, 0, 'w'},
        {"keys", 1, 0, 'k'},
        {"int-keys", 0, 0, 'i'},
        {"batch", 1, 0, 'b'},
        {"path", 1, 0, 'u'},
        {"content-type", 1, 0, 't'},
        {"accept", 1, 0, 'a'},
        {"bodies", 1, 0, 'B'},
        {"connections", 1, 0, 'c'},
        {"seconds", 1, 0, 's'},
        {"warmup", 1, 0, 'W'},
        {"cpu", 1, 0, 'C'},
        {"seed", 1, 0, 'S'},
        {"rate", 1, 0, 'r'},
        {"requests", 1, 0, 'n'},
        {"poisson", 0, 0, 'P'},
        {"spin", 0, 0, 'I'},
        {0},
    };
    static struct options o = {
        .workload = {.keys = 1,
                     .batch = 1,
                     .path = "/",
                     .content_type = "application/json",
                     .accept = "*/*"},
        .connections = 1,
        .seconds = 1,
        .warmup_s = 0.2,
        .cpu = -1,
        .seed = 1,
    };
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;)
        set_option(&o, c, optarg);
    if (!o.protocol || !o.port || !o.connections || !o.workload.keys || o.workload.batch > 1000)
        usage();
    errno = 0;
    if (o.bodies)
        read_bodies(&o.workload, o.bodies);
    if ((o.protocol == &http_post || o.protocol == &resp_body) && o.workload.nbodies == 0)
        usage();
    if (o.cpu >= 0)
        pin(o.cpu);
    prctl(PR_SET_TIMERSLACK, 1UL);
    measure(&o);
    return 0;
}
