/* Numbers as text through <charconv>.
 *
 * std::from_chars rounds correctly but says "out of range" for both ends of the scale and leaves
 * the value alone. Only the large end is an error here, so a value that is out of range is read
 * again by strtof/strtod, which tell infinity from a denormal; the daemon never calls setlocale, so
 * they read the C locale's point.
 *
 * Threads: no state. Failure: a status; nothing throws. */
#include "api/number.h"

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>

namespace
{

float slow_parse(const char *text, float)
{
    return std::strtof(text, nullptr);
}

double slow_parse(const char *text, double)
{
    return std::strtod(text, nullptr);
}

template <typename T> number_status parse_out_of_range(const char *text, size_t n, T *out)
{
    char copy[NUMBER_CHARS_MAX + 1];
    std::memcpy(copy, text, n);
    copy[n] = 0;
    T value = slow_parse(copy, T());
    if (std::isinf(value))
        return NUMBER_RANGE;
    *out = value;
    return NUMBER_OK;
}

template <typename T> number_status parse_real(const char *text, size_t n, T *out)
{
    if (n > NUMBER_CHARS_MAX)
        return NUMBER_MALFORMED;
    T value;
    auto [end, error] = std::from_chars(text, text + n, value);
    if (error == std::errc::result_out_of_range && end == text + n)
        return parse_out_of_range(text, n, out);
    if (error != std::errc() || end != text + n)
        return NUMBER_MALFORMED;
    if (!std::isfinite(value))
        return NUMBER_RANGE;
    *out = value;
    return NUMBER_OK;
}

template <typename T> size_t print(T v, char *out)
{
    return static_cast<size_t>(std::to_chars(out, out + NUMBER_TEXT_MAX, v).ptr - out);
}

} // namespace

extern "C" {

number_status number_parse_float(const char *text, size_t n, float *out)
{
    return parse_real(text, n, out);
}

number_status number_parse_double(const char *text, size_t n, double *out)
{
    return parse_real(text, n, out);
}

number_status number_parse_int64(const char *text, size_t n, int64_t *out)
{
    auto [end, error] = std::from_chars(text, text + n, *out);
    if (end != text + n || error == std::errc::invalid_argument)
        return NUMBER_MALFORMED;
    return error == std::errc() ? NUMBER_OK : NUMBER_RANGE;
}

size_t number_print_float(float v, char out[NUMBER_TEXT_MAX])
{
    return print(v, out);
}

size_t number_print_double(double v, char out[NUMBER_TEXT_MAX])
{
    return print(v, out);
}

size_t number_print_int64(int64_t v, char out[NUMBER_TEXT_MAX])
{
    return print(v, out);
}

} // extern "C"
