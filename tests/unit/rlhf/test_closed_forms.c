/* The closed forms of the losses, advantages and statistics against numbers computed by hand (six digits, so the
 * tolerance
 * is half a unit of the last), and every gradient against central differences. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "phalanx/rlhf.h"

#define SIX 5.1e-7
#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

static void near(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance)) {
        fail_msg("got %.12g, want %.12g", got, want);
    }
}

static void all_near(const double *got, const double *want, int n, double tolerance)
{
    for (int i = 0; i < n; i++) {
        near(got[i], want[i], tolerance);
    }
}

/* ---- advantages -------------------------------------------------------------------------------------------------- */

static const double rewards[4] = {-0.01, 0.02, -0.03, 0.98}, values[4] = {0.5, 0.4, 0.6, 0.2};

static void check_gae(double gamma, double lambda, double bootstrap, const double want[4])
{
    double a[4], returns[4];
    px_gae(a, returns, rewards, values, NULL, 4, gamma, lambda, bootstrap);
    all_near(a, want, 4, SIX);
    for (int i = 0; i < 4; i++) {
        near(returns[i], a[i] + values[i], 1e-15);
    }
}

static void gae_follows_the_recursion(void **state)
{
    (void)state;
    check_gae(1.0, 0.95, 0.0, (const double[]){0.379677, 0.515450, 0.311000, 0.780000});
    check_gae(1.0, 1.0, 0.0, (const double[]){0.46, 0.57, 0.35, 0.78});
    check_gae(0.99, 0.95, 0.0, (const double[]){0.354035, 0.497645, 0.301590, 0.78});
    check_gae(1.0, 0.95, 0.3, (const double[]){0.636890, 0.786200, 0.596, 1.08});
    double a[4], returns[4];
    px_gae(a, returns, rewards, values, NULL, 4, 1.0, 0.95, 0.0);
    all_near(returns, (const double[]){0.879677, 0.915450, 0.911000, 0.980000}, 4, SIX);
}

/* With lambda 1 the return is the discounted sum of rewards, whatever the values; with lambda 0 the advantage is the
 * one-step error. */
static void gae_at_its_limits(void **state)
{
    (void)state;
    double a[4], returns[4], sum = 0.7;
    px_gae(a, returns, rewards, values, NULL, 4, 0.9, 1.0, 0.7);
    for (int t = 3; t >= 0; t--) {
        sum = rewards[t] + 0.9 * sum;
        near(returns[t], sum, 1e-15);
    }
    px_gae(a, returns, rewards, values, NULL, 4, 0.9, 0.0, 0.7);
    for (int t = 0; t < 4; t++) {
        near(a[t], rewards[t] + 0.9 * (t < 3 ? values[t + 1] : 0.7) - values[t], 1e-15);
    }
}

static void gae_skips_what_is_no_action(void **state)
{
    (void)state;
    const double r[4] = {-0.01, 5, 7, 0.98}, v[4] = {0.5, 9, 9, 0.2};
    const uint8_t mask[4] = {1, 0, 0, 1};
    double a[4], returns[4];
    px_gae(a, returns, r, v, mask, 4, 1.0, 0.95, 0.0);
    all_near(a, (const double[]){0.431, 0, 0, 0.78}, 4, 1e-12);
    const double rc[2] = {-0.01, 0.98}, vc[2] = {0.5, 0.2};
    double compact[2], compact_returns[2];
    px_gae(compact, compact_returns, rc, vc, NULL, 2, 1.0, 0.95, 0.0);
    near(a[0], compact[0], 0.0);
    near(a[3], compact[1], 0.0);
    near(returns[0], compact_returns[0], 0.0);
    near(returns[3], compact_returns[1], 0.0);
}

static void whitening(void **state)
{
    (void)state;
    double x[4] = {1, 2, 3, 4}, y[4] = {1, 2, 3, 4}, one[1] = {5};
    px_whiten(x, 4, true);
    all_near(x, (const double[]){-1.341641, -0.447214, 0.447214, 1.341641}, 4, SIX);
    px_whiten(y, 4, false);
    all_near(y, (const double[]){1.158359, 2.052786, 2.947214, 3.841641}, 4, SIX);
    px_whiten(one, 1, true); /* no division by zero */
    near(one[0], 0.0, 0.0);
    px_whiten(one, 0, true);
    double constant[3] = {0.3, 0.3, 0.3};
    px_whiten(constant, 3, true);
    all_near(constant, (const double[]){0, 0, 0}, 3, 1e-10);
}

static void moments_merge(void **state)
{
    (void)state;
    /* {1, 2} and {3, 4, 10} */
    px_moments m = px_moments_merge((px_moments){2, 1.5, 0.5}, (px_moments){3, 17.0 / 3.0, 86.0 / 3.0});
    near(m.n, 5, 0.0);
    near(m.mean, 4, 1e-14);
    near(m.m2, 50, 1e-12);
    px_moments none = {0}, same = px_moments_merge(none, m);
    near(same.mean, m.mean, 0.0);
    near(same.m2, m.m2, 0.0);
    same = px_moments_merge(m, none);
    near(same.mean, m.mean, 0.0);
    near(same.m2, m.m2, 0.0);
    near(px_moments_merge(none, none).n, 0.0, 0.0);
    /* one at a time, far from zero, where a sum of squares would cancel */
    px_moments far = none;
    for (int i = 0; i < 1000; i++) {
        far = px_moments_merge(far, (px_moments){1.0, 1e9 + i % 2, 0.0});
    }
    near(far.mean, 1e9 + 0.5, 1e-6);
    near(far.m2 / far.n, 0.25, 1e-6);
}

static void explained_variance(void **state)
{
    (void)state;
    const double returns[4] = {1, 2, 3, 4}, v[4] = {1.5, 1.5, 3.5, 3.5}, shifted[4] = {11, 12, 13, 14};
    near(px_explained_variance(returns, v, 4), 0.800001, 1e-6);
    near(px_explained_variance(returns, v, 4), 1.0 - 0.25 / (1.25 + 1e-5), 1e-14);
    near(px_explained_variance(returns, shifted, 4), 1.0, 1e-14); /* a constant error explains all variance */
    assert_true(isnan(px_explained_variance(returns, v, 0)));
}

/* ---- KL ---------------------------------------------------------------------------------------------------------- */

static void kl_estimators(void **state)
{
    (void)state;
    near(px_kl_estimate(PX_K1, -1.0, -1.5), 0.5, 1e-15);
    near(px_kl_estimate(PX_K2, -1.0, -1.5), 0.125, 1e-15);
    near(px_kl_estimate(PX_K3, -1.0, -1.5), 0.106531, SIX);
    near(px_kl_estimate(PX_K1, -1.5, -1.0), -0.5, 1e-15);
    near(px_kl_estimate(PX_K2, -1.5, -1.0), 0.125, 1e-15);
    near(px_kl_estimate(PX_K3, -1.5, -1.0), 0.148721, SIX);
    near(px_kl_gradient(PX_K3, -1.0, -1.5), 0.393469, SIX);
    /* small differences keep their digits: k3 = d^2 / 2 - d^3 / 6 */
    near(px_kl_estimate(PX_K3, 1e-6, 0.0) / 5e-13, 1.0, 1e-3);

    const double p[3] = {0.5, 0.3, 0.2}, q[3] = {0.4, 0.4, 0.2};
    const double want[3] = {0.02526715, 0.02486241, 0.02526715};
    for (int kind = PX_K1; kind <= PX_K3; kind++) {
        double mean = 0.0;
        for (int i = 0; i < 3; i++) {
            mean += p[i] * px_kl_estimate((px_kl_estimator)kind, log(p[i]), log(q[i]));
        }
        near(mean, want[kind], 5.1e-9);
    }
}

static void kl_gradients_are_slopes(void **state)
{
    (void)state;
    const double points[] = {-3.0, -0.7, -1e-3, 0.0, 0.2, 1.9}, h = 1e-5;
    for (int kind = PX_K1; kind <= PX_K3; kind++) {
        for (int i = 0; i < COUNT(points); i++) {
            px_kl_estimator k = (px_kl_estimator)kind;
            double slope = (px_kl_estimate(k, points[i] + h, 0.0) - px_kl_estimate(k, points[i] - h, 0.0)) / (2.0 * h);
            near(px_kl_gradient(k, points[i], 0.0), slope, 1e-8);
        }
    }
}

static void kl_coefficient_adapts(void **state)
{
    (void)state;
    near(px_kl_adapt(0.15, 9.0, 6.0, 10000.0, 512.0), 0.151536, SIX);
    near(px_kl_adapt(0.15, 6.3, 6.0, 10000.0, 512.0), 0.150384, SIX);
    near(px_kl_adapt(0.15, 1.0, 6.0, 10000.0, 512.0), 0.148464, SIX);
    near(px_kl_adapt(0.15, 6.0, 6.0, 10000.0, 512.0), 0.15, 1e-15);
}

/* The per-token rewards of one sequence: -beta k1, with the score on the last token. */
static void kl_in_the_reward(void **state)
{
    (void)state;
    const double old[3] = {-1, -2, -0.5}, ref[3] = {-1.2, -1.7, -0.5}, want[3] = {-0.02, 0.03, 1.0};
    double kl = 0.0, sum = 0.0;
    for (int t = 0; t < 3; t++) {
        double d = px_kl_estimate(PX_K1, old[t], ref[t]), r = -0.1 * d + (t == 2 ? 1.0 : 0.0);
        near(r, want[t], 1e-15);
        kl += d;
        sum += r;
    }
    near(kl, -0.1, 1e-15);
    near(sum, 1.01, 1e-15);
}

/* ---- losses ------------------------------------------------------------------------------------------------------ */

static double policy(double ratio, double advantage, double high, double dual, double *gradient)
{
    bool clipped;
    double r, loss = px_ppo_policy_loss(log(ratio), 0.0, advantage, 0.2, high, dual, gradient, &clipped, &r);
    near(r, ratio, 1e-12);
    return loss;
}

static void policy_loss_by_branch(void **state)
{
    (void)state;
    static const struct {
        double ratio, advantage, high, dual, loss, gradient;
    } cases[] = {
        {1.3, 1, 0.2, 0, -1.2, 0},     {1.3, -1, 0.2, 0, 1.3, 1.3},
        {0.7, 1, 0.2, 0, -0.7, -0.7},  {0.7, -1, 0.2, 0, 0.8, 0},
        {1.1, 2, 0.2, 0, -2.2, -2.2},  {5, -1, 0.2, 0, 5, 5},
        {5, -1, 0.2, 3, 3, 0},         {2.5, -1, 0.2, 3, 2.5, 2.5},
        {1.3, 1, 0.28, 0, -1.28, 0},   {0.75, -1, 0.28, 0, 0.8, 0},
        {0.5, 1, 0.2, 3, -0.5, -0.5}, /* dual clip leaves A > 0 alone */
        {1.0, 1, 0.2, 0, -1, -1},      {1.0, -1, 0.2, 0, 1, 1}, /* a tie lets the gradient through */
    };
    for (int i = 0; i < COUNT(cases); i++) {
        double gradient;
        near(policy(cases[i].ratio, cases[i].advantage, cases[i].high, cases[i].dual, &gradient), cases[i].loss, 1e-12);
        near(gradient, cases[i].gradient, 1e-12);
    }
}

static void policy_loss_of_a_batch(void **state)
{
    (void)state;
    const double old[3] = {-1, -2, -0.5}, new[3] = {-0.9, -2.3, -0.5}, advantage[3] = {1, -1, 0.5};
    const double ratios[3] = {1.105171, 0.740818, 1.0}, losses[3] = {-1.105171, 0.8, -0.5};
    const double slopes[3] = {-0.368390, 0.0, -0.166667};
    double mean = 0.0, clipfrac = 0.0, approxkl = 0.0;
    for (int i = 0; i < 3; i++) {
        double gradient, ratio;
        bool clipped;
        double loss = px_ppo_policy_loss(new[i], old[i], advantage[i], 0.2, 0.2, 0.0, &gradient, &clipped, &ratio);
        near(ratio, ratios[i], SIX);
        near(loss, losses[i], SIX);
        near(gradient / 3.0, slopes[i], SIX);
        mean += loss / 3.0;
        clipfrac += clipped / 3.0;
        approxkl += 0.5 * (new[i] - old[i]) * (new[i] - old[i]) / 3.0;
    }
    near(mean, -0.268390, SIX);
    near(clipfrac, 0.333333, SIX);
    near(approxkl, 0.016667, SIX);
}

static void policy_gradients_are_slopes(void **state)
{
    (void)state;
    const double points[] = {-1.5, -0.3, -0.15, 0.0, 0.1, 0.24, 0.4, 1.2, 2.0}, advantages[] = {-1.7, 0.6}, h = 1e-6;
    for (int dual = 0; dual <= 3; dual += 3) {
        for (int a = 0; a < COUNT(advantages); a++) {
            for (int i = 0; i < COUNT(points); i++) {
                double up, down, at, ratio;
                bool clipped;
                double high = px_ppo_policy_loss(points[i] + h, 0.0, advantages[a], 0.2, 0.28, dual, &up, &clipped,
                                                 &ratio);
                double low = px_ppo_policy_loss(points[i] - h, 0.0, advantages[a], 0.2, 0.28, dual, &down, &clipped,
                                                &ratio);
                px_ppo_policy_loss(points[i], 0.0, advantages[a], 0.2, 0.28, dual, &at, &clipped, &ratio);
                near(at, (high - low) / (2.0 * h), 1e-6);
            }
        }
    }
}

static void ratios_stay_finite(void **state)
{
    (void)state;
    double gradient, ratio;
    bool clipped;
    double loss = px_ppo_policy_loss(1000.0, -1000.0, -1.0, 0.2, 0.2, 0.0, &gradient, &clipped, &ratio);
    near(ratio, exp(20.0), 1e-3);
    assert_true(isfinite(loss) && isfinite(gradient));
    loss = px_ppo_policy_loss(-1000.0, 1000.0, 1.0, 0.2, 0.2, 0.0, &gradient, &clipped, &ratio);
    near(ratio, exp(-20.0), 1e-12);
    near(loss, -exp(-20.0), 1e-12);
}

static void value_loss_by_branch(void **state)
{
    (void)state;
    static const struct {
        double value, returns, range, loss, gradient;
        bool clipped;
    } cases[] = {
        {0.9, 1.0, 0.2, 0.045, 0.0, true},   {0.9, 0.5, 0.2, 0.08, 0.4, false}, {0.6, 1.0, 0.2, 0.08, -0.4, false},
        {0.9, 1.0, 0.0, 0.005, -0.1, false}, {0.1, 0.0, 0.2, 0.045, 0.0, true}, /* from below: held at 0.3 */
    };
    for (int i = 0; i < COUNT(cases); i++) {
        double gradient;
        bool clipped;
        near(px_ppo_value_loss(cases[i].value, 0.5, cases[i].returns, cases[i].range, &gradient, &clipped),
             cases[i].loss,
             1e-15);
        near(gradient, cases[i].gradient, 1e-15);
        assert_int_equal(clipped, cases[i].clipped);
    }
}

static void value_gradients_are_slopes(void **state)
{
    (void)state;
    const double h = 1e-6;
    for (double v = -1.0; v < 2.0; v += 0.0773) {
        for (double returns = -0.5; returns < 1.6; returns += 0.7) {
            double gradient, unused;
            bool clipped;
            double high = px_ppo_value_loss(v + h, 0.5, returns, 0.2, &unused, &clipped);
            double low = px_ppo_value_loss(v - h, 0.5, returns, 0.2, &unused, &clipped);
            px_ppo_value_loss(v, 0.5, returns, 0.2, &gradient, &clipped);
            near(gradient, (high - low) / (2.0 * h), 1e-7);
        }
    }
}

static void bradley_terry(void **state)
{
    (void)state;
    double gradient, unused;
    near(px_bt_loss(1.2, 0.4, 0.0, &gradient), 0.371101, SIX);
    near(gradient, -0.310026, SIX);
    near(px_bt_loss(1.2, 0.4, 0.5, &gradient), 0.554355, SIX);
    near(px_bt_loss(1.2, 0.4, 0.0, &gradient) + 0.01 * (1.2 + 0.4) * (1.2 + 0.4), 0.396701, SIX);
    near(px_bt_loss(800.0, 0.0, 0.0, &gradient), 0.0, 1e-300);
    near(px_bt_loss(-800.0, 0.0, 0.0, &gradient), 800.0, 1e-9);
    near(gradient, -1.0, 1e-15);
    for (double x = -5.0; x < 5.0; x += 0.37) {
        const double h = 1e-5;
        px_bt_loss(x, 0.3, 0.2, &gradient);
        near(gradient, (px_bt_loss(x + h, 0.3, 0.2, &unused) - px_bt_loss(x - h, 0.3, 0.2, &unused)) / (2.0 * h), 1e-9);
    }
}

/* ---- aggregation ------------------------------------------------------------------------------------------------- */

typedef struct cut { /* a sequence of tokens with one loss each */
    int length;
    double loss[10];
} cut;

static double aggregate(px_aggregation how, const cut *sequences, int count, double constant)
{
    double tokens = 0.0, sum = 0.0;
    for (int i = 0; i < count; i++) {
        tokens += sequences[i].length;
    }
    for (int i = 0; i < count; i++) {
        for (int t = 0; t < sequences[i].length; t++) {
            sum += px_token_weight(how, count, tokens, sequences[i].length, constant) * sequences[i].loss[t];
        }
    }
    return sum;
}

static void aggregation(void **state)
{
    (void)state;
    /* two micro-batches, 6 tokens of loss 2 and 2 of loss 8 by one count: not 5, the mean of their means */
    const cut micro[2] = {{2, {8, 8}}, {6, {2, 2, 2, 2, 2, 2}}};
    near(aggregate(PX_TOKEN_MEAN, micro, 2, 0), 3.5, 1e-14);
    const cut two[2] = {{4, {1, 2, 3, 2}}, {1, {6}}};
    near(aggregate(PX_TOKEN_MEAN, two, 2, 8), 2.8, 1e-14);
    near(aggregate(PX_SEQ_MEAN_TOKEN_MEAN, two, 2, 8), 4.0, 1e-14);
    near(aggregate(PX_SEQ_MEAN_TOKEN_SUM, two, 2, 8), 7.0, 1e-14);
    near(aggregate(PX_SEQ_MEAN_TOKEN_SUM_NORM, two, 2, 8), 0.875, 1e-14);
    const cut ranks[2] = {{3, {1, 2, 3}}, {2, {4, 6}}}; /* two ranks: sums 6 and 10, counts 3 and 2 */
    near(aggregate(PX_TOKEN_MEAN, ranks, 2, 0), 3.2, 1e-14);
}

/* Decoupled PPO: sampler -1, policy before the update -1.2; now -1.1, advantage 1 */
static void importance_is_truncated(void **state)
{
    (void)state;
    double gradient, ratio, weight = px_importance(-1.2, -1.0, 2.0);
    bool clipped;
    near(weight, 0.818731, SIX);
    double loss = px_ppo_policy_loss(-1.1, -1.2, 1.0, 0.2, 0.2, 0.0, &gradient, &clipped, &ratio);
    near(ratio, 1.105171, SIX);
    near(weight * loss, -0.904837, SIX);
    near(px_importance(-1.0, -2.0, 2.0), 2.0, 1e-15);
    near(px_importance(-1.0, -1.0, 2.0), 1.0, 0.0);
    /* E under the sampler of the untruncated weight is 1 */
    const double policy[3] = {0.5, 0.3, 0.2}, sampler[3] = {0.4, 0.4, 0.2};
    double mean = 0.0;
    for (int i = 0; i < 3; i++) {
        mean += sampler[i] * px_importance(log(policy[i]), log(sampler[i]), 1e6);
    }
    near(mean, 1.0, 1e-14);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gae_follows_the_recursion),  cmocka_unit_test(gae_at_its_limits),
        cmocka_unit_test(gae_skips_what_is_no_action), cmocka_unit_test(whitening),
        cmocka_unit_test(moments_merge),              cmocka_unit_test(explained_variance),
        cmocka_unit_test(kl_estimators),              cmocka_unit_test(kl_gradients_are_slopes),
        cmocka_unit_test(kl_coefficient_adapts),      cmocka_unit_test(kl_in_the_reward),
        cmocka_unit_test(policy_loss_by_branch),      cmocka_unit_test(policy_loss_of_a_batch),
        cmocka_unit_test(policy_gradients_are_slopes), cmocka_unit_test(ratios_stay_finite),
        cmocka_unit_test(value_loss_by_branch),       cmocka_unit_test(value_gradients_are_slopes),
        cmocka_unit_test(bradley_terry),              cmocka_unit_test(aggregation),
        cmocka_unit_test(importance_is_truncated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
