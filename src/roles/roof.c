/* What products alone reach on the ranks of this run: the roof under which its phases are seen. It is a library's product, or
 * what the arithmetic units do, never the product that is judged by it. */
#include "run.h"

/* Of this rank; measured once for all stages that compute alike. */
static double own_roof(px_dtype precision, int threads, const char **of)
{
    static struct {
        px_dtype precision;
        int threads;
        double rate;
        const char *of;
    } known;
    if (known.threads != threads || known.precision != precision) {
        known.rate = px_product_roof(precision, threads, 512, 1536, 768, &known.of);
        known.precision = precision;
        known.threads = threads;
    }
    *of = known.of;
    return known.rate;
}

void px_session_roof(px_session *session)
{
    px_barrier(); /* all at once, as they will learn */
    session->roof = 0.0;
    if (px_world_rank() < px_placement_core(&session->placement)) {
        session->roof = own_roof(session->learner_precision, session->threads, &session->roof_of);
    }
    px_sum_f64(&session->roof, 1);
}
