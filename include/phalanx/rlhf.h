/* rlhf: the algorithms. Learners (a model, its gradient and optimizer), the stages of a PPO iteration in their order, and
 * the trainers that put them together: pretrain and sft, reward, ppo. Functions are collective over the ranks of the run
 * unless they say "local". Every rank holds the whole rollout batch and computes on its share of it, so that no number
 * depends on how many ranks there are. */
#ifndef PHALANX_RLHF_H
#define PHALANX_RLHF_H

#include "phalanx/base.h"
#include "phalanx/model.h"
#include "phalanx/optim.h"
#include "phalanx/rewards.h"
#include "phalanx/text.h"

/* ---- work: who computes which items of a minibatch ---------------------------------------------------------------
 * Items (sequences, pairs, samples) in minibatch order are cut into gradient leaves: consecutive items of about equal
 * token counts. In exact mode there are 8 (or the next power of two at or above the number of ranks), each rank takes an
 * aligned block of them, and leaf gradients are added in one binary tree: the same bits on 1, 2, 4 and 8 ranks. Otherwise
 * each rank has one leaf. */
enum { PX_EXACT_LEAVES = 8, PX_MAX_LEAVES = 1024, PX_MAX_DEPTH = 12 };
typedef struct px_work {
    int64_t items;
    int leaves;
    int64_t first[PX_MAX_LEAVES + 1]; /* leaf l is items first[l] .. first[l+1]-1 */
    int mine, mine_count;             /* this rank's leaves */
} px_work;
/* Local. tokens[items] >= 1. */
void px_work_plan(px_work *work, const int32_t *tokens, int64_t items, bool exact, int rank, int size);
int px_work_leaves(bool exact, int size); /* local */
/* Gradient blocks that a rank needs to add its leaves. Local. */
int px_work_depth(bool exact, int size);
/* table[items][columns]: each rank has filled the rows of its leaves; afterwards all ranks have all rows. */
void px_work_gather(const px_work *work, double *table, int columns);

/* ---- learner: one trainable model ------------------------------------------------------------------------------------ */
typedef struct px_learner_config {
    px_adamw_config adam;
    px_schedule schedule;
    double lr, grad_clip; /* clip 0: off */
    bool exact;           /* gradient leaves: the same bits on 1, 2, 4 and 8 ranks */
    int micro_tokens;     /* most tokens in one forward and backward, if an item is not larger. In exact mode this is
                             gradient_leaf_tokens and part of the result's bits; else it changes memory alone */
    int max_item;         /* tokens of the largest item (both sequences of a pair) */
    int max_sequence;     /* tokens of the longest sequence */
    int64_t batch_tokens; /* most tokens and sequences of a minibatch: nothing larger is planned for; 0: unknown */
    int64_t batch_sequences;
    int threads;
    px_dtype precision;   /* of the matrix products */
    bool frozen;          /* weights and a forward alone: learnt by other ranks */
    bool unpacked;        /* there is no memory for packed matrices, which several forwards with the same weights gain from */
    bool recompute;       /* activations inside a block are computed again in backward: memory for time, the same bits */
} px_learner_config;
/* Most tokens and sequences in one forward of a learner: what its engine and batches are planned for. Local. */
int px_learner_tokens(const px_learner_config *config);
int px_learner_sequences(const px_learner_config *config);

typedef struct px_learner {
    px_model model;       /* owned */
    px_engine *engine;
    px_learner_config config;
    float *partial[PX_MAX_DEPTH]; /* [block] gradients; partial[0] is the sum after a step */
    uint8_t *used[PX_MAX_DEPTH];  /* [vocab_size] rows of the embedding that are other than 0 in it; NULL: all (it is the head) */
    int depth;
    float *m, *v;         /* [block] */
    px_range *ranges;
    int range_count;
    int64_t steps;        /* applied optimizer steps */
    /* within a step: partial sums in use; from where on they are one, on their way to the other ranks; is this the last
     * backward of the rank? */
    int alive;
    size_t unsummed;
    bool last;
} px_learner;

/* Takes over the model (moved in, the caller's copy is emptied). */
px_status px_learner_create(px_learner *learner, px_model *model, const px_learner_config *config);
void px_learner_free(px_learner *learner);
typedef struct px_learner_memory {
    size_t weights, gradients, moments, engine; /* bytes */
    int gradient_blocks;
    bool packed; /* the engine packs the matrices */
} px_learner_memory;
/* What px_learner_create will allocate, the moved-in weights included; the model need have no weights. Local. */
px_learner_memory px_learner_plan(const px_model *model, const px_learner_config *config);

/* A loss runs forward and backward of items[count] (indices into the minibatch) as one ragged batch and adds gradients. */
typedef struct px_loss {
    void (*run)(void *self, px_learner *learner, float *grads, int64_t first, int64_t count);
    void *self;
} px_loss;
/* What a loss ends with: backward through the blocks (px_engine_backward). The gradients that the last one of a step finishes
 * are summed over the ranks while it goes on. */
void px_learner_backward(px_learner *learner, float *grads);
typedef struct px_step {
    double grad_norm; /* before clipping */
    double lr;        /* what was applied */
    bool skipped;     /* gradient not finite: nothing was applied, no step counted */
} px_step;
/* One optimizer step on a planned minibatch. tokens[items] as given to px_work_plan. PX_STOPPED between leaves. */
px_status px_learner_step(px_learner *learner, const px_work *work, const int32_t *tokens, const px_loss *loss,
                          px_step *step);
/* The weights' hash is the same on all ranks (a silent desync is a bug that must not go on). */
bool px_learner_in_step(const px_learner *learner);

/* ---- metrics ----------------------------------------------------------------------------------------------------------- */
typedef struct px_metric {
    const char *name, *units, *meaning; /* meaning: one line with the formula */
} px_metric;

/* ---- algorithms and trainers -------------------------------------------------------------------------------------------- */
typedef struct px_trainer px_trainer;
typedef struct px_algorithm {
    const char *name;
    const px_metric *metrics, *evaluation;
    int metric_count, evaluation_count;
    px_status (*iterate)(px_trainer *trainer, int64_t iteration);  /* one iteration: fills trainer->values */
    px_status (*evaluate)(px_trainer *trainer, int64_t iteration); /* fills trainer->evaluated */
    void (*destroy)(px_trainer *trainer);
} px_algorithm;

typedef struct px_counter { /* a number that a checkpoint must bring back */
    const char *name;
    double *value;
} px_counter;
typedef struct px_named_learner {
    const char *name; /* "policy", "critic", "reward": also the directory's name */
    px_learner learner;
} px_named_learner;

enum { PX_MAX_LEARNERS = 2, PX_MAX_COUNTERS = 24 };
typedef struct px_event_sink { /* where a trainer reports what happened; local. rank: of the job, that it concerns */
    void (*write)(void *arg, int64_t iteration, int rank, const char *kind, const char *text);
    void *arg;
} px_event_sink;

struct px_trainer {
    const px_algorithm *algorithm;
    uint64_t seed;
    const char *stage;          /* name, part of random keys; "" without stages */
    int threads;
    px_named_learner learners[PX_MAX_LEARNERS];
    int learner_count;
    px_counter counters[PX_MAX_COUNTERS];
    int counter_count;
    double *values;             /* [algorithm->metric_count], NaN = not measured */
    double *evaluated;          /* [algorithm->evaluation_count] */
    px_event_sink events;
    int64_t skipped_in_row;
    bool dirty;                 /* the iteration in hand has changed weights: stopping now loses it */
    void *self;                 /* the algorithm's own state */
};
void px_trainer_set(px_trainer *trainer, const char *metric, double value); /* local; unknown name is a bug */
double px_trainer_get(const px_trainer *trainer, const char *metric);       /* local */
void px_trainer_set_evaluation(px_trainer *trainer, const char *metric, double value);
void px_trainer_event(px_trainer *trainer, int64_t iteration, const char *kind, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void px_trainer_event_of(px_trainer *trainer, int rank, int64_t iteration, const char *kind, const char *format, ...)
    __attribute__((format(printf, 5, 6))); /* that concerns another rank of the job */
void px_trainer_count(px_trainer *trainer, const char *name, double *value); /* registers a counter */
void px_trainer_free(px_trainer *trainer);
/* The tables of all algorithms, for docs/metrics.md. */
const px_algorithm *px_algorithm_find(const char *name); /* NULL: not built */
extern const px_algorithm px_algorithm_pretrain, px_algorithm_sft, px_algorithm_reward, px_algorithm_ppo;

int64_t px_passes(double epochs, int64_t rows); /* rows that so many passes visit, rounded up */

/* ---- pretrain, sft ---------------------------------------------------------------------------------------------------- */
typedef struct px_lm_config {
    px_learner_config learner;
    const px_dataset *train, *validation; /* borrowed; validation may be NULL */
    int max_tokens;        /* longest sequence; longer texts are cut into pieces (pretrain) */
    bool pieces;           /* cut into pieces rather than dropping the rest */
    int64_t batch_size;    /* rows a step; 0: batch_tokens */
    int64_t batch_tokens;
    double epochs;         /* passes over the data after which a step ends early rather than begin another; 0: none does */
    bool packing;          /* with batch_tokens: rows are chosen so that steps are full */
    bool shuffle;
    int max_skipped_steps;
} px_lm_config;
size_t px_lm_bytes(const px_lm_config *config); /* buffers beside the learner. Local */
px_status px_lm_create(px_trainer *trainer, const px_algorithm *algorithm, const px_lm_config *config, px_model *model);
/* Steps of `epochs` passes over the data, in the order that the seed and the stage's name give it. Local. */
px_status px_lm_steps(const px_lm_config *config, double epochs, uint64_t seed, const char *stage, int64_t *steps);
/* Sum of negative log-likelihoods over the target tokens of a data set, and their number; rows are shared by the ranks,
 * rows longer than max_sequence are cut into pieces, a forward takes at most max_tokens. per_row [rows][2]: both for each
 * row (NULL: not wanted). PX_STOPPED in between. */
px_status px_lm_evaluate(px_engine *engine, const px_model *model, const px_dataset *data, int max_sequence, int max_tokens,
                         double *nll_sum, double *tokens, double *per_row);

/* ---- reward model ------------------------------------------------------------------------------------------------------- */
typedef struct px_rm_config {
    px_learner_config learner;
    const px_dataset *train, *validation, *demonstrations; /* the last two may be NULL */
    int64_t batch_size;
    double epochs; /* as px_lm_config.epochs */
    bool shuffle;
    double center_coeff; /* lambda of (r_c + r_r)^2 */
    int max_skipped_steps;
} px_rm_config;
size_t px_rm_bytes(const px_rm_config *config); /* buffers beside the learner. Local */
px_status px_rm_create(px_trainer *trainer, const px_rm_config *config, px_model *model);
/* Mean and std of the scores of `most` demonstrations (of chosen sides without), evenly spread, go into the model's config: for
 * who reads a checkpoint. px_rm_uncenter takes them out again, as training wants it. Collective */
px_status px_rm_center(px_trainer *trainer, int64_t most);
void px_rm_uncenter(px_trainer *trainer);

/* ---- rollout: what one iteration sampled -----------------------------------------------------------------------------------
 * Flat over samples in order (prompt slot, sample); completion tokens of sample i are first[i] .. first[i+1]-1 of the
 * per-token columns. All ranks hold all of it. */
typedef struct px_rollout {
    int samples, max_samples;
    int64_t tokens, max_tokens;          /* completion tokens */
    /* written by prompts */
    int64_t *prompt;      /* [samples] row of the prompt data set */
    int64_t *prompt_id;   /* [samples] record number */
    int32_t *group;       /* [samples] prompt slot */
    int32_t *sample_index; /* [samples] 0 .. samples_per_prompt-1 */
    int32_t *rank;        /* [samples] which rank of the job sampled it */
    int64_t *weights_seq_no; /* [samples] version of the weights that sampled it */
    /* written by rollout */
    int64_t *start;       /* [samples+1] first id of prompt + completion in ids */
    int32_t *prompt_length, *length; /* [samples] tokens of prompt, of completion */
    uint8_t *finish;      /* [samples] px_finish */
    int32_t *ids;         /* [start[samples]] */
    int64_t *first;       /* [samples+1] into the per-token columns */
    float *sampler_logprob; /* [tokens] nats */
    /* written by logprobs */
    float *old_logprob, *ref_logprob, *value; /* [tokens] */
    float *last_value;    /* [samples] value of the state after the last token */
    /* written by score */
    double *raw;          /* [rewards][samples] */
    double *score;        /* [samples] weighted, shaped */
    uint8_t *valid;       /* [samples] 0: score not finite, the sample leaves the batch */
    /* written by reward and advantage */
    double *kl;           /* [samples] sum of k1, nats */
    float *reward, *advantage, *returns; /* [tokens] */
} px_rollout;
px_status px_rollout_alloc(px_rollout *rollout, int max_samples, int max_prompt, int max_completion, int reward_count);
void px_rollout_free(px_rollout *rollout);
size_t px_rollout_bytes(int max_samples, int max_prompt, int max_completion, int reward_count); /* local */

/* ---- closed forms (local; each is one formula of the literature with its test) -------------------------------------------- */
typedef enum px_kl_estimator { PX_K1, PX_K2, PX_K3 } px_kl_estimator;
double px_kl_estimate(px_kl_estimator kind, double logprob, double ref_logprob); /* Schulman 2020, "Approximating KL" */
double px_kl_gradient(px_kl_estimator kind, double logprob, double ref_logprob); /* d estimate / d logprob */
/* Generalised advantage estimation (Schulman et al. 2016, eq. 16); mask NULL: all 1. Masked positions carry value and
 * advantage through. bootstrap: value after the last token. */
void px_gae(double *advantages, double *returns, const double *rewards, const double *values, const uint8_t *mask, int n,
            double gamma, double lambda, double bootstrap);
/* (x - mean) / sqrt(var + 1e-8), biased variance, over x[n]; shift_mean false keeps the mean. */
void px_whiten(double *x, int64_t n, bool shift_mean);
typedef struct px_moments {
    double n, mean, m2;
} px_moments;
px_moments px_moments_merge(px_moments a, px_moments b); /* Chan et al. 1979 */
/* PPO clip (Schulman et al. 2017, eq. 7); high: upper clip range; dual: c of dual clip, 0: off. Returns the loss, sets
 * d loss / d logprob, whether the clipped branch was taken, and the ratio. Log-ratio clamped to +-20. */
double px_ppo_policy_loss(double logprob, double old_logprob, double advantage, double low, double high, double dual,
                          double *gradient, bool *clipped, double *ratio);
/* Truncated importance weight min(exp(old - sampler), cap) of a token that older weights sampled: with it the clipped loss
 * keeps its own reference, the policy before the update (decoupled PPO: Hilton et al. 2022; AReaL, Fu et al. 2025). */
double px_importance(double old_logprob, double sampler_logprob, double cap);
/* Clipped value loss, half of the larger square; range 0: not clipped. */
double px_ppo_value_loss(double value, double old_value, double returns, double range, double *gradient, bool *clipped);
/* -log sigmoid(chosen - rejected - margin); gradient with respect to chosen (Stiennon et al. 2020). */
double px_bt_loss(double chosen, double rejected, double margin, double *gradient);
/* Weight of one token of a sample in a minibatch's loss. Weights depend on the whole minibatch, never on how ranks and
 * micro-batches cut it: a mean of means would favour short pieces. tokens: completion tokens of the minibatch's `samples`
 * samples; length: of this sample; constant: the divisor of ..._NORM (Dr. GRPO: the longest completion allowed). */
typedef enum px_aggregation {
    PX_TOKEN_MEAN,
    PX_SEQ_MEAN_TOKEN_MEAN,
    PX_SEQ_MEAN_TOKEN_SUM,
    PX_SEQ_MEAN_TOKEN_SUM_NORM
} px_aggregation;
double px_token_weight(px_aggregation aggregation, double samples, double tokens, double length, double constant);
/* Adaptive KL coefficient (Ziegler et al. 2019, sec. 2.2). */
double px_kl_adapt(double coeff, double kl, double target, double horizon, double n);
/* 1 - var(returns - values) / (var(returns) + 1e-5), over n. */
double px_explained_variance(const double *returns, const double *values, int64_t n);

/* ---- ppo ---------------------------------------------------------------------------------------------------------------- */
typedef enum px_missing_eos { PX_EOS_NONE, PX_EOS_SUBTRACT, PX_EOS_SET, PX_EOS_MASK } px_missing_eos;
typedef struct px_ppo_config {
    px_learner_config policy_learner, critic_learner;
    int prompts_per_iteration, samples_per_prompt, minibatch_size, num_epochs;
    double gamma, lambda, clip_low, clip_high, dual_clip, vf_clip, vf_coeff, entropy_coeff;
    double kl_coeff, kl_target, kl_horizon; /* target 0: fixed */
    px_kl_estimator kl_estimator;
    bool kl_in_reward;
    bool whiten_advantages, bootstrap_truncated;
    px_aggregation aggregation;
    px_missing_eos missing_eos;
    double missing_eos_value, reward_clip; /* clip 0: off */
    double early_stop_kl;                  /* 0: off */
    double importance_cap;                 /* above 0: samples may be of older weights, see px_importance */
    px_sampling sampling;                  /* temperature, filters, lengths, stop ids */
    const char *const *stop_strings;       /* [stop_string_count] */
    int stop_string_count;
    int max_prompt_tokens;
    bool shuffle;
    int max_slots;                         /* sequences decoded together */
    int inference_tokens;                  /* most tokens in one scoring forward */
    px_dtype sampler_precision;            /* scoring has the policy learner's */
    int max_skipped_steps;
} px_ppo_config;

/* ---- sampler: what a rank samples with. Local ---------------------------------------------------------------------------
 * Every sample is a function of weights, prompt and place (iteration, slot, sample): any rank draws the same. */
typedef struct px_sampler_plan {
    int samples;          /* most completions of one run */
    int max_prompt, slots, prefill; /* prompt tokens; sequences decoded together; tokens in one forward */
    int threads;
    px_dtype precision;
} px_sampler_plan;
typedef struct px_sampler {
    px_sampler_plan plan;
    px_generator *generator;
    px_tokenizer *tokenizer;          /* of stop strings, borrowed */
    const char *const *stop_strings;
    int stop_string_count, room;      /* room: max_new_tokens */
    px_request *requests;             /* [plan.samples], `count` of them in use */
    px_completion *completions;       /* [plan.samples], `used` of them: requests in order, samples in order */
    int32_t *request_of;              /* [plan.samples] of a completion */
    int32_t *ids;                     /* [plan.samples][room] */
    float *logprobs;                  /* the same */
    int count, used;
    px_buf text;
} px_sampler;
size_t px_sampler_bytes(const px_sampler_plan *plan, const px_ppo_config *config, const px_model *policy, size_t *cache);
px_status px_sampler_create(px_sampler *sampler, const px_sampler_plan *plan, const px_ppo_config *config,
                            const px_model_config *policy, px_tokenizer *tokenizer);
void px_sampler_free(px_sampler *sampler);
void px_sampler_clear(px_sampler *sampler);
/* Adds a prompt; its completions are `samples` from the returned index on. */
int px_sampler_add(px_sampler *sampler, const px_row *prompt, uint32_t slot, int samples);
/* step, done: as in px_feed; px_sampler_add may be called from step. Both NULL: what was added before is all. */
px_status px_sampler_run(px_sampler *sampler, const px_model *policy, const px_sampling *sampling, int (*step)(void *arg),
                         void (*done)(void *arg, int completion), void *arg);

/* Where completions come from when other ranks sample. Called on rank 0 of the group alone, with prompt, group and
 * sample_index of the rollout filled in; fills rank, weights_seq_no and `report`, and completions[samples] (borrowed until
 * the next call). seq_no: version of trainer->learners[0]'s weights. */
typedef struct px_collect_report {
    double healthy;  /* env runners that answer */
    double restored; /* so far: taken back after they had been left out */
    double synch_s;  /* publishing weights, since the last training batch */
    double within_s; /* of it what passed within the call */
} px_collect_report;
typedef struct px_collect {
    px_status (*run)(void *self, px_trainer *trainer, px_rollout *rollout, int64_t iteration, bool evaluation,
                         int64_t seq_no, const px_completion **completions, px_collect_report *report);
    /* The policy of the next iteration is done while the critic still learns: whoever samples may have it. */
    void (*publish)(void *self, const px_model *policy, int64_t seq_no);
    void *self;           /* NULL on the other ranks */
} px_collect;

typedef struct px_reward_model { /* what sources of kind model score with */
    px_model model;
    px_engine *engine;            /* made by px_ppo_create */
    int max_tokens;               /* of a text, set by px_ppo_create: longer ones lose their front */
    px_tokenizer *tokenizer;      /* NULL: the policy's ids are passed as they are */
    px_data_options reads;        /* with a tokenizer: how it made ids of the pairs that the model learnt from */
} px_reward_model;

typedef struct px_prompt_set { /* prompts with what scores their completions */
    const px_dataset *data;
    px_rewards *rewards;          /* borrowed */
} px_prompt_set;

typedef struct px_ppo_parts { /* everything a PPO trainer is put together from; moved in */
    px_model policy, critic, reference; /* reference may be borrowed weights */
    px_tokenizer *tokenizer;            /* borrowed; NULL with id rows and no text rewards */
    px_reward_model *reward_model;      /* NULL: none; px_alloc'ed, freed with the trainer */
    px_prompt_set train, evaluation;    /* evaluation.data NULL: none */
    int evaluation_prompts;             /* at most */
    int evaluation_samples;             /* of each prompt */
    double evaluation_temperature;      /* 0: greedy */
    const px_collect *collect;          /* borrowed; NULL: every rank samples its share */
    int scorers;                        /* the last so many ranks of the group score and do not learn (they are a team then, see
                                           px_team_make, and so are the others); 0: every rank does both */
    bool learns, scores;                /* this rank: has policy and critic to learn; has reference and reward model (and
                                           the critic's weights) */
} px_ppo_parts;
px_status px_ppo_create(px_trainer *trainer, const px_ppo_config *config, px_ppo_parts *parts);
typedef struct px_update_row { /* one optimizer step of policy and critic, for /updates */
    int32_t epoch, minibatch;
    int64_t first, last; /* places in order */
    double policy_loss, value_loss, policy_norm, critic_norm, policy_lr, critic_lr;
} px_update_row;
px_status px_ppo_rows(px_trainer *trainer, int64_t iteration, int64_t *rows); /* prompts of an iteration. Local */
/* How an iteration (or an evaluation) samples: everything but the prompt and its place. Local. */
px_sampling px_ppo_sampling(const px_ppo_config *config, uint64_t seed, const char *stage, int64_t iteration, bool evaluation,
                            double evaluation_temperature);
/* Must the learner recompute the samples' log-probabilities? Not where the sampler's are its bits. Local. */
bool px_ppo_recomputes(const px_ppo_config *config);
/* The sampler of a rank that samples `samples` completions at once. Local. */
px_sampler_plan px_ppo_sampler(const px_ppo_config *config, int samples);
/* What the last iteration did, for the sample file. Local; borrowed until the next iteration. */
typedef struct px_ppo_view {
    const px_rollout *rollout, *evaluation; /* evaluation: samples of the last evaluate; samples 0: none yet */
    const px_update_row *updates;
    int update_count;
    const int32_t *order; /* sample indices in the order they were visited, [order_count] */
    int64_t order_count;
    const px_rewards *rewards, *evaluation_rewards;
    int64_t weights_seq_no;
} px_ppo_view;
void px_ppo_look(const px_trainer *trainer, px_ppo_view *view);
typedef struct px_ppo_memory {
    size_t cache, generator; /* keys and values of the sequences being sampled; the rest of the sampler */
    size_t reference, reward; /* inference engines, without weights */
    size_t rollout, scratch;
} px_ppo_memory; /* bytes */
/* What px_ppo_create will allocate beside learners and frozen weights; the models need have no weights. Local. */
px_ppo_memory px_ppo_plan(const px_ppo_config *config, const px_ppo_parts *parts);

#endif
