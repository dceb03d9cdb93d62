/* Time, RFC 3339 and random identifiers.
 *
 * Dates go through timegm and gmtime_r, which know the proleptic Gregorian calendar and no leap
 * seconds: second 60 is refused, since it could not be written back. Fractions finer than a
 * microsecond are cut.
 *
 * Threads: any. Failure: a bad time gives -1; a kernel without clocks or randomness is a broken
 * invariant. */
#include "base/clock.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/random.h>
#include <time.h>

#include "base/err.h"

enum { US_PER_S = 1000000 };

static const int64_t YEAR_1_S = -62135596800, YEAR_10000_S = 253402300800;

static int64_t read_clock_us(clockid_t id)
{
    struct timespec t;
    ASSERT(clock_gettime(id, &t) == 0);
    return (int64_t)t.tv_sec * US_PER_S + t.tv_nsec / 1000;
}

uint64_t clock_mono_us(void)
{
    return (uint64_t)read_clock_us(CLOCK_MONOTONIC);
}

int64_t clock_wall_us(void)
{
    return read_clock_us(CLOCK_REALTIME);
}

void clock_format_rfc3339(int64_t wall_us, char out[32])
{
    time_t s = wall_us / US_PER_S;
    int us = (int)(wall_us % US_PER_S);
    if (us < 0) {
        us += US_PER_S;
        s--;
    }
    struct tm t;
    ASSERT(gmtime_r(&s, &t));
    int n = snprintf(out, 32, "%04d-%02d-%02dT%02d:%02d:%02d", t.tm_year + 1900, t.tm_mon + 1,
                     t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec);
    if (us) {
        n += snprintf(out + n, 32 - (size_t)n, ".%06d", us);
        while (out[n - 1] == '0')
            n--;
    }
    out[n] = 'Z';
    out[n + 1] = '\0';
}

/* ---- parsing ---- */

struct text {
    const char *p, *end;
};

static bool take_char(struct text *t, const char *any_of, char *out)
{
    if (t->p == t->end)
        return false;
    for (; *any_of; any_of++) {
        if (*t->p == *any_of) {
            *out = *t->p++;
            return true;
        }
    }
    return false;
}

static bool take_digit(struct text *t, int *out)
{
    if (t->p == t->end || *t->p < '0' || *t->p > '9')
        return false;
    *out = *t->p++ - '0';
    return true;
}

/* Exactly `digits` digits, a number in [low, high], then `then` unless it is NUL. */
static bool take_number(struct text *t, int digits, int low, int high, char then, int *out)
{
    int v = 0, d;
    for (int i = 0; i < digits; i++) {
        if (!take_digit(t, &d))
            return false;
        v = v * 10 + d;
    }
    *out = v;
    char expect[2] = {then, '\0'}, seen;
    return v >= low && v <= high && (!then || take_char(t, expect, &seen));
}

static int days_in_month(int year, int month)
{
    static const int DAYS[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return DAYS[month - 1] + (month == 2 && leap);
}

static bool take_date_time(struct text *t, int64_t *s)
{
    int year, month, day, hour, minute, second;
    char sep;
    if (!take_number(t, 4, 1, 9999, '-', &year) || !take_number(t, 2, 1, 12, '-', &month) ||
        !take_number(t, 2, 1, days_in_month(year, month), 0, &day) || !take_char(t, "Tt ", &sep) ||
        !take_number(t, 2, 0, 23, ':', &hour) || !take_number(t, 2, 0, 59, ':', &minute) ||
        !take_number(t, 2, 0, 59, 0, &second))
        return false;
    struct tm tm = {.tm_year = year - 1900,
                    .tm_mon = month - 1,
                    .tm_mday = day,
                    .tm_hour = hour,
                    .tm_min = minute,
                    .tm_sec = second};
    *s = timegm(&tm);
    return true;
}

static bool take_fraction(struct text *t, int64_t *us)
{
    char dot;
    *us = 0;
    if (!take_char(t, ".", &dot))
        return true;
    int digits = 0, d;
    for (int64_t unit = US_PER_S / 10; take_digit(t, &d); unit /= 10, digits++)
        *us += unit * d;
    return digits >= 1 && digits <= 9;
}

static bool take_zone(struct text *t, int64_t *offset_s)
{
    char sign;
    int hour, minute;
    *offset_s = 0;
    if (take_char(t, "Zz", &sign))
        return true;
    if (!take_char(t, "+-", &sign) || !take_number(t, 2, 0, 23, ':', &hour) ||
        !take_number(t, 2, 0, 59, 0, &minute))
        return false;
    *offset_s = ((int64_t)hour * 60 + minute) * (sign == '-' ? -60 : 60);
    return true;
}

int clock_parse_rfc3339(const char *s, size_t n, int64_t *wall_us)
{
    struct text t = {s, s + n};
    int64_t seconds, us, offset_s;
    if (!take_date_time(&t, &seconds) || !take_fraction(&t, &us) || !take_zone(&t, &offset_s) ||
        t.p != t.end)
        return -1;
    seconds -= offset_s;
    if (seconds < YEAR_1_S || seconds >= YEAR_10000_S)
        return -1;
    *wall_us = seconds * US_PER_S + us;
    return 0;
}

/* ---- randomness ---- */

void clock_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

struct timespec clock_after_us(uint64_t us)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += (time_t)(us / 1000000);
    t.tv_nsec += (long)(us % 1000000) * 1000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

struct timespec clock_after_ms(uint64_t ms)
{
    return clock_after_us(ms * 1000);
}

void random_bytes(void *out, size_t n)
{
    uint8_t *p = out;
    while (n > 0) {
        ssize_t got = getrandom(p, n, 0);
        ASSERT(got > 0 || (got < 0 && errno == EINTR));
        if (got > 0) {
            p += got;
            n -= (size_t)got;
        }
    }
}
