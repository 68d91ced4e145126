/* Inside rlhf: the state of a PPO trainer and its stages in order. Each stage is a file; ppo.c is the sentence. */
#ifndef PHALANX_RLHF_PPO_H
#define PHALANX_RLHF_PPO_H

#include "trainer.h"

typedef struct px_ppo {
    px_ppo_config config;
    px_ppo_parts parts;
    px_order order;
    px_rng permute;
    px_sampler sampler;       /* not where others sample */
    px_engine *reference;     /* inference engine of parts.reference */
    px_rollout rollout, evaluation;
    px_collect_report report;  /* of the last rollout, where others sample */
    double kl_coeff;          /* adapted */
    double updates_before[64]; /* optimizer steps before version v at v % 64 */
    double lifetime_tokens, lifetime_samples, lifetime_updates, weights_seq_no;
    /* scratch, sized once */
    px_ragged ragged;
    int32_t *place;           /* [ragged tokens] minibatch place of each head row */
    px_row_stats *stats;      /* [ragged tokens] */
    double *values, *dvalues; /* [ragged tokens] */
    double *wide;             /* [4][max tokens of a rollout] */
    px_reward_sample *texts;  /* [local samples] what the rewards see */
    size_t *places;           /* [2][local samples] of the texts in text */
    double *raw;              /* [rewards][local samples] */
    px_buf text;              /* these two keep their largest size */
    px_ids ids;
    /* update */
    int32_t *visited;         /* [num_epochs * samples] sample indices in the order of visiting */
    int64_t visited_count;
    int64_t *permutation;     /* [samples] */
    const int32_t *batch;     /* the minibatch in hand: samples in visited */
    int batch_count;
    int32_t *batch_tokens;    /* [samples] prompt + completion */
    double batch_weight_sum;  /* completion tokens of the minibatch */
    double *sums;             /* [samples][PX_PPO_STATS] */
    px_work work;
    px_update_row *updates;
    int update_count;
} px_ppo;

/* Log-probabilities are those of softmax(z / temperature); greedy decoding is judged at 1. */
static inline double px_softmax_temperature(double temperature)
{
    return temperature > 0.0 ? temperature : 1.0;
}

/* Sums over the completion tokens of one sample in one minibatch. */
enum { PX_SUM_LOSS, PX_SUM_CLIPPED, PX_SUM_APPROXKL, PX_SUM_OLD_K3, PX_SUM_RATIO, PX_SUM_ENTROPY, PX_SUM_DIFF,
       PX_SUM_VALUE_LOSS, PX_SUM_VALUE_CLIPPED, PX_PPO_STATS };

typedef struct px_phase_times {
    double generate, score, reference, learn; /* s */
    double generate_flops, reference_flops, score_flops, learn_flops; /* of this rank */
} px_phase_times;

/* The stages. Collective; each ends in agreement. `set` is the training or the evaluation prompts. */
px_status px_prompts_take(px_ppo *ppo, px_rollout *rollout, const px_prompt_set *set, int64_t first_position, int prompts,
                          int samples_per_prompt, bool in_order);
px_status px_rollout_generate(px_trainer *trainer, px_rollout *rollout, int64_t iteration, bool evaluation);
px_status px_logprobs(px_trainer *trainer, px_rollout *rollout, double temperature, bool recompute_old, bool values);
px_status px_score(px_trainer *trainer, px_rollout *rollout, const px_prompt_set *set, int64_t iteration);
/* The next three are local: every rank holds the whole rollout. */
/* Returns how many samples leave the batch because the sum of their scores is too large. */
int px_score_shape(const px_ppo *ppo, px_rollout *rollout, const px_rewards *rewards);
void px_reward(const px_ppo *ppo, px_rollout *rollout);
void px_advantage(px_ppo *ppo, px_rollout *rollout);
px_status px_ppo_update(px_trainer *trainer, px_rollout *rollout, int64_t iteration);

/* flat holds elements of `size` bytes per token, sample i's from offsets[i]: each rank has filled those of its prompts. */
void px_rollout_gather(const px_rollout *rollout, void *flat, size_t size, const int64_t *offsets);
/* This rank's samples: [*from, *to). */
void px_rollout_mine(const px_rollout *rollout, int *from, int *to);
/* Objective and batch statistics into trainer->values. */
void px_ppo_measure(px_trainer *trainer, const px_rollout *rollout, int64_t iteration, const px_phase_times *times,
                    double started);
enum { PX_PPO_METRIC_COUNT = 64, PX_PPO_EVALUATION_COUNT = 4 };
extern const px_metric px_ppo_metrics[PX_PPO_METRIC_COUNT], px_ppo_evaluation_metrics[PX_PPO_EVALUATION_COUNT];

#endif
