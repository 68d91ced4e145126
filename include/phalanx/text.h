/* text: tokenizers (tokenizer.json), chat renderers, data sets (JSONL and relatives) turned into rows of token ids, and
 * the order in which rows are visited. No MPI, no BLAS, no HDF5. */
#ifndef PHALANX_TEXT_H
#define PHALANX_TEXT_H

#include "phalanx/base.h"

/* ---- tokenizer ---------------------------------------------------------------------------------------------------- */
typedef struct px_tokenizer px_tokenizer;
typedef struct px_ids { /* growing array of token ids; start from {0}, px_ids_free */
    int32_t *data;
    int64_t length, capacity;
} px_ids;
px_status px_ids_add(px_ids *ids, int32_t id);
px_status px_ids_append(px_ids *ids, const int32_t *more, int64_t count);
void px_ids_free(px_ids *ids);

/* path: a tokenizer.json (or .json.gz), or a directory that has one; tokenizer_config.json beside it is read for special
 * tokens and the chat template. Or a .gguf file, whose metadata has all that; where it says too little, a tokenizer.json
 * beside it is read. PX_DATA names file, key and what is supported. */
px_status px_tokenizer_load(px_tokenizer **tokenizer, const char *path);
bool px_tokenizer_exists(const char *path); /* is there anything to load? */
/* Writes tokenizer.json and tokenizer_config.json of a .gguf file into dir; `from`, as px_tokenizer_dir says, may be
 * anything else: nothing is written then. */
px_status px_tokenizer_extract(const char *from, const char *dir);
void px_tokenizer_destroy(px_tokenizer *tokenizer);
/* Ids of a text, appended. add_special: what the post-processor adds (BOS, ...). Special tokens inside the text are
 * recognised. PX_DATA on invalid UTF-8. Classes of characters are those of the Unicode version of PCRE2 and utf8proc. */
px_status px_tokenizer_encode(px_tokenizer *tokenizer, const char *text, size_t length, bool add_special, px_ids *ids);
/* Ids of a text that begins a sequence, appended: BOS in front where the post-processor puts one, once though the text
 * brings its own; nothing else is added. */
px_status px_tokenizer_encode_start(px_tokenizer *tokenizer, const char *text, size_t length, px_ids *ids);
/* Whether encode puts a space before every text (Llama 2's normalizer): what goes on behind other ids then loses its own. */
bool px_tokenizer_prepends_space(const px_tokenizer *tokenizer);
/* Bytes of the ids, appended. Ids without a string become <unk:ID>. Invalid UTF-8 (a cut character) becomes U+FFFD, as
 * the tokenizers library does. */
px_status px_tokenizer_decode(px_tokenizer *tokenizer, const int32_t *ids, int64_t count, bool skip_special, px_buf *text);
/* What the ids say behind those before them, appended: the text of all without the text of the ones before, for a decoder
 * may treat the beginning of a text in its own way (Llama 2's takes a space away). Where a character is cut between the
 * two, it belongs to the later ids as far as they complete or change it. */
px_status px_tokenizer_decode_after(px_tokenizer *tokenizer, const int32_t *before, int64_t before_count,
                                    const int32_t *ids, int64_t count, bool skip_special, px_buf *text);
int px_tokenizer_size(const px_tokenizer *tokenizer);                      /* ids are below this */
const char *px_tokenizer_token(const px_tokenizer *tokenizer, int32_t id); /* as in the file; NULL: none */
int32_t px_tokenizer_id(const px_tokenizer *tokenizer, const char *token); /* -1: none */
int32_t px_tokenizer_bos(const px_tokenizer *tokenizer);                   /* -1: none */
int32_t px_tokenizer_eos(const px_tokenizer *tokenizer);
int32_t px_tokenizer_pad(const px_tokenizer *tokenizer);
bool px_tokenizer_is_special(const px_tokenizer *tokenizer, int32_t id);
/* What a stop string is: *id, where it is the text of a special token; -1, where it is looked for in text. PX_CONFIG where
 * special tokens are a part of it, for text is without them. */
px_status px_tokenizer_stop(const px_tokenizer *tokenizer, const char *text, int32_t *id);
bool px_tokenizer_adds_bos(const px_tokenizer *tokenizer); /* its post-processor puts BOS in front */
const char *px_tokenizer_chat_template(const px_tokenizer *tokenizer); /* the Jinja text; NULL: none */
/* Equal hashes: the same ids for the same text, whatever program wrote the file, and in which format. Computed when asked
 * for. Which tokens bos, eos and pad are is not in it, nor the chat template. */
uint64_t px_tokenizer_hash(const px_tokenizer *tokenizer);
const char *px_tokenizer_dir(const px_tokenizer *tokenizer); /* where its files lie, for copying beside a model; or its .gguf */

/* Byte-level BPE from text: the most frequent pair first, ties as the tokenizers library breaks them. `special` tokens
 * come first in the vocabulary ("<|endoftext|>" is eos and bos when it is the only one; with <|im_start|> and <|im_end|>
 * the ChatML template is written too). Writes tokenizer.json and tokenizer_config.json into dir, which is made. Files:
 * plain text, whose lines are trained on one by one, or JSONL with a field "text" (or prompt/completion, messages,
 * chosen/rejected); .gz and .zst of each. */
px_status px_tokenizer_train(const char *const *files, int file_count, int vocab_size, int min_frequency,
                             const char *const *special, int special_count, const char *dir);

/* ---- chat ------------------------------------------------------------------------------------------------------------ */
typedef struct px_call { /* of a tool */
    const char *name, *arguments; /* the arguments' JSON, as Python writes it */
    const char *text;             /* what they hold where they are a string; NULL: they are not */
} px_call;
typedef struct px_message { /* all borrowed */
    const char *role, *content;
    const char *reasoning; /* an assistant's, before its content; NULL: none, or inside the content */
    const px_call *calls;  /* an assistant's, after its content */
    int call_count;
    const char *tools;     /* of the first message: the JSON of each tool that may be called, one a line; NULL: none */
    bool unlearned;        /* an assistant's turn that the mask leaves out */
} px_message;
typedef struct px_renderer px_renderer; /* static: nothing to free */
/* name: "auto" chooses by what px_renderer_note has left, then by the tokenizer's own template, else chatml, qwen2, qwen2.5, qwen2.5-base, qwen3, llama2, llama3, gemma, mistral,
 * zephyr, smollm2, minimind, plain (hh). PX_CONFIG names what is valid; *renderer NULL for "none" and when auto finds no
 * template at all. */
px_status px_renderer_find(const px_renderer **renderer, const char *name, const px_tokenizer *tokenizer);
/* Into tokenizer_config.json of a model's directory, as "chat_renderer": there "auto" finds what the model was trained with, also
 * where no Jinja text says it. */
px_status px_renderer_note(const char *dir, const px_renderer *renderer);
const char *px_renderer_name(const px_renderer *renderer);
/* Ids of a conversation. mask, if not NULL, gets one 0/1 per id: assistant content and its end-of-turn token. PX_DATA
 * where the messages have tools, calls or reasoning and the template does not write them.
 * generation_prompt: end with the header of an assistant turn. */
px_status px_chat_encode(const px_renderer *renderer, px_tokenizer *tokenizer, const px_message *messages, int count,
                         bool generation_prompt, px_ids *ids, px_ids *mask);
/* The same as training learns or scores it: think blocks of earlier turns stay where the turn is learned, and where the
 * template ends an answer with no special token, the last turn that is learned ends the row with eos_id (-1: none).
 * scored: nothing follows the last id that is learned. */
px_status px_chat_row(const px_renderer *renderer, px_tokenizer *tokenizer, const px_message *messages, int count,
                      int32_t eos_id, bool scored, px_ids *ids, px_ids *mask);
/* The special token with which the template ends an assistant's turn, -1: none. */
px_status px_renderer_stop(const px_renderer *renderer, const px_tokenizer *tokenizer, int32_t *id);
px_status px_chat_text(const px_renderer *renderer, px_tokenizer *tokenizer, const px_message *messages, int count,
                       bool generation_prompt, px_buf *text);

/* The conversation of a record, one that training could have read: its messages, conversations or prompt, and tools. */
struct json_t;
px_status px_chat_record(const px_renderer *renderer, px_tokenizer *tokenizer, const struct json_t *record,
                         bool generation_prompt, px_buf *text, px_ids *ids, px_ids *mask);

/* ---- data sets ---------------------------------------------------------------------------------------------------------
 * Everything that can be a row: a language-model text, prompt + completion, a conversation, a preference pair, a prompt
 * with extra columns. Shapes are recognised from the first record and named in `shape`; token-id rows are taken as they
 * are (interface.md: ids; prompt_ids + completion_ids; prompt_ids + chosen_ids + rejected_ids). */
typedef enum px_kind { PX_ROWS_LM, PX_ROWS_PAIRS, PX_ROWS_PROMPTS } px_kind;

typedef struct px_row {
    int64_t record;           /* 0-based record number in the file(s) */
    const int32_t *ids;       /* LM: the whole row. PAIRS: prompt + chosen. PROMPTS: the prompt */
    int length;
    int prompt_length;        /* LM: tokens before the completion (0: loss on all but the first). PAIRS: shared by both */
    const uint8_t *mask;      /* LM: 1 where the token is a target, [length]; NULL: all from max(1, prompt_length) */
    const int32_t *rejected;  /* PAIRS: prompt + rejected */
    int rejected_length;
    double margin;            /* PAIRS: 0 unless given */
    const char *json;         /* PROMPTS: the record's own text, one JSON object, for rewards; NUL-terminated */
    int json_length;
} px_row;

typedef struct px_data_options {
    px_kind kind;
    px_tokenizer *tokenizer;     /* NULL: only id rows are possible */
    const px_renderer *renderer; /* for message lists; NULL: refuse them */
    const char *system;          /* default system message; NULL: none */
    int max_tokens;              /* LM: longer rows are cut at the end; PAIRS: pairs with a longer side are dropped;
                                    PROMPTS: longer prompts are dropped. 0: no limit */
    int vocab_size;              /* ids must be below it; 0: not checked */
    int32_t eos_id;              /* appended to plain completions and texts that lack it, and as px_chat_row says; -1: none */
    bool whole;                  /* LM: texts, all of which is learned, stay as long as they are: the reader cuts pieces */
    bool scored;                 /* LM: as the sides of pairs: nothing behind the last target, and longer rows are dropped */
    bool add_bos;                /* put BOS in front where the tokenizer's own post-processor would */
    const char *cache;           /* directory: rows lie in files there, made once and mapped; NULL: in memory */
} px_data_options;

typedef struct px_dataset px_dataset;
typedef struct px_part { /* rows that follow each other and are visited `weight` times in an epoch */
    int64_t count;
    double weight;
} px_part;
int64_t px_parts_epoch(const px_part *parts, int count); /* positions of an epoch */
typedef struct px_data_summary {
    char shape[64];                  /* "prompt+completion", "chosen+rejected (implicit prompt)", ... */
    int64_t records, rows, cut, dropped;
    int64_t dropped_long, dropped_equal, dropped_empty; /* over max_tokens; chosen equal to rejected (more than 2 % of
                                        them are an error); an empty text (more than 90 % are an error) or nothing to
                                        learn within max_tokens. Their sum: dropped */
    int64_t tokens;                  /* of both sides of pairs */
    int max_length, min_length;      /* of pairs: their longer side; mean and histogram too */
    double mean_length;
    int64_t duplicate_prompts;       /* rows, kept, whose prompt (the row where it has none) an earlier row has */
    int64_t histogram[24];           /* rows of length in [2^i, 2^(i+1)) */
    bool rendered;                   /* by the chat template: all rows of a file, or of some file */
} px_data_summary;
/* A file of a data set. weight: how many times an epoch goes through it; 0.5 takes the other half in the next epoch. */
typedef struct px_source {
    const char *path;
    double weight;
} px_source;
/* Reads and tokenises files (.jsonl, .json array, .txt one text per blank-line-separated paragraph; .gz, .zst of each),
 * one after another; each may have a shape of its own. PX_DATA: "FILE:LINE: what is wrong; what is valid".
 * Deterministic: no rank, no thread in it. */
px_status px_dataset_load_files(px_dataset **dataset, const px_source *sources, int count,
                                const px_data_options *options);
px_status px_dataset_load(px_dataset **dataset, const char *path, const px_data_options *options); /* one file */
/* What the first record of a file makes its rows: pairs where it can be one, else a language model's row, else a prompt. */
px_status px_dataset_kind(const char *path, px_kind *kind);
void px_dataset_destroy(px_dataset *dataset);
int64_t px_dataset_count(const px_dataset *dataset);
void px_dataset_row(const px_dataset *dataset, int64_t index, px_row *row); /* views: valid until destroy */
const px_data_summary *px_dataset_summary(const px_dataset *dataset); /* of all files */
const px_data_summary *px_dataset_file_summary(const px_dataset *dataset, int file);
const px_part *px_dataset_parts(const px_dataset *dataset, int *count); /* one a file, in order; rows of a file follow
                                                                           each other */
double px_dataset_epoch_tokens(const px_dataset *dataset); /* that an epoch takes, by weight */
/* Over all ids, masks and margins, of prompts over their records too: what a resumed run must find unchanged. */
uint64_t px_dataset_hash(const px_dataset *dataset);

/* Ids of a prompt with an answer that was sampled for it: those of a pair's side that says the same, so that a reward model
 * reads what it learnt from. record: a row's json of PX_ROWS_PROMPTS, whose messages or text are the prompt; prompt: its
 * text where it has neither (ids, or messages without options->renderer). */
px_status px_answer_encode(const px_data_options *options, const char *record, const char *prompt, const char *answer,
                           px_ids *ids);

/* Raw access for `phalanx tokens` and rewards: calls fn for each record with its JSON text (a paragraph of .txt comes as
 * {"text": ...}), which is NUL-terminated, valid UTF-8, and not parsed yet. line: of the file, from 1. Same formats and
 * messages; a status of fn other than PX_OK ends it and is passed on. */
typedef px_status (*px_record_fn)(void *arg, int64_t record, int64_t line, const char *json, size_t length);
px_status px_records_each(const char *path, px_record_fn fn, void *arg);
int64_t px_record_line(const char *path, int64_t record); /* of the file, from 1, where the record begins; 0: not found */

/* ---- order ------------------------------------------------------------------------------------------------------------
 * Which rows make optimizer step or iteration k: a function of (seed, epoch) alone. Positions run over epochs without
 * end: position p is place permutation(epoch = p / length)[p % length] of its epoch; shuffle false: place p % length.
 * The places of an epoch are `weight` passes over the first part's rows, then over the second's, and so on: an epoch
 * takes weight * rows of them (rounded, at least one) and the next goes on where it ended. A pass that epochs share is
 * in strides with shuffle (each epoch sees rows from all over the file), from first to last without. */
typedef struct px_order {
    const px_part *parts;
    int part_count;
    int64_t length;   /* positions of an epoch */
    bool shuffle;
    px_rng rng;
    int64_t epoch;    /* of the cached permutation; -1: none */
    int64_t *permutation; /* NULL: epochs of more than 2^22 places, whose places are computed */
} px_order;
size_t px_order_bytes(const px_part *parts, int count, bool shuffle);
/* parts: borrowed until px_order_free. */
px_status px_order_init(px_order *order, const px_part *parts, int part_count, bool shuffle, px_rng rng);
void px_order_free(px_order *order);
int64_t px_order_row(px_order *order, int64_t position);

/* Packing for language-model steps. Best fit decreasing: lengths[count] into bins of `capacity` tokens; bin[i] is row i's bin; returns the bin count.
 * Ties go to the lower index, so the answer is a function of the lengths alone. -1: a row is longer than capacity, or no
 * memory (the error is recorded). */
int64_t px_pack(const int32_t *lengths, int64_t count, int capacity, int32_t *bin);

#endif
