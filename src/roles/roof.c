/* What products alone reach on the ranks of this run: the roof under which its phases are seen. It is a library's product, or
 * what the arithmetic units do, never the product that is judged by it. */
#include "run.h"

void px_session_roof(px_session *session)
{
    px_barrier(); /* all at once, as they will learn */
    session->roof = 0.0;
    if (px_world_rank() < px_placement_core(&session->placement)) {
        session->roof = px_product_roof(session->learner_precision, session->threads, 512, 1536, 768, &session->roof_of);
    }
    px_sum_f64(&session->roof, 1);
}
