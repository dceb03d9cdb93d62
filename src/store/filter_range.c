/* Comparisons of numbers as ranges of the feature's own type, exact whatever the two types are.
 *
 *   int32  x < 1.5      x in [INT32_MIN, 1]         float64  x > 2^53 + 1    x in [2^53 + 2, inf]
 *   int64  x = 0.5      empty                       float64  x = 2^53 + 1    empty
 *
 * So that evaluation tests two bounds, whatever was written. `!=` is the range of `=`, inverted by
 * the caller, since NaN lies in no range and differs from everything.
 *
 * Pure functions: no threads, no failure. */
#include "store/filter_internal.h"

#include <float.h>
#include <math.h>

#define TWO_63 9223372036854775808.0

uint8_t compare_int_float(int64_t a, double b)
{
    if (isnan(b))
        return UNORDERED;
    if (b >= TWO_63)
        return LESS;
    if (b < -TWO_63)
        return GREATER;
    int64_t whole = (int64_t)b; /* toward zero */
    if (a != whole)
        return a < whole ? LESS : GREATER;
    double rest = b - (double)whole;
    return rest > 0 ? LESS : rest < 0 ? GREATER : EQUAL;
}

/* ---- bytes ---- */

uint8_t compare_bytes(const void *a, size_t na, const void *b, size_t nb)
{
    int order = memcmp(a, b, na < nb ? na : nb);
    if (order == 0)
        return na < nb ? LESS : na > nb ? GREATER : EQUAL;
    return order < 0 ? LESS : GREATER;
}

/* ---- whole numbers ---- */

/* The greatest int64 not above d, and whether d is one; d is within int64. */
static int64_t floor_int(double d, bool *is_whole)
{
    double below = floor(d);
    *is_whole = below == d;
    return (int64_t)below;
}

/* The range of what compares so with `at`, or, when it is not exact, with something between `at`
 * and at + 1. */
static void bounds_int(int64_t at, bool exact, uint8_t verdicts, int64_t *lo, int64_t *hi)
{
    *lo = INT64_MIN;
    *hi = INT64_MAX;
    bool empty = false;
    if (!exact) {
        if (!(verdicts & LESS)) {
            empty = !(verdicts & GREATER);
            *lo = at + 1; /* a number that is not whole is below 2^52 */
        } else {
            *hi = at;
        }
    } else if (!(verdicts & LESS)) {
        empty = !(verdicts & EQUAL) && at == INT64_MAX;
        *lo = verdicts & EQUAL || empty ? at : at + 1;
        if (!(verdicts & GREATER))
            *hi = at;
    } else {
        empty = !(verdicts & EQUAL) && at == INT64_MIN;
        *hi = verdicts & EQUAL || empty ? at : at - 1;
    }
    if (empty) {
        *lo = 1;
        *hi = 0;
    }
}

void range_int(struct number n, uint8_t verdicts, int64_t min, int64_t max, int64_t *lo,
               int64_t *hi)
{
    bool exact = true;
    int64_t at = n.i;
    if (!n.whole && (n.d >= TWO_63 || n.d < -TWO_63)) { /* beyond every value */
        bool all = verdicts & (n.d > 0 ? LESS : GREATER);
        *lo = all ? min : 1;
        *hi = all ? max : 0;
        return;
    }
    if (!n.whole)
        at = floor_int(n.d, &exact);
    bounds_int(at, exact, verdicts, lo, hi);
    *lo = *lo < min ? min : *lo;
    *hi = *hi > max ? max : *hi;
}

/* ---- floating numbers ---- */

/* The range of what compares so with a number between `below` and `above`, equal to both when it is
 * of the type itself. `next` steps to a neighbour in the type. */
static void bounds_float(double below, double above, uint8_t verdicts,
                         double (*next)(double from, double to), double *lo, double *hi)
{
    bool exact = below == above;
    *lo = -INFINITY;
    *hi = INFINITY;
    if (!(verdicts & LESS))
        *lo = exact && !(verdicts & EQUAL) ? next(above, INFINITY) : above;
    if (!(verdicts & GREATER))
        *hi = exact && !(verdicts & EQUAL) ? next(below, -INFINITY) : below;
    /* `=` with a number that the type has not: above > below, the range is empty by itself */
}

static double next_double(double from, double to)
{
    return nextafter(from, to);
}

static double next_float(double from, double to)
{
    return nextafterf((float)from, (float)to);
}

void range_float64(struct number n, uint8_t verdicts, double *lo, double *hi)
{
    double below = n.d, above = n.d;
    uint8_t order = n.whole ? compare_int_float(n.i, n.d) : EQUAL;
    if (order == LESS)
        below = nextafter(n.d, -INFINITY);
    else if (order == GREATER)
        above = nextafter(n.d, INFINITY);
    bounds_float(below, above, verdicts, next_double, lo, hi);
}

void range_float32(struct number n, uint8_t verdicts, double *lo, double *hi)
{
    float f = (float)n.d;
    double below = f, above = f;
    if (isinf(f)) { /* beyond the type: between its last finite value and infinity */
        below = f > 0 ? FLT_MAX : -INFINITY;
        above = f > 0 ? INFINITY : -FLT_MAX;
    }
    bounds_float(below, above, verdicts, next_float, lo, hi);
}
