/* One row's choice against closed forms (T17 of algorithms.md) and against a plain reference on random rows. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tiny.h"

static const px_real T17[4] = {2, 1, 0, -1};

static px_sampling neutral(void)
{
    return (px_sampling){.temperature = 1, .top_p = 1, .repetition_penalty = 1, .max_new_tokens = 8};
}

static void expect(const double *p, const double *expected, int count, double tolerance)
{
    for (int i = 0; i < count; i++) {
        if (!(fabs(p[i] - expected[i]) <= tolerance)) fail_msg("p[%d] = %.9f, expected %.9f", i, p[i], expected[i]);
    }
}

static void distribution(px_sampling s, const int32_t *history, int length, const double *expected)
{
    double p[4];
    px_sample_row(T17, 4, &s, history, length, 0.5, p);
    expect(p, expected, 4, 5e-7);
}

static void temperature(void **state)
{
    (void)state;
    px_sampling s = neutral();
    distribution(s, NULL, 0, (double[]){.643914, .236883, .087144, .032059});
    s.temperature = .5;
    distribution(s, NULL, 0, (double[]){.864955, .117059, .015842, .002144});
}

static void filters(void **state)
{
    (void)state;
    const double two[] = {.731059, .268941, 0, 0}, three[] = {.665241, .244728, .090031, 0};
    px_sampling s = neutral();
    s.top_k = 2;
    distribution(s, NULL, 0, two);
    s = neutral();
    s.top_p = .8;
    distribution(s, NULL, 0, two);
    s.top_p = .9;
    distribution(s, NULL, 0, three);
    s.top_p = .1; /* at least one */
    distribution(s, NULL, 0, (double[]){1, 0, 0, 0});
    const px_real equal[4] = {0, 0, 0, 0}; /* the third token has a mass of exactly p before it */
    double p[4];
    s.top_p = .5;
    px_sample_row(equal, 4, &s, NULL, 0, 0, p);
    expect(p, (double[]){.5, .5, 0, 0}, 4, 0);
    s = neutral();
    s.min_p = .2;
    distribution(s, NULL, 0, two);
}

static void repetition(void **state)
{
    (void)state;
    px_sampling s = neutral();
    s.repetition_penalty = 1.2;
    double z[] = {2 / 1.2, 1, 0, -1.2}, expected[4], sum = 0;
    for (int i = 0; i < 4; i++) sum += exp(z[i]);
    for (int i = 0; i < 4; i++) expected[i] = exp(z[i]) / sum;
    distribution(s, (int32_t[]){0, 3, 0, 0, 3}, 5, expected); /* each distinct id once */
}

static void min_new_tokens(void **state)
{
    (void)state;
    px_sampling s = neutral();
    s.min_new_tokens = 2;
    s.stop_ids[0] = 0;
    s.stop_count = 1;
    distribution(s, (int32_t[]){1}, 1, (double[]){0, .665241, .244728, .090031});
    distribution(s, (int32_t[]){1, 1}, 2, (double[]){.643914, .236883, .087144, .032059});
}

static void greedy(void **state)
{
    (void)state;
    px_sampling s = neutral();
    s.temperature = 0;
    double p[4];
    const px_real ties[4] = {1, 3, 3, 0};
    assert_int_equal(px_sample_row(ties, 4, &s, NULL, 0, .99, p), 1);
    expect(p, (double[]){0, 1, 0, 0}, 4, 0);
    s.min_new_tokens = 1;
    s.stop_ids[0] = 1;
    s.stop_count = 1;
    assert_int_equal(px_sample_row(ties, 4, &s, NULL, 0, .99, p), 2);
}

static void inverse_cdf_in_id_order(void **state)
{
    (void)state;
    px_sampling s = neutral();
    double p[4];
    assert_int_equal(px_sample_row(T17, 4, &s, NULL, 0, 0, p), 0);
    assert_int_equal(px_sample_row(T17, 4, &s, NULL, 0, .6439, p), 0);
    assert_int_equal(px_sample_row(T17, 4, &s, NULL, 0, .6440, p), 1);
    assert_int_equal(px_sample_row(T17, 4, &s, NULL, 0, .8807, p), 1);
    assert_int_equal(px_sample_row(T17, 4, &s, NULL, 0, .8809, p), 2);
    assert_int_equal(px_sample_row(T17, 4, &s, NULL, 0, .9680, p), 3);
    assert_int_equal(px_sample_row(T17, 4, &s, NULL, 0, nextafter(1, 0), p), 3);
    s.top_k = 2; /* never a token that was dropped */
    assert_int_equal(px_sample_row(T17, 4, &s, NULL, 0, nextafter(1, 0), p), 1);
}

#define V 5000
static px_real logits[V];
static double wanted[V], got[V];
static int order[V];

static int descending(const void *a, const void *b)
{
    int i = *(const int *)a, j = *(const int *)b;
    return logits[i] > logits[j] ? -1 : logits[i] < logits[j] ? 1 : i - j;
}

/* Sorts, filters and renormalises step by step, with libm's exp. */
static void reference(const px_sampling *s)
{
    double total = 0, before = 0;
    for (int i = 0; i < V; i++) order[i] = i;
    qsort(order, V, sizeof *order, descending);
    for (int i = 0; i < V; i++) wanted[i] = exp(((double)logits[i] - (double)logits[order[0]]) / s->temperature);
    for (int i = 0; s->top_k > 0 && i < V; i++) {
        if (logits[i] < logits[order[s->top_k - 1]]) wanted[i] = 0;
    }
    for (int i = 0; i < V; i++) total += wanted[i];
    for (int i = 0; i < V; i++) {
        double w = wanted[order[i]];
        if (before >= s->top_p * total) wanted[order[i]] = 0;
        before += w;
    }
    for (int i = 0; i < V; i++) wanted[i] = wanted[i] < s->min_p ? 0 : wanted[i];
    total = 0;
    for (int i = 0; i < V; i++) total += wanted[i];
    for (int i = 0; i < V; i++) wanted[i] /= total;
}

static void random_rows(void **state)
{
    (void)state;
    px_rng rng = px_rng_make(3, "test", PX_RNG_NOISE);
    for (uint32_t trial = 0; trial < 60; trial++) {
        for (uint32_t i = 0; i < V; i++) {
            double z = 3 * px_rng_normal(&rng, trial, i, 0, 0);
            logits[i] = (px_real)(trial % 3 == 0 ? rint(4 * z) / 4 : z); /* a third of the rows is full of ties */
        }
        px_sampling s = neutral();
        s.temperature = trial % 2 ? .7 : 1;
        if (trial % 5 == 1) s.top_k = 40;
        if (trial % 5 == 2) s.top_p = .9;
        if (trial % 5 == 3) s.min_p = .05;
        if (trial % 5 == 4) {
            s.top_k = 300;
            s.top_p = .95;
            s.min_p = .01;
        }
        reference(&s);
        double uniform = px_rng_uniform(&rng, trial, 0, 1, 0), before = 0;
        int id = px_sample_row(logits, V, &s, NULL, 0, uniform, got), expected = 0;
        expect(got, wanted, V, 1e-12);
        for (expected = 0; expected < V && before + wanted[expected] <= uniform; expected++) before += wanted[expected];
        assert_int_equal(id, expected);
    }
}

/* Without filters the softmax's own sums are inverted: the token at which the distribution in double passes the uniform,
 * within float rounding; the log-probability has the bits of the softmax's. */
static void draws_follow_the_distribution(void **state)
{
    (void)state;
    px_rng rng = px_rng_make(4, "test", PX_RNG_NOISE);
    px_compute alone = {.threads = 1};
    double mass[V];
    for (uint32_t trial = 0; trial < 200; trial++) {
        int count = trial % 4 == 0 ? 1 + (int)trial : V - (int)trial;
        for (int i = 0; i < count; i++) logits[i] = (px_real)(4 * px_rng_normal(&rng, trial, (uint32_t)i, 0, 0));
        logits[count / 2] = -INFINITY;
        if (trial % 3 == 0) logits[count - 1] = 60; /* in the last chunk: all before it shrinks to nothing */
        px_sampling s = neutral();
        s.temperature = trial % 2 ? .7 : trial % 10 == 8 ? 0 : 1;
        double uniform = trial == 2 ? 0 : trial == 4 ? nextafter(1, 0) : px_rng_uniform(&rng, trial, 0, 1, 0), to = 0;
        px_row_stats drawn, rows;
        int32_t id = px_softmax_draw(&drawn, logits, count, s.temperature, uniform, mass);
        assert_true(id >= 0 && id < count && (count == 1 || isfinite(logits[id])));
        px_softmax_rows(&alone, &rows, logits, count, &id, 1, count, s.temperature > 0 ? s.temperature : 1, false);
        assert_memory_equal(&drawn.logprob, &rows.logprob, sizeof rows.logprob);
        int expected = px_sample_row(logits, count, &s, NULL, 0, uniform, got);
        if (s.temperature <= 0) assert_int_equal(id, expected);
        for (int i = 0; i <= id; i++) to += got[i];
        if (s.temperature > 0) assert_true(to > uniform - 1e-6 && to - got[id] < uniform + 1e-6 && got[id] > 0);
    }
}

/* Chi-square over 4 outcomes at 40,000 draws: 16.27 is the 0.999 quantile at 3 degrees of freedom. */
static void frequencies(void **state)
{
    (void)state;
    px_sampling s = neutral();
    px_rng rng = px_rng_make(5, "test", PX_RNG_SAMPLE);
    double p[4], chi = 0;
    int counts[4] = {0};
    for (uint32_t i = 0; i < 40000; i++) {
        counts[px_sample_row(T17, 4, &s, NULL, 0, px_rng_uniform(&rng, i, 0, 0, 0), p)]++;
    }
    for (int i = 0; i < 4; i++) chi += (counts[i] - 40000 * p[i]) * (counts[i] - 40000 * p[i]) / (40000 * p[i]);
    assert_true(chi < 16.27);
}

static void bad_rows_stay_inside(void **state)
{
    (void)state;
    px_sampling s = neutral();
    double p[4];
    const px_real nan_row[4] = {NAN, NAN, NAN, NAN}, one_nan[4] = {NAN, 0, NAN, -INFINITY};
    int id = px_sample_row(nan_row, 4, &s, NULL, 0, .7, p);
    assert_true(id >= 0 && id < 4);
    assert_int_equal(px_sample_row(one_nan, 4, &s, NULL, 0, .7, p), 1);
    const px_real infinite[4] = {0, INFINITY, 0, 0};
    px_row_stats stats;
    assert_int_equal(px_softmax_draw(&stats, nan_row, 4, 1, .7, p), -1);
    assert_int_equal(px_softmax_draw(&stats, one_nan, 4, 1, .7, p), -1);
    assert_int_equal(px_softmax_draw(&stats, infinite, 4, 1, .7, p), -1);
    s.top_k = 2;
    s.top_p = .5;
    id = px_sample_row(nan_row, 4, &s, NULL, 0, .7, p);
    assert_true(id >= 0 && id < 4);
}

static void stop_ids(void **state)
{
    (void)state;
    px_sampling s = {.stop_count = 0};
    for (int i = 0; i < PX_MAX_EOS; i++) {
        assert_int_equal(px_sampling_stop_at(&s, 3 + i), PX_OK);
        assert_int_equal(px_sampling_stop_at(&s, 3), PX_OK);
        assert_int_equal(px_sampling_stop_at(&s, -1), PX_OK);
        assert_int_equal(s.stop_count, i + 1);
        assert_int_equal(s.stop_ids[i], 3 + i);
    }
    assert_int_equal(px_sampling_stop_at(&s, 4), PX_OK);
    assert_int_equal(px_sampling_stop_at(&s, 100), PX_CONFIG);
    assert_int_equal(s.stop_count, PX_MAX_EOS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(temperature),    cmocka_unit_test(filters),     cmocka_unit_test(repetition),
        cmocka_unit_test(min_new_tokens), cmocka_unit_test(greedy),      cmocka_unit_test(inverse_cdf_in_id_order),
        cmocka_unit_test(random_rows),    cmocka_unit_test(frequencies), cmocka_unit_test(bad_rows_stay_inside),
        cmocka_unit_test(draws_follow_the_distribution), cmocka_unit_test(stop_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
