/* optim: AdamW, clipping and schedules on flat float arrays. Not collective: the caller reduces gradients first. */
#ifndef PHALANX_OPTIM_H
#define PHALANX_OPTIM_H

#include "phalanx/base.h"

typedef struct px_adamw_config {
    double beta1, beta2, eps, weight_decay;
} px_adamw_config;
/* A range of the flat block with its own decay: decay tensors and the others are separate ranges. */
typedef struct px_range {
    size_t offset, count; /* elements */
    bool decay;
} px_range;
/* PyTorch's order (Loshchilov & Hutter 2019; algorithms of torch.optim.AdamW): w *= 1 - lr*wd (decay ranges);
 * m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2; w -= lr/(1-b1^t) * m / (sqrt(v)/sqrt(1-b2^t) + eps). One pass; g is scaled by
 * `scale` (clipping) on the way. step: t, from 1. Element-wise: the bits do not depend on threads. */
void px_adamw_step(const px_adamw_config *config, float *w, const float *g, float *m, float *v, const px_range *ranges,
                   int range_count, double lr, double scale, int64_t step);
/* Sum of squares in double, in fixed blocks summed in a fixed tree: the bits do not depend on threads. */
double px_sum_squares(const float *g, size_t count);
/* min(1, limit / (norm + 1e-6)); 1 when limit <= 0 */
double px_clip_scale(double norm, double limit);

typedef enum px_schedule_kind { PX_CONSTANT, PX_LINEAR, PX_COSINE } px_schedule_kind;
typedef struct px_schedule {
    px_schedule_kind kind;
    int64_t warmup, total; /* steps */
    double floor;          /* multiplier at the end */
} px_schedule;
/* Multiplier of the learning rate after `step` finished steps (algorithms of Hugging Face's get_*_schedule_with_warmup). */
double px_schedule_at(const px_schedule *schedule, int64_t step);

#endif
