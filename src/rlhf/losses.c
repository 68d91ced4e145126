/* Closed forms of the losses: one number, its gradient, and which branch it took. */
#include "phalanx/rlhf.h"

#include <math.h>

double px_ppo_policy_loss(double logprob, double old_logprob, double advantage, double low, double high, double dual,
                          double *gradient, bool *clipped, double *ratio)
{
    double u = logprob - old_logprob;
    u = u > 20.0 ? 20.0 : u < -20.0 ? -20.0 : u;
    double r = exp(u);
    double bounded = r < 1.0 - low ? 1.0 - low : r > 1.0 + high ? 1.0 + high : r;
    double plain = -advantage * r, held = -advantage * bounded;
    *clipped = held > plain;
    *ratio = r;
    /* At a tie the unclipped branch counts: on the first step, where the ratio is 1, all gradient flows. */
    *gradient = *clipped ? 0.0 : plain;
    double loss = *clipped ? held : plain;
    if (dual > 0.0 && advantage < 0.0 && loss > -dual * advantage) {
        *gradient = 0.0;
        loss = -dual * advantage;
    }
    return loss;
}

double px_importance(double old_logprob, double sampler_logprob, double cap)
{
    return fmin(exp(fmin(old_logprob - sampler_logprob, 20.0)), cap);
}

double px_ppo_value_loss(double value, double old_value, double returns, double range, double *gradient, bool *clipped)
{
    double plain = value - returns;
    double move = value - old_value;
    bool inside = range <= 0.0 || fabs(move) <= range;
    double held = inside ? plain : old_value + (move > 0.0 ? range : -range) - returns;
    *clipped = held * held > plain * plain;
    *gradient = !*clipped ? plain : inside ? held : 0.0;
    return 0.5 * (*clipped ? held * held : plain * plain);
}

double px_bt_loss(double chosen, double rejected, double margin, double *gradient)
{
    double x = chosen - rejected - margin;
    double e = exp(-fabs(x));
    *gradient = -(x >= 0.0 ? e : 1.0) / (1.0 + e); /* -sigmoid(-x) */
    return (x >= 0.0 ? 0.0 : -x) + log1p(e);
}

double px_token_weight(px_aggregation aggregation, double samples, double tokens, double length, double constant)
{
    switch (aggregation) {
    case PX_SEQ_MEAN_TOKEN_MEAN:
        return 1.0 / (samples * length);
    case PX_SEQ_MEAN_TOKEN_SUM:
        return 1.0 / samples;
    case PX_SEQ_MEAN_TOKEN_SUM_NORM:
        return 1.0 / (samples * constant);
    default:
        return 1.0 / tokens;
    }
}
