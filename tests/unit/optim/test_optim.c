#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <math.h>

#include "phalanx/optim.h"

static void near(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance)) {
        fail_msg("got %.12g, want %.12g", got, want);
    }
}

/* Two AdamW steps by hand: w=1, g=.5 then -.25, lr .1, betas (.9,.999), eps 1e-8. */
static void adamw_closed_form(void **state)
{
    (void)state;
    for (int decayed = 0; decayed < 2; decayed++) {
        px_adamw_config config = {0.9, 0.999, 1e-8, 0.01};
        px_range range = {0, 1, decayed};
        float w = 1, m = 0, v = 0, g = 0.5f;
        px_adamw_step(&config, &w, &g, &m, &v, &range, 1, 0.1, 1.0, 1);
        near(w, decayed ? 0.899000002 : 0.900000002, 1e-7);
        near(m, 0.05, 1e-8);
        near(v, 2.5e-4, 1e-10);
        g = -0.25f;
        px_adamw_step(&config, &w, &g, &m, &v, &range, 1, 0.1, 1.0, 2);
        near(w, decayed ? 0.871467299 : 0.873366299, 2e-7);
        near(m, 0.02, 1e-8);
        near(v, 3.1225e-4, 1e-10);
    }
}

static void adamw_eps_is_outside_the_root(void **state)
{
    (void)state;
    px_adamw_config config = {0.9, 0.999, 1e-5, 0.0};
    px_range range = {0, 1, true};
    float w = 1, m = 0, v = 0, g = 1e-5f;
    px_adamw_step(&config, &w, &g, &m, &v, &range, 1, 0.1, 1.0, 1);
    near(w, 0.95, 1e-6);
    px_adamw_step(&config, &w, &g, &m, &v, &range, 1, 0.1, 1.0, 2);
    near(w, 0.90, 1e-6);
}

static void ranges_leave_the_rest_alone(void **state)
{
    (void)state;
    px_adamw_config config = {0.9, 0.999, 1e-8, 0.5};
    px_range range = {1, 2, true};
    float w[4] = {1, 1, 1, 1}, g[4] = {1, 1, 1, 1}, m[4] = {0}, v[4] = {0};
    px_adamw_step(&config, w, g, m, v, &range, 1, 0.1, 1.0, 1);
    assert_true(w[0] == 1 && w[3] == 1 && m[0] == 0 && w[1] < 0.9f && w[2] == w[1]);
}

static void clip(void **state)
{
    (void)state;
    float g[2] = {3, 4};
    double norm = sqrt(px_sum_squares(g, 2));
    near(norm, 5, 1e-12);
    double scale = px_clip_scale(norm, 1.0);
    near(3 * scale, 0.59999988, 1e-8);
    near(4 * scale, 0.79999984, 1e-8);
    assert_true(px_clip_scale(0.5, 1.0) == 1.0 && px_clip_scale(100, 0) == 1.0);
    assert_true(isnan(px_sum_squares((float[]){NAN}, 1)));
}

static void sum_of_many(void **state)
{
    (void)state;
    size_t count = 100003;
    float *g = malloc(count * sizeof *g);
    double want = 0;
    for (size_t i = 0; i < count; i++) {
        g[i] = (float)((i % 17) - 8.0) * 0.25f;
        want += (double)g[i] * g[i];
    }
    near(px_sum_squares(g, count), want, 1e-6);
    free(g);
}

static void schedules(void **state)
{
    (void)state;
    const int64_t at[] = {0, 5, 10, 55, 100};
    const double cosine[] = {0, .5, 1, .5, 0}, linear[] = {0, .5, 1, .5, 0}, floored[] = {0, .5, 1, .55, .1};
    for (int i = 0; i < 5; i++) {
        near(px_schedule_at(&(px_schedule){PX_COSINE, 10, 100, 0}, at[i]), cosine[i], 1e-12);
        near(px_schedule_at(&(px_schedule){PX_LINEAR, 10, 100, 0}, at[i]), linear[i], 1e-12);
        near(px_schedule_at(&(px_schedule){PX_COSINE, 10, 100, 0.1}, at[i]), floored[i], 1e-12);
    }
    near(px_schedule_at(&(px_schedule){PX_CONSTANT, 0, 0, 0}, 1000), 1, 0);
    near(px_schedule_at(&(px_schedule){PX_LINEAR, 0, 10, 0}, 25), 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adamw_closed_form), cmocka_unit_test(adamw_eps_is_outside_the_root),
        cmocka_unit_test(ranges_leave_the_rest_alone), cmocka_unit_test(clip), cmocka_unit_test(sum_of_many),
        cmocka_unit_test(schedules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
