/* The kernels' loops, written once: each kernels_<isa>.c defines the vector operations below and
 * includes this file.
 *
 *   ISA            attribute of every function (the target)
 *   ISA_LEVEL      of enum kernels_level; ISA_NAME "avx2"
 *   ISA_TABLE      the name of the struct kernels to define
 *   VEC, LANES     a vector of LANES floats
 *   LOAD(p)        LANES floats from any address; LOAD_PART(p, n) the first n < LANES, zeros after
 *   ZERO() ADD(a, b) SUB(a, b) FMA(a, b, c) = a * b + c
 *   SUM(v)         the sum of the lanes; SUM4(v, out) those of v[0..3]
 *   CODE_L2_4, CODE_DOT_4, CODE8_L2_4   functions on codes, which have little in common
 *   DOT_DOUBLE, SQUARES_DOUBLE   from distance.c
 *
 * The single forms keep four accumulators in flight, the forms over four rows one for each row:
 * either way at most d / LANES + 4 additions follow each other in a lane, which kernels_error
 * bounds for the narrowest LANES. Loads never pass the end of a row. */

ISA static inline VEC body_square_add(VEC x, VEC y, VEC sum)
{
    VEC t = SUB(x, y);
    return FMA(t, t, sum);
}

ISA static float body_l2sqr(const float *x, const float *y, size_t d)
{
    VEC a = ZERO(), b = ZERO(), c = ZERO(), e = ZERO();
    size_t i = 0;
    for (; i + 4 * LANES <= d; i += 4 * LANES) {
        a = body_square_add(LOAD(x + i), LOAD(y + i), a);
        b = body_square_add(LOAD(x + i + LANES), LOAD(y + i + LANES), b);
        c = body_square_add(LOAD(x + i + 2 * LANES), LOAD(y + i + 2 * LANES), c);
        e = body_square_add(LOAD(x + i + 3 * LANES), LOAD(y + i + 3 * LANES), e);
    }
    for (; i + LANES <= d; i += LANES)
        a = body_square_add(LOAD(x + i), LOAD(y + i), a);
    if (i < d)
        b = body_square_add(LOAD_PART(x + i, d - i), LOAD_PART(y + i, d - i), b);
    return SUM(ADD(ADD(a, b), ADD(c, e)));
}

ISA static float body_dot(const float *x, const float *y, size_t d)
{
    VEC a = ZERO(), b = ZERO(), c = ZERO(), e = ZERO();
    size_t i = 0;
    for (; i + 4 * LANES <= d; i += 4 * LANES) {
        a = FMA(LOAD(x + i), LOAD(y + i), a);
        b = FMA(LOAD(x + i + LANES), LOAD(y + i + LANES), b);
        c = FMA(LOAD(x + i + 2 * LANES), LOAD(y + i + 2 * LANES), c);
        e = FMA(LOAD(x + i + 3 * LANES), LOAD(y + i + 3 * LANES), e);
    }
    for (; i + LANES <= d; i += LANES)
        a = FMA(LOAD(x + i), LOAD(y + i), a);
    if (i < d)
        b = FMA(LOAD_PART(x + i, d - i), LOAD_PART(y + i, d - i), b);
    return SUM(ADD(ADD(a, b), ADD(c, e)));
}

ISA static float body_dot_norm(const float *x, const float *y, size_t d, float *norm)
{
    VEC a = ZERO(), b = ZERO(), na = ZERO(), nb = ZERO();
    size_t i = 0;
    for (; i + 2 * LANES <= d; i += 2 * LANES) {
        VEC v = LOAD(y + i), w = LOAD(y + i + LANES);
        a = FMA(LOAD(x + i), v, a);
        na = FMA(v, v, na);
        b = FMA(LOAD(x + i + LANES), w, b);
        nb = FMA(w, w, nb);
    }
    for (; i < d; i += LANES) {
        bool whole = d - i >= LANES;
        VEC v = whole ? LOAD(y + i) : LOAD_PART(y + i, d - i);
        a = FMA(whole ? LOAD(x + i) : LOAD_PART(x + i, d - i), v, a);
        na = FMA(v, v, na);
    }
    *norm = SUM(ADD(na, nb));
    return SUM(ADD(a, b));
}

ISA static void body_l2sqr_4(const float *x, const float *const y[4], size_t d, float out[4])
{
    VEC s[4] = {ZERO(), ZERO(), ZERO(), ZERO()};
    size_t i = 0;
    for (; i + LANES <= d; i += LANES) {
        VEC q = LOAD(x + i);
        for (int r = 0; r < 4; r++)
            s[r] = body_square_add(q, LOAD(y[r] + i), s[r]);
    }
    if (i < d) {
        VEC q = LOAD_PART(x + i, d - i);
        for (int r = 0; r < 4; r++)
            s[r] = body_square_add(q, LOAD_PART(y[r] + i, d - i), s[r]);
    }
    SUM4(s, out);
}

ISA static void body_dot_4(const float *x, const float *const y[4], size_t d, float out[4])
{
    VEC s[4] = {ZERO(), ZERO(), ZERO(), ZERO()};
    size_t i = 0;
    for (; i + LANES <= d; i += LANES) {
        VEC q = LOAD(x + i);
        for (int r = 0; r < 4; r++)
            s[r] = FMA(q, LOAD(y[r] + i), s[r]);
    }
    if (i < d) {
        VEC q = LOAD_PART(x + i, d - i);
        for (int r = 0; r < 4; r++)
            s[r] = FMA(q, LOAD_PART(y[r] + i, d - i), s[r]);
    }
    SUM4(s, out);
}

ISA static void body_dot_norm_4(const float *x, const float *const y[4], size_t d, float dot[4],
                                float norm[4])
{
    VEC s[4] = {ZERO(), ZERO(), ZERO(), ZERO()};
    VEC n[4] = {ZERO(), ZERO(), ZERO(), ZERO()};
    size_t i = 0;
    for (; i + LANES <= d; i += LANES) {
        VEC q = LOAD(x + i);
        for (int r = 0; r < 4; r++) {
            VEC v = LOAD(y[r] + i);
            s[r] = FMA(q, v, s[r]);
            n[r] = FMA(v, v, n[r]);
        }
    }
    if (i < d) {
        VEC q = LOAD_PART(x + i, d - i);
        for (int r = 0; r < 4; r++) {
            VEC v = LOAD_PART(y[r] + i, d - i);
            s[r] = FMA(q, v, s[r]);
            n[r] = FMA(v, v, n[r]);
        }
    }
    SUM4(s, dot);
    SUM4(n, norm);
}

const struct kernels ISA_TABLE = {
    .level = ISA_LEVEL,
    .name = ISA_NAME,
    .l2sqr = body_l2sqr,
    .dot = body_dot,
    .dot_norm = body_dot_norm,
    .l2sqr_4 = body_l2sqr_4,
    .dot_4 = body_dot_4,
    .dot_norm_4 = body_dot_norm_4,
    .code_l2_4 = CODE_L2_4,
    .code_dot_4 = CODE_DOT_4,
    .code8_l2_4 = CODE8_L2_4,
    .dot_double = DOT_DOUBLE,
    .squares_double = SQUARES_DOUBLE,
};
