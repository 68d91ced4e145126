/* model: transformers on the kernels of compute. A family is a parameter table; a model is that table, one flat block of
 * weights and views into it; an engine runs it over ragged batches; a generator samples from it with a cache of keys and
 * values. Knows nothing of MPI and of files other than the Hugging Face directory. */
#ifndef PHALANX_MODEL_H
#define PHALANX_MODEL_H

#include "phalanx/base.h"
#include "phalanx/compute.h"

/* ---- configuration ------------------------------------------------------------------------------------------------ */
typedef enum px_family { PX_GPT2, PX_LLAMA, PX_MISTRAL, PX_QWEN2, PX_QWEN3, PX_GEMMA, PX_GPT_NEOX, PX_OPT } px_family;
#define PX_FAMILIES 8
/* The family's model_type in config.json, and back; PX_DATA lists the valid ones. */
const char *px_family_name(px_family family);
px_status px_family_parse(const char *name, px_family *family);

typedef enum px_head { PX_HEAD_NONE, PX_HEAD_LM, PX_HEAD_SCALAR } px_head; /* scalar: score.weight [1, C], no bias */
typedef enum px_rope_type { PX_ROPE_NONE, PX_ROPE_DEFAULT, PX_ROPE_LINEAR, PX_ROPE_LLAMA3, PX_ROPE_YARN } px_rope_type;

typedef struct px_rope {
    px_rope_type type;
    double theta, factor, low_freq, high_freq, original_positions; /* llama3, linear, yarn */
    double beta_fast, beta_slow, attention_factor;                 /* yarn */
    int rotary_dim;                                                /* dims of a head that rotate */
} px_rope;

#define PX_MAX_EOS 16
typedef struct px_model_config {
    px_family family;
    px_head head;
    bool tied;             /* LM head shares the embedding */
    int vocab_size;        /* V */
    int hidden_size;       /* C */
    int layers;            /* L */
    int heads, kv_heads;   /* query heads, key/value heads */
    int head_dim;          /* D */
    int intermediate_size; /* I */
    int max_positions;
    double norm_eps;
    int window;             /* keys that a query sees, its own included; 0: all before it */
    bool attention_bias, output_bias, mlp_bias;
    bool parallel_residual; /* attention and MLP read the same input, x + attention(x) + mlp(x) */
    px_activation activation;
    px_rope rope;
    int bos_id, pad_id; /* -1: none */
    int eos_ids[PX_MAX_EOS], eos_count;
    double initializer_range;
    double reward_mean, reward_std; /* reward models: what scores are centred by; 0 and 1 */
} px_model_config;

/* Adds an id to a list of PX_MAX_EOS unless it is there or below 0; false: there is no room. */
bool px_stop_ids_add(int ids[PX_MAX_EOS], int *count, int id);
px_status px_model_path_check(const char *path); /* PX_DATA: neither a directory nor a .gguf file */
/* config.json (+ generation_config.json for eos ids). PX_DATA names file, key, what was wrong, what is valid. */
px_status px_model_config_read(const char *dir, px_model_config *config);
/* A preset shape with random weights for benchmarks: gpt2-124m, nano10m, smollm2-135m, stories15m. */
px_status px_model_config_shape(const char *name, px_model_config *config);
px_status px_model_config_check(const px_model_config *config); /* divisibility, limits, what is not supported */
/* A family's defaults, no sizes, no token ids; then, when the sizes are set, what follows from them where it is 0:
 * kv_heads, head_dim, intermediate_size (4 C), rotated dims. */
void px_model_config_defaults(px_model_config *config, px_family family);
void px_model_config_complete(px_model_config *config);

/* ---- parameters ------------------------------------------------------------------------------------------------------
 * One row per tensor, in the order of the flat block. Tensors whose rows form one matrix product (q, k, v; gate, up) lie
 * next to each other, so that the fused matrix [q|k|v, C] is a view. Offsets and counts are in elements. */
typedef struct px_param {
    char name[128];           /* Hugging Face name, without the prefix that some files drop */
    int dims;
    int64_t shape[2];         /* as in memory: linear weights are [out, in] */
    size_t offset, count;
    bool joined;              /* one matrix or vector with the row before, right after which it lies */
    bool transposed;          /* GPT-2 Conv1D: the file holds [in, out] */
    int by_head;              /* over 0: rows per part; the file has q, k, v of head 0, then of head 1, ... (GPT-NeoX),
                                 memory all of q, then k, then v */
    bool decay;               /* weight decay applies (2-D tensors but the score head) */
    bool trainable;
    int layer;                /* -1: outside the blocks */
} px_param;

typedef struct px_layer_view { /* offsets of a block's tensors in the flat block; SIZE_MAX: absent */
    size_t norm1_w, norm1_b, qkv_w, qkv_b, q_norm_w, k_norm_w, out_w, out_b;
    size_t norm2_w, norm2_b, up_w, up_b, down_w, down_b;
} px_layer_view; /* up_w: gate then up ([2I, C]) in gated families, else the one input matrix */

typedef struct px_matrices16 {
    px_rows16 embed, lm_head; /* the same when tied */
    struct {
        px_rows16 qkv, out, up, down;
    } layers[];
} px_matrices16;

typedef struct px_model {
    px_model_config config;
    px_param *params;
    int param_count;
    size_t block;            /* elements of the flat block, padding included (zero) */
    size_t embed, position, norm_w, norm_b, lm_head, score; /* offsets; lm_head == embed when tied; SIZE_MAX: absent */
    px_layer_view *layers;
    px_real *weights;        /* [block] */
    bool borrowed;           /* weights belong to somebody else */
    void *range;             /* of a mapped model: its files' pages and what it has of its own; weights point into it */
    size_t range_bytes;
    px_matrices16 *bf16;     /* of a mapped model whose matrices are used as they lie in their files, in bf16; nothing is at their
                                offsets then. NULL: all are in weights */
    uint64_t version;        /* raised whenever weights change: packed forms and caches look at it */
} px_model;

/* Table and offsets only; no weights. */
px_status px_model_plan(px_model *model, const px_model_config *config);
px_status px_model_alloc(px_model *model); /* the flat block, zero */
/* Memory that the processes of a node see alike, for weights that nobody changes: an open file's whole pages from `offset`.
 * One of them fills it; the others may read when that one is done. */
typedef struct px_model_memory {
    int fd;
    size_t offset;
    bool fill; /* this process is the one */
} px_model_memory;
/* px_model_alloc there, also px_model_init if this process fills it. */
px_status px_model_init_shared(px_model *model, uint64_t seed, const px_model_memory *memory);
void px_model_free(px_model *model);
int64_t px_model_parameters(const px_model *model); /* tied counted once, padding not */
const px_param *px_model_param(const px_model *model, const char *name);
/* N(0, initializer_range), norms 1, biases 0, GPT-2 residual projections scaled by 1/sqrt(2L); the score head
 * N(0, 1/(C+1)). Keyed by (seed, tensor, element). */
void px_model_init(px_model *model, uint64_t seed);
void px_model_init_score(px_model *model, uint64_t seed);
/* Copies every tensor that both have (same name and shape); returns how many. */
int px_model_copy(px_model *to, const px_model *from);
/* Named views of `block` (weights, gradients or a moment of this model); caller owns the array of param_count. */
void px_model_arrays(const px_model *model, px_real *block, px_array *arrays);

/* Hugging Face directory: safetensors (one file or shards with an index; F32, F16, BF16), config.json; or a .gguf file, by
 * its path or as the only one of a directory without safetensors (quantised blocks become F32; px_model_map converts them).
 * PyTorch's pickles are refused by name and by content. `head` says what the caller needs: an LM directory loaded with PX_HEAD_SCALAR gets a score head of zeros (the caller initialises it) and
 * *had_score = false; a ...ForSequenceClassification directory brings its own. NONE takes either. */
px_status px_model_load(px_model *model, const char *dir, px_head head, bool *had_score);
/* The same for who only reads: tensors stay in the pages of their files where they lie there as they are used (F32, not
 * transposed, joined ones side by side; and matrices in BF16, where px_compute_reads_bf16() and all of them are and the model
 * has no table of positions), which all processes of a node share; the others are converted into `memory`, or,
 * where that is NULL, into this process's own. Only who fills the memory reads the weights: an error in them is its alone.
 * The parameters' offsets are then those of this model, and its weights are not one block. */
px_status px_model_map(px_model *model, const char *dir, px_head head, const px_model_memory *memory, bool *had_score);
typedef struct px_map_bytes {
    size_t files, beside; /* pages of files; memory for what is converted, whole pages */
    bool scores;          /* a score head is among them */
} px_map_bytes;
/* What px_model_map of the directory will take; `model` is the plan of its configuration. */
px_status px_model_map_plan(const px_model *model, const char *dir, px_map_bytes *bytes);
/* What the directory's weights are, however they are cut into files: equal for the same tensors in the same type. Reads them all. */
px_status px_model_hash(const char *dir, uint64_t *hash);
/* PX_DATA when a file of a mapped model was written to since. */
px_status px_model_map_check(const px_model *model);
/* Writes config.json, model.safetensors, generation_config.json; tokenizer files are copied from tokenizer_dir (NULL:
 * none). The directory must exist. Scalar heads are written as ...ForSequenceClassification with num_labels 1. */
px_status px_model_save(const px_model *model, const char *dir, px_dtype dtype, const char *tokenizer_dir);

/* ---- engine: forward and backward over ragged batches ---------------------------------------------------------------- */
typedef struct px_batch { /* borrowed */
    const int32_t *ids;    /* [tokens] */
    const int32_t *starts; /* [sequences + 1], tokens of sequence s are starts[s] .. starts[s+1]-1, positions from 0 */
    int sequences, tokens;
    const int32_t *wanted; /* [wanted_count] rows that a head will be asked for, any order; none: all. What lies between a
                              sequence's first and last of them is computed too, the others end in the last block */
    int wanted_count;
} px_batch;

typedef struct px_engine_plan {
    int max_tokens;    /* largest batch */
    int max_sequences;
    int max_sequence;  /* longest sequence */
    bool train;        /* keep activations for backward */
    int threads;
    px_dtype precision; /* of the matrix products, keys and values: PX_F32, or PX_BF16 where px_compute_no_bf16() is NULL */
    bool packed;        /* matrices are packed once for all forwards with the same weights: as many bytes as the weights,
                           twice that to train; in bf16 half of it, and always to train */
    bool recompute;     /* keep what is between the blocks alone, and run each block forward once more in backward */
} px_engine_plan;

typedef struct px_engine px_engine;
/* Bytes that px_engine_create will take, without allocating. */
size_t px_engine_bytes(const px_model *model, const px_engine_plan *plan);
px_status px_engine_create(px_engine **engine, const px_model_config *config, const px_engine_plan *plan);
void px_engine_destroy(px_engine *engine);
bool px_engine_fits(const px_engine *engine, int sequences, int tokens); /* would a batch of that size do? */

/* Runs the blocks and the final norm; the hidden states of the batch stay in the engine until the next forward. */
void px_engine_forward(px_engine *engine, const px_model *model, const px_batch *batch);
const px_real *px_engine_hidden(const px_engine *engine); /* [tokens, C], after the final norm; of a batch that wants all */

/* LM head on chosen rows only, in chunks: rows[n] index the batch's tokens, targets[n] are the next ids. */
void px_engine_logprobs(px_engine *engine, const px_model *model, const int32_t *rows, const int32_t *targets, int n,
                        double temperature, bool want_entropy, px_row_stats *stats);
void px_engine_logits(px_engine *engine, const px_model *model, const int32_t *rows, int n, px_real *logits); /* [n,V] */
/* Scalar head: values[n] = score . hidden[rows[n]] - reward_mean of the config, for scores and for the values of a critic
 * that starts as their model. */
void px_engine_values(px_engine *engine, const px_model *model, const int32_t *rows, int n, double *values);

/* Backward of a loss that is a sum over rows. `loss` is called for each chunk after its statistics are known and fills
 * the loss gradients dlogprob[i] (and dentropy[i], zeroed before) of row first + i; it may keep stats for metrics.
 * Gradients are added into grads [block]. The hidden-state gradient starts from zero: call exactly one head backward,
 * then px_engine_backward. */
typedef void (*px_row_loss)(void *arg, int first, int count, const px_row_stats *stats, double *dlogprob,
                            double *dentropy);
void px_engine_lm_backward(px_engine *engine, const px_model *model, px_real *grads, const int32_t *rows,
                           const int32_t *targets, int n, double temperature, bool want_entropy, px_row_loss loss,
                           void *arg);
void px_engine_value_backward(px_engine *engine, const px_model *model, px_real *grads, const int32_t *rows,
                              const double *dvalues, int n);
/* Forgets the gradients: the next head backward and px_engine_backward leave in grads what they would add to zeros, but write
 * most of it at once. used[vocab_size]: the embedding's rows that may be other than 0 in grads, before and after; NULL: any.
 * It is borrowed until the next call. */
void px_engine_fresh(px_engine *engine, uint8_t *used);
/* on_ready(arg, offset, count): this range of grads will not change any more (layers from last to first); NULL: none. */
typedef void (*px_grad_ready)(void *arg, size_t offset, size_t count);
void px_engine_backward(px_engine *engine, const px_model *model, px_real *grads, px_grad_ready on_ready, void *arg);

/* ---- generation --------------------------------------------------------------------------------------------------------- */
typedef struct px_sampling {
    double temperature; /* 0: greedy */
    int top_k;          /* 0: off */
    double top_p;       /* 1: off */
    double min_p;       /* 0: off */
    double repetition_penalty; /* 1: off */
    int max_new_tokens;
    int min_new_tokens; /* eos ids have probability 0 before */
    int stop_ids[PX_MAX_EOS], stop_count;
    px_rng rng;         /* uniforms are px_rng_uniform(rng, iteration, request.slot, sample, position) */
    uint32_t iteration;
} px_sampling;
/* Adds a stop id unless it is there or below 0; PX_CONFIG where there is no room. */
px_status px_sampling_stop_at(px_sampling *sampling, int32_t id);

typedef struct px_request {
    const int32_t *prompt; /* borrowed, length >= 1 */
    int prompt_length;
    uint32_t slot;         /* place in the iteration's batch: part of the random key */
    uint32_t first_sample; /* samples first_sample .. first_sample + samples - 1 */
    int samples;
} px_request;

typedef enum px_finish { PX_FINISH_STOP = 0, PX_FINISH_LENGTH = 1 } px_finish;
typedef struct px_completion { /* one per sample, requests in order, samples in order */
    int32_t *ids;    /* [max_new_tokens], caller's memory; the stop id is part of it */
    float *logprobs; /* [max_new_tokens], caller's memory: log softmax(z / temperature) over the full vocabulary
                        (temperature 0: of z), nats */
    int length;
    px_finish finish;
} px_completion;

typedef struct px_generator_plan {
    int max_slots;     /* sequences decoded together */
    int max_length;    /* prompt + completion */
    int max_prefill;   /* tokens in one forward, of prompts and of sequences that decode beside them */
    int threads;
    px_dtype precision; /* as the engine's */
} px_generator_plan;
typedef struct px_generator px_generator;
size_t px_generator_bytes(const px_model *model, const px_generator_plan *plan);
px_status px_generator_create(px_generator **generator, const px_model_config *config, const px_generator_plan *plan);
void px_generator_destroy(px_generator *generator);
/* on_token, if set, is called after each token of a sample; returning true stops the sample (stop strings, chat). */
typedef bool (*px_on_token)(void *arg, int completion, const px_completion *so_far);
/* A prompt goes through once for all its samples, beside what decodes; finished sequences leave at once and the queue
 * refills their slots.
 * Polls the stop level once a step: PX_STOPPED, completions undefined. The logprobs are the bits that
 * px_engine_logprobs gives for the same ids where px_compute_row_invariant(). */
px_status px_generator_run(px_generator *generator, const px_model *model, const px_sampling *sampling,
                           const px_request *requests, int count, px_completion *completions, px_on_token on_token,
                           void *arg);
/* The same while requests still come in: step is called before each step and returns how many requests there are by
 * now, in the arrays of the call (never fewer), or -1 to end at once with PX_STOPPED; done is called when a sample has
 * ended. Both may be NULL. */
typedef struct px_feed {
    int (*step)(void *arg);
    void (*done)(void *arg, int completion);
    px_on_token on_token;
    void *arg;
} px_feed;
px_status px_generator_feed(px_generator *generator, const px_model *model, const px_sampling *sampling,
                              const px_request *requests, int count, px_completion *completions, const px_feed *feed);
/* Work done by the last run, for tokens per second and FLOP/s. */
typedef struct px_generator_stats {
    int64_t prefill_tokens, decode_tokens; /* tokens of prompts but their last; tokens chosen */
    int64_t decode_steps;                  /* steps without prompts, */
    double decode_s, prefill_s;            /* and their time; that of the other steps */
} px_generator_stats;
void px_generator_last(const px_generator *generator, px_generator_stats *stats);

/* One token's choice from a row of logits, as generation makes it: exposed for its closed-form tests. min_new_tokens
 * counts the history as the completion so far. */
int px_sample_row(const px_real *logits, int V, const px_sampling *sampling, const int32_t *history, int history_length,
                  double uniform, double *probabilities /* [V] scratch; holds the final distribution */);

/* Floating-point operations of one forward over `tokens` tokens of mean length `length` (head rows counted apart). */
double px_model_flops(const px_model_config *config, int64_t tokens, double length, int64_t head_rows);

#endif
