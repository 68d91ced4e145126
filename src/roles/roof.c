/* What a large product alone reaches on the ranks of this run: the roof under which its phases are seen. */
#include "run.h"

enum { M = 512, OUT = 1536, IN = 768, TRIALS = 3 };

static px_status measure(const px_session *session, double *best)
{
    px_compute compute;
    size_t count = (size_t)OUT * IN + (size_t)M * IN + (size_t)M * OUT;
    px_real *w = px_alloc_array(count, sizeof *w, "a measurement");
    if (w == NULL) {
        return px_error_code();
    }
    px_status status = px_compute_init(&compute, session->threads, px_linear_scratch(M, OUT, IN, session->threads));
    if (status == PX_OK) {
        compute.precision = session->learner_precision;
        px_real *x = w + (size_t)OUT * IN, *y = x + (size_t)M * IN;
        for (size_t i = 0; i < count; i++) {
            w[i] = (px_real)(i % 13) - 6; /* none is denormal, which would be slow */
        }
        px_weight weight = {.raw = w, .out = OUT, .in = IN};
        for (int trial = 0; trial <= TRIALS; trial++) { /* the first warms up */
            double start = px_now();
            px_linear_forward(&compute, y, OUT, x, IN, &weight, NULL, M);
            double rate = 2e-9 * M * OUT * IN / (px_now() - start);
            *best = trial > 0 && rate > *best ? rate : *best;
        }
        px_compute_free(&compute);
    }
    px_free(w);
    return status;
}

px_status px_session_roof(px_session *session)
{
    double rate = 0.0;
    px_barrier(); /* all at once, as they will learn */
    PX_TRY(px_agree(measure(session, &rate)));
    px_sum_f64(&rate, 1);
    session->roof = rate;
    return PX_OK;
}
