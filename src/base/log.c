/* The daemon's own log.
 *
 * Invariant: a line is put together on the stack and handed over in one write, so that lines of
 * different threads do not mix; it ends in the only newline it holds. A text that does not fit is
 * cut between two characters and ends in "..."; what would follow it is left out.
 *
 * The file keeps its descriptor for good: a reopened one is put in its place in one step (dup3).
 *
 * Threads: any. Failure: a line that cannot be written is dropped; errno is kept. */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"

enum {
    LINE_BYTES = 4096, /* PIPE_BUF: written whole into a pipe, too */
    TAIL_BYTES = 8,    /* ..."} and the newline */
};

static _Atomic int level_min = LOG_INFO;
static _Atomic int format = LOG_TEXT;
static _Atomic int output = STDERR_FILENO;
static const char *file_path;

static const char *const LEVEL_NAMES[] = {"debug", "info", "warn", "error"};

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&level_min, (int)level, memory_order_relaxed);
}

void log_set_format(enum log_format f)
{
    atomic_store_explicit(&format, (int)f, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
    return (int)level >= atomic_load_explicit(&level_min, memory_order_relaxed);
}

/* ---- the file ---- */

static int open_file(const char *path, struct err_ctx *ctx)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
    if (fd < 0)
        (void)!err_system(ctx, errno, "opening the log file %s", path);
    return fd;
}

enum err log_open(const char *path, struct err_ctx *ctx)
{
    int fd = open_file(path, ctx);
    if (fd < 0)
        return ERR_IO;
    file_path = path;
    atomic_store(&output, fd);
    return ERR_OK;
}

enum err log_reopen(struct err_ctx *ctx)
{
    enum err e = ERR_OK;
    if (!file_path)
        return ERR_OK;
    int fd = open_file(file_path, ctx);
    if (fd < 0)
        return ERR_IO;
    if (dup3(fd, atomic_load(&output), O_CLOEXEC) < 0)
        e = err_system(ctx, errno, "reopening the log file %s", file_path);
    close(fd);
    return e;
}

static void write_all(const char *line, size_t n)
{
    int fd = atomic_load_explicit(&output, memory_order_relaxed);
    while (n > 0) {
        ssize_t w = write(fd, line, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            return;
        line += w;
        n -= (size_t)w;
    }
}

/* ---- a line ---- */

struct line {
    char text[LINE_BYTES];
    size_t len;
    bool json, cut;
};

/* Whole or not at all. */
static void put(struct line *l, const char *bytes, size_t n)
{
    if (l->cut || l->len + n > LINE_BYTES - TAIL_BYTES) {
        l->cut = true;
        return;
    }
    memcpy(l->text + l->len, bytes, n);
    l->len += n;
}

static void put_tail(struct line *l, const char *bytes)
{
    size_t n = strlen(bytes);
    memcpy(l->text + l->len, bytes, n);
    l->len += n;
}

static void put_escape(struct line *l, unsigned char byte)
{
    char escape[8];
    put(l, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", byte));
}

static size_t sequence_length(unsigned char lead)
{
    return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

/* Control characters, those of the upper half (C2 80 to C2 9F) too, are escaped as JSON does it;
 * so is each byte above ASCII of a text that is not UTF-8. */
static void put_quoted(struct line *l, const char *text)
{
    bool utf8 = utf8_valid(text, strlen(text));
    put(l, "\"", 1);
    if (l->cut)
        return;
    for (const unsigned char *p = (const unsigned char *)text; *p && !l->cut;) {
        size_t n = utf8 ? sequence_length(*p) : 1;
        if (*p == '"' || *p == '\\')
            put(l, (char[]){'\\', (char)*p}, 2);
        else if (*p == '\n')
            put(l, "\\n", 2);
        else if (*p < 0x20 || *p == 0x7f || (*p >= 0x80 && n == 1))
            put_escape(l, *p);
        else if (n == 2 && *p == 0xc2 && p[1] < 0xa0)
            put_escape(l, p[1]);
        else
            put(l, (const char *)p, n);
        p += n;
    }
    put_tail(l, l->cut ? "...\"" : "\"");
}

static void put_name(struct line *l, const char *name)
{
    char text[64];
    const char *shape = l->json ? "%s\"%s\":" : "%s%s=";
    int n = snprintf(text, sizeof text, shape, l->len ? (l->json ? "," : " ") : "", name);
    put(l, text, (size_t)n);
}

static void put_text(struct line *l, const char *name, const char *text)
{
    size_t before = l->len;
    put_name(l, name);
    if (l->len + 1 > LINE_BYTES - TAIL_BYTES)
        l->cut = true;
    if (l->cut)
        l->len = before;
    else
        put_quoted(l, text);
}

/* A value that needs no quotes in text: a time, a level. */
static void put_word(struct line *l, const char *name, const char *word)
{
    put_name(l, name);
    if (l->json)
        put_quoted(l, word);
    else
        put(l, word, strlen(word));
}

static void put_number(struct line *l, const char *name, int64_t number)
{
    char text[24];
    size_t before = l->len;
    put_name(l, name);
    put(l, text, (size_t)snprintf(text, sizeof text, "%lld", (long long)number));
    if (l->cut)
        l->len = before;
}

static void log_line(enum log_level level, const char *what, const struct log_field *fields,
                     unsigned n)
{
    struct line l;
    char now[32];
    l.len = 0;
    l.cut = false;
    l.json = atomic_load_explicit(&format, memory_order_relaxed) == LOG_JSON;
    clock_format_rfc3339(clock_wall_us(), now);
    put_word(&l, "time", now);
    put_word(&l, "level", LEVEL_NAMES[level]);
    put_text(&l, "msg", what);
    for (unsigned i = 0; i < n && !l.cut; i++) {
        if (fields[i].text)
            put_text(&l, fields[i].name, fields[i].text);
        else
            put_number(&l, fields[i].name, fields[i].number);
    }
    if (l.json) {
        memmove(l.text + 1, l.text, l.len++);
        l.text[0] = '{';
        put_tail(&l, "}");
    }
    put_tail(&l, "\n");
    write_all(l.text, l.len);
}

void log_event(enum log_level level, const char *what, const struct log_field *fields, unsigned n)
{
    int saved_errno = errno;
    if (log_enabled(level))
        log_line(level, what, fields, n);
    errno = saved_errno;
}

void log_write(enum log_level level, const char *fmt, ...)
{
    if (!log_enabled(level))
        return;
    int saved_errno = errno;
    char text[LINE_BYTES];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    log_line(level, text, NULL, 0);
    errno = saved_errno;
}
