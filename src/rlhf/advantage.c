/* Closed forms of advantages, KL and their statistics. */
#include "phalanx/rlhf.h"

#include <math.h>

double px_kl_estimate(px_kl_estimator kind, double logprob, double ref_logprob)
{
    double d = logprob - ref_logprob;
    return kind == PX_K1 ? d : kind == PX_K2 ? 0.5 * d * d : expm1(-d) + d;
}

double px_kl_gradient(px_kl_estimator kind, double logprob, double ref_logprob)
{
    double d = logprob - ref_logprob;
    return kind == PX_K1 ? 1.0 : kind == PX_K2 ? d : -expm1(-d);
}

void px_gae(double *advantages, double *returns, const double *rewards, const double *values, const uint8_t *mask, int n,
            double gamma, double lambda, double bootstrap)
{
    double next_value = bootstrap, next_advantage = 0.0;
    for (int t = n - 1; t >= 0; t--) {
        if (mask != NULL && !mask[t]) { /* not an action: time does not pass */
            advantages[t] = returns[t] = 0.0;
            continue;
        }
        double delta = rewards[t] + gamma * next_value - values[t];
        next_advantage = delta + gamma * lambda * next_advantage;
        next_value = values[t];
        advantages[t] = next_advantage;
        returns[t] = next_advantage + values[t];
    }
}

void px_whiten(double *x, int64_t n, bool shift_mean)
{
    double sum = 0.0, squares = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sum += x[i];
    }
    double mean = n > 0 ? sum / (double)n : 0.0;
    for (int64_t i = 0; i < n; i++) {
        squares += (x[i] - mean) * (x[i] - mean);
    }
    double scale = 1.0 / sqrt(n > 0 ? squares / (double)n + 1e-8 : 1.0);
    for (int64_t i = 0; i < n; i++) {
        x[i] = (x[i] - mean) * scale + (shift_mean ? 0.0 : mean);
    }
}

px_moments px_moments_merge(px_moments a, px_moments b)
{
    double n = a.n + b.n;
    if (n == 0.0) {
        return (px_moments){0};
    }
    double d = b.mean - a.mean;
    return (px_moments){n, a.mean + d * b.n / n, a.m2 + b.m2 + d * d * a.n * b.n / n};
}

double px_kl_adapt(double coeff, double kl, double target, double horizon, double n)
{
    double error = isfinite(kl) ? kl / target - 1.0 : 0.0; /* what is no number moves nothing */
    error = error > 0.2 ? 0.2 : error < -0.2 ? -0.2 : error;
    return coeff * (1.0 + error * n / horizon);
}

static double variance(const double *x, const double *minus, int64_t n)
{
    double sum = 0.0, squares = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sum += x[i] - (minus != NULL ? minus[i] : 0.0);
    }
    for (int64_t i = 0; i < n; i++) {
        double d = x[i] - (minus != NULL ? minus[i] : 0.0) - sum / (double)n;
        squares += d * d;
    }
    return squares / (double)n;
}

double px_explained_variance(const double *returns, const double *values, int64_t n)
{
    return n > 0 ? 1.0 - variance(returns, values, n) / (variance(returns, NULL, n) + 1e-5) : NAN;
}
