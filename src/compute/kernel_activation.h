/* Activations and their derivatives, sixteen elements at a time. */
#include "kernels.h"
#include "lanes.h"

PX_INLINE px_part sigmoid(px_part x)
{
    return px_part_set(1) / (px_part_exp(-x) + 1);
}

#ifdef PX_DOUBLE
PX_INLINE px_part normal_cdf(px_part x)
{
    px_part y;
    for (int i = 0; i < PX_PART_LANES; i++) y[i] = 0.5 * erfc(-x[i] * 0.70710678118654752440);
    return y;
}
#else
/* (1 + erf(x / sqrt 2)) / 2 with two minimax polynomials: erf itself below 0.93, the exponent of erfc above, so that the
 * left tail keeps its relative accuracy. */
PX_INLINE px_part normal_cdf(px_part x)
{
    px_part a = x * 0.70710678f, s = a * a, t = px_part_max(a, -a);
    t = px_part_min(px_part_set(9.0f), t);
    px_part far = px_part_fma(px_part_set(-1.72853470e-5f), t, px_part_set(3.83197126e-4f));
    px_part u = px_part_fma(px_part_set(-3.88396438e-3f), t, px_part_set(2.42546219e-2f));
    px_part tt = t * t;
    far = px_part_fma(far, tt, u);
    far = px_part_fma(far, t, px_part_set(-1.06777877e-1f));
    far = px_part_fma(far, t, px_part_set(-6.34846687e-1f));
    far = px_part_fma(far, t, px_part_set(-1.28717512e-1f));
    far = px_part_fma(far, t, -t);
    px_part tail = 0.5f * px_part_exp(far);
    far = px_part_select(a < 0.0f, tail, 1.0f - tail);
    px_part near = px_part_set(-5.96761703e-4f);
    near = px_part_fma(near, s, px_part_set(4.99119423e-3f));
    near = px_part_fma(near, s, px_part_set(-2.67681349e-2f));
    near = px_part_fma(near, s, px_part_set(1.12819925e-1f));
    near = px_part_fma(near, s, px_part_set(-3.76125336e-1f));
    near = px_part_fma(near, s, px_part_set(1.28379166e-1f));
    near = px_part_fma(near, a, a);
    near = px_part_fma(px_part_set(0.5f), near, px_part_set(0.5f));
    return px_part_select(t > 0.927734375f, far, near);
}
#endif

/* value = act(x), slope = act'(x). (1 + tanh u) / 2 = sigmoid(2u), so the tanh form of GELU is x sigmoid(2u). */
PX_INLINE void act(px_activation kind, px_part x, px_part *value, px_part *slope)
{
    const px_real root = (px_real)0.79788456080286535588; /* sqrt(2 / pi) */
    px_part s, one = px_part_set(1);
    switch (kind) {
    case PX_GELU_TANH: {
        px_part square = x * x;
        px_part cubic = px_part_fma(square, px_part_set((px_real)0.044715), one);
        s = sigmoid(2 * root * x * cubic);
        px_part inner = 2 * root * px_part_fma(square, px_part_set((px_real)(3 * 0.044715)), one);
        *value = x * s;
        *slope = px_part_fma(x * s * (1 - s), inner, s);
        break;
    }
    case PX_GELU_ERF:
        s = normal_cdf(x);
        *value = x * s;
        *slope = px_part_fma(x * (px_real)0.39894228040143267794, px_part_exp((px_real)-0.5 * x * x), s);
        break;
    case PX_SILU:
        s = sigmoid(x);
        *value = x * s;
        *slope = s * px_part_fma(x, 1 - s, one);
        break;
    case PX_RELU:
    default:
        *value = px_part_select(x <= 0, px_part_set(0), x);
        *slope = px_part_select(x <= 0, px_part_set(0), one);
    }
}

PX_INLINE void act_lanes(px_activation kind, px_lanes x, px_lanes *value, px_lanes *slope)
{
    PX_EACH_PART act(kind, x.p[i], &value->p[i], &slope->p[i]);
}

PX_INLINE void activation_of(px_activation kind, px_real *y, const px_real *x, const px_real *up, size_t count)
{
    for (size_t i = 0; i < count; i += PX_LANES) {
        int n = count - i < PX_LANES ? (int)(count - i) : PX_LANES;
        px_lanes value, slope;
        act_lanes(kind, px_lanes_read(x + i, 0, n), &value, &slope);
        if (up) value = px_lanes_mul(value, px_lanes_read(up + i, 0, n));
        px_lanes_write(y + i, value, 0, n);
    }
}

PX_INLINE void activation_backward_of(px_activation kind, px_real *dx, px_real *dup, const px_real *dy,
                                      const px_real *x, const px_real *up, size_t count)
{
    for (size_t i = 0; i < count; i += PX_LANES) {
        int n = count - i < PX_LANES ? (int)(count - i) : PX_LANES;
        px_lanes value, slope, g = px_lanes_read(dy + i, 0, n);
        act_lanes(kind, px_lanes_read(x + i, 0, n), &value, &slope);
        if (up) {
            px_lanes_write(dup + i, px_lanes_mul(g, value), 0, n);
            g = px_lanes_mul(g, px_lanes_read(up + i, 0, n));
        }
        px_lanes_write(dx + i, px_lanes_mul(g, slope), 0, n);
    }
}

static void activation(px_activation kind, px_real *y, const px_real *x, const px_real *up, size_t count)
{
    switch (kind) {
    case PX_GELU_TANH: activation_of(PX_GELU_TANH, y, x, up, count); break;
    case PX_GELU_ERF: activation_of(PX_GELU_ERF, y, x, up, count); break;
    case PX_SILU: activation_of(PX_SILU, y, x, up, count); break;
    case PX_RELU: activation_of(PX_RELU, y, x, up, count); break;
    }
}

static void activation_backward(px_activation kind, px_real *dx, px_real *dup, const px_real *dy, const px_real *x,
                                const px_real *up, size_t count)
{
    switch (kind) {
    case PX_GELU_TANH: activation_backward_of(PX_GELU_TANH, dx, dup, dy, x, up, count); break;
    case PX_GELU_ERF: activation_backward_of(PX_GELU_ERF, dx, dup, dy, x, up, count); break;
    case PX_SILU: activation_backward_of(PX_SILU, dx, dup, dy, x, up, count); break;
    case PX_RELU: activation_backward_of(PX_RELU, dx, dup, dy, x, up, count); break;
    }
}
