/* The client of the load benchmarks: makes vectors in memory, sends them as one octet-stream POST,
 * and tells how long it took from the first byte out to the answer in.
 *
 *   make rows x dim float32 -> connect -> [ clock ] head, body, answer [ clock ] -> print
 *
 * The vectors lie around CLUSTERS centres, the same for the same seed, so that an index of them is
 * a realistic one. Prints "seconds BYTES STATUS" and, on standard error, an answer that is not 200.
 * With PATH "-" it says "ready" once the vectors are made, then sends them to each path that comes
 * as a line on standard input. With PATH "-16" the lines are paths of load sessions, and the
 * vectors go there as 16 parts at once, with the keys that one body would have.
 *
 * Threads: two, to make the vectors; one for each body. Failure: a sentence on standard error,
 * status 1. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CLUSTERS = 1000, ANSWER_BYTES = 4096, MAKERS = 2, PARTS_MAX = 64 };

struct share {
    pthread_t thread;
    float *out;
    const float *centres;
    size_t rows, dim;
    uint64_t seed;
};

static _Noreturn void die(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

/* Near enough to a normal deviate: four 16-bit uniforms, mean 0, variance 1. */
static float bell(uint64_t *state)
{
    uint64_t r = next_random(state);
    int32_t sum = (int32_t)(r & 0xffff) + (int32_t)(r >> 16 & 0xffff) +
                  (int32_t)(r >> 32 & 0xffff) + (int32_t)(r >> 48);
    return (float)(sum - 131070) / 37837.0f;
}

static void *make_share(void *arg)
{
    struct share *s = arg;
    uint64_t state = s->seed;
    for (size_t row = 0; row < s->rows; row++) {
        const float *centre = s->centres + next_random(&state) % CLUSTERS * s->dim;
        for (size_t d = 0; d < s->dim; d++)
            s->out[row * s->dim + d] = centre[d] + 0.35f * bell(&state);
    }
    return NULL;
}

static float *make_vectors(size_t rows, size_t dim, uint64_t seed)
{
    float *centres = malloc(CLUSTERS * dim * sizeof *centres);
    float *vectors = malloc(rows * dim * sizeof *vectors);
    struct share shares[MAKERS];
    if (!centres || !vectors)
        die("memory for the vectors");
    uint64_t state = seed;
    for (size_t i = 0; i < CLUSTERS * dim; i++)
        centres[i] = bell(&state);
    for (size_t i = 0; i < MAKERS; i++) {
        size_t first = rows * i / MAKERS, end = rows * (i + 1) / MAKERS;
        shares[i] =
            (struct share){0, vectors + first * dim, centres, end - first, dim, seed + i + 1};
        if (pthread_create(&shares[i].thread, NULL, make_share, &shares[i]) != 0)
            die("thread");
    }
    for (size_t i = 0; i < MAKERS; i++)
        pthread_join(shares[i].thread, NULL);
    free(centres);
    return vectors;
}

static int connect_to(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        die("connect");
    return fd;
}

static void send_all(int fd, const void *data, size_t n)
{
    const uint8_t *p = data;
    while (n > 0) {
        ssize_t sent = send(fd, p, n, MSG_NOSIGNAL);
        if (sent <= 0)
            die("send");
        p += sent;
        n -= (size_t)sent;
    }
}

/* Reads until the server closes (the request says Connection: close); returns the status. */
static int read_answer(int fd, char answer[ANSWER_BYTES])
{
    size_t n = 0;
    ssize_t got;
    while (n < ANSWER_BYTES - 1 && (got = recv(fd, answer + n, ANSWER_BYTES - 1 - n, 0)) > 0)
        n += (size_t)got;
    answer[n] = '\0';
    if (strncmp(answer, "HTTP/1.1 ", 9) != 0) {
        fputs("http_upload: no answer\n", stderr);
        exit(1);
    }
    return (int)strtol(answer + 9, NULL, 10);
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

struct body {
    pthread_t thread;
    uint16_t port;
    const char *method;
    char path[600];
    const void *data;
    size_t bytes;
    int status;
};

static void *send_body(void *arg)
{
    struct body *b = arg;
    char head[1024], answer[ANSWER_BYTES];
    int n = snprintf(head, sizeof head,
                     "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                     "Content-Type: application/octet-stream\r\nContent-Length: %zu\r\n\r\n",
                     b->method, b->path, b->bytes);
    int fd = connect_to(b->port);
    send_all(fd, head, (size_t)n);
    send_all(fd, b->data, b->bytes);
    b->status = read_answer(fd, answer);
    if (b->status >= 300)
        fprintf(stderr, "%s\n", answer);
    close(fd);
    return NULL;
}

static int tell(double started_s, size_t bytes, int status)
{
    printf("%.6f %zu %d\n", now_s() - started_s, bytes, status);
    fflush(stdout);
    return status < 300;
}

static int upload(uint16_t port, const char *path, const float *vectors, size_t bytes)
{
    struct body b = {.port = port, .method = "POST", .data = vectors, .bytes = bytes};
    snprintf(b.path, sizeof b.path, "%s", path);
    double started_s = now_s();
    send_body(&b);
    return tell(started_s, bytes, b.status);
}

/* The rows in `parts` bodies at once. */
static int upload_parts(uint16_t port, const char *load, const float *vectors, size_t rows,
                        size_t dim, size_t parts)
{
    struct body b[PARTS_MAX];
    int status = 0;
    double started_s = now_s();
    for (size_t i = 0; i < parts; i++) {
        size_t first = rows * i / parts, end = rows * (i + 1) / parts;
        b[i] = (struct body){.port = port,
                             .method = "PUT",
                             .data = vectors + first * dim,
                             .bytes = (end - first) * dim * sizeof *vectors};
        snprintf(b[i].path, sizeof b[i].path, "%s/parts/%03zu?first_key=%zu", load, i, first);
        if (pthread_create(&b[i].thread, NULL, send_body, &b[i]) != 0)
            die("thread");
    }
    for (size_t i = 0; i < parts; i++) {
        pthread_join(b[i].thread, NULL);
        status = b[i].status > status ? b[i].status : status;
    }
    return tell(started_s, rows * dim * sizeof *vectors, status);
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fputs("usage: http_upload PORT PATH|-|-PARTS ROWS DIM SEED\n", stderr);
        return 2;
    }
    uint16_t port = (uint16_t)strtoul(argv[1], NULL, 10);
    size_t rows = strtoul(argv[3], NULL, 10), dim = strtoul(argv[4], NULL, 10);
    size_t parts = argv[2][0] == '-' ? strtoul(argv[2] + 1, NULL, 10) : 0;
    float *vectors = make_vectors(rows, dim, strtoul(argv[5], NULL, 10));
    size_t bytes = rows * dim * sizeof *vectors;
    int ok = parts <= PARTS_MAX;
    if (argv[2][0] != '-') {
        ok = upload(port, argv[2], vectors, bytes);
    } else {
        char path[512];
        puts("ready");
        fflush(stdout);
        while (ok && fgets(path, sizeof path, stdin)) {
            path[strcspn(path, "\n")] = '\0';
            ok = parts ? upload_parts(port, path, vectors, rows, dim, parts)
                       : upload(port, path, vectors, bytes);
        }
    }
    free(vectors);
    return ok ? 0 : 1;
}
