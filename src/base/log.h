/* The daemon's own log: one line an event, with time, level, a sentence and named fields.
 *
 *   time=2026-01-31T10:00:00.000000Z level=warn msg="slow request" method="POST" took_us=1200000
 *   {"time":"2026-01-31T10:00:00.000000Z","level":"warn","msg":"slow request","method":"POST",...}
 *
 * Texts are quoted and escaped, so that no client's bytes can end a line, forge a field or reach a
 * terminal. Thread-safe. */
#ifndef LOADSTONE_BASE_LOG_H
#define LOADSTONE_BASE_LOG_H

#include "base/err.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_TEXT, LOG_JSON };

struct log_field {
    const char *name; /* a word of ours */
    const char *text; /* NULL: the number counts */
    int64_t number;
};

void log_set_level(enum log_level level);
void log_set_format(enum log_format format);
bool log_enabled(enum log_level level);

/* Standard error until log_open names a file, which is appended to and made when missing (readable
 * by its owner and group). `path` is borrowed for good. */
WARN_UNUSED enum err log_open(const char *path, struct err_ctx *ctx);
/* Opens the file anew, after it was renamed; lines go to the one or the other, none is lost. On
 * error the one before stays. */
WARN_UNUSED enum err log_reopen(struct err_ctx *ctx);

void log_write(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);
void log_event(enum log_level level, const char *what, const struct log_field *fields, unsigned n);

#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_write(LOG_INFO, __VA_ARGS__)
#define log_warn(...) log_write(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)

#endif
