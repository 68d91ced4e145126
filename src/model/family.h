/* A family of models as data: the tensors of its files, the keys of its config.json, and what distinguishes its block.
 * docs/add-a-model.md walks through one. */
#ifndef PX_MODEL_FAMILY_H
#define PX_MODEL_FAMILY_H

#include <stddef.h>

#include "phalanx/model.h"

/* ---- tensors ----------------------------------------------------------------------------------------------------- */
typedef enum px_row_size { /* P: rows of the table of positions, D: of a head, I: of the MLP */
    SIZE_NONE,
    SIZE_ONE,
    SIZE_V,
    SIZE_C,
    SIZE_P,
    SIZE_D,
    SIZE_Q,
    SIZE_KV,
    SIZE_QKV,
    SIZE_I
} px_row_size;
typedef enum px_row_when {
    ALWAYS,
    IF_QKV_BIAS,
    IF_OUT_BIAS,
    IF_MLP_BIAS,
    IF_HEAD_NORM,
    IF_UNTIED,
    IF_SCALAR
} px_row_when;
typedef enum px_row_order { AS_IS, TRANSPOSED, BY_HEAD } px_row_order; /* of the file; see px_param */

typedef struct px_row {
    const char *name;    /* in files; of a block's tensor, what follows the layer's number */
    size_t view;         /* where the offset goes in px_model or px_layer_view; JOINED: right after the row before */
    px_row_size out, in; /* in SIZE_NONE: a vector */
    px_row_when when;
    px_row_order order;
} px_row; /* lists end with a row without a name */

#define JOINED SIZE_MAX
#define OUTER(field) offsetof(px_model, field)
#define BLOCK(field) offsetof(px_layer_view, field)

/* ---- keys of config.json ------------------------------------------------------------------------------------------- */
typedef enum px_entry_kind {
    ENTRY_INT,
    ENTRY_REAL,
    ENTRY_BOOL,
    ENTRY_ACTIVATION,
    ENTRY_SAME,  /* an integer that must be what `field` is */
    ENTRY_NEEDS, /* a switch that must be `low`, 0 or 1 */
    ENTRY_ZERO   /* written as 0, not read: dropout, of which there is none */
} px_entry_kind;

/* One key, read and written by its row. A missing key leaves the family's default; null too, but an integer becomes 0,
 * which px_model_config_complete replaces. */
typedef struct px_entry {
    const char *key;
    px_entry_kind kind;
    size_t field; /* in px_model_config */
    double low, high;
    bool required;
    const char *why; /* ENTRY_NEEDS: what the other value would be; ENTRY_SAME: what is valid */
} px_entry; /* lists end with an entry without a key */

#define FIELD(field) offsetof(px_model_config, field)
#define PX_MAX_VOCABULARY (1 << 24)
#define PX_MAX_WIDTH (1 << 17)
#define PX_MAX_LAYERS 1024
#define PX_MAX_POSITIONS (1 << 24)

/* ---- family -------------------------------------------------------------------------------------------------------- */
/* What distinguishes the blocks of the families; everything else follows from which tensors a model has and from its
 * configuration. */
typedef struct px_traits {
    bool layernorm;         /* LayerNorm with bias, else RMSNorm */
    bool learned_positions; /* a table added to the embedding, else rotary */
    bool gated;             /* act(gate) * up, else act(up) */
    bool head_norm;         /* RMSNorm of each head of q and k before the rotation */
    bool scaled_embedding;  /* embeddings times sqrt(C) */
    int norm_offset;        /* an RMSNorm multiplies by norm_offset + w */
    int position_offset;    /* row of the learned table that position 0 takes */
} px_traits;
px_traits px_family_traits(px_family family);

#define BIASES(qkv, out, mlp) (1u << ((qkv) + 2 * (out) + 4 * (mlp)))

typedef struct px_family_info {
    const char *type;        /* "model_type" */
    const char *model_class; /* "architectures" without the head's part */
    const char *lm_suffix;   /* the LM head's part */
    const char *base;        /* begins the body's tensors; files of bare bodies leave it out */
    const char *block_base;  /* begins a block's tensors, before the layer's number */
    const px_row *before, *block, *after;
    const px_entry *entries;
    px_traits traits;
    bool square;                      /* as many kv heads as heads, and heads * D = C */
    double rotary_part;               /* default part of a head that rotates; 1: other parts are refused */
    const char *theta_key, *part_key; /* flat keys of the rotation; NULL: rope_theta, partial_rotary_factor */
    unsigned biases;                  /* the patterns that there are: sum of BIASES(qkv, out, mlp) */
    px_model_config defaults;         /* what config.json leaves unsaid, token ids included */
} px_family_info;
const px_family_info *px_family_get(px_family family);

extern const px_family_info px_family_gpt2, px_family_llama, px_family_mistral, px_family_qwen2, px_family_qwen3,
    px_family_gemma, px_family_gpt_neox, px_family_opt;

/* Fills the model's views from the offsets of its parameters. */
void px_model_view(px_model *model);

#endif
