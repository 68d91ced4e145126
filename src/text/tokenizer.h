/* The parts of a tokenizer, in the order a text goes through them: added tokens, normalizer, pre-tokenizer, model,
 * post-processor; and the decoder. Private to text. */
#ifndef PX_TEXT_TOKENIZER_H
#define PX_TEXT_TOKENIZER_H

#include "pattern.h"
#include "phalanx/text.h"
#include "vocab.h"

/* ---- normalizer: text to text */
typedef enum px_normal_kind {
    PX_NORMAL_NFC, PX_NORMAL_NFD, PX_NORMAL_NFKC, PX_NORMAL_NFKD, PX_NORMAL_PREPEND, PX_NORMAL_REPLACE,
    PX_NORMAL_LOWERCASE, PX_NORMAL_STRIP_ACCENTS, PX_NORMAL_STRIP, PX_NORMAL_NMT, PX_NORMAL_BYTE_LEVEL,
    PX_NORMAL_BERT_CLEAN, PX_NORMAL_BERT_HAN, PX_NORMAL_BERT_ACCENTS,
} px_normal_kind;
typedef struct px_normal {
    px_normal_kind kind;
    px_pattern pattern;      /* Replace */
    char *content;           /* Prepend, Replace */
    bool left, right;        /* Strip */
} px_normal;
/* text is replaced by its normal form; spare is scratch. */
px_status px_normalize(const px_normal *steps, int count, px_buf *text, px_buf *spare);

/* ---- pre-tokenizer: text to pieces */
typedef enum px_behavior { PX_ISOLATED, PX_REMOVED, PX_MERGED_PREVIOUS, PX_MERGED_NEXT, PX_CONTIGUOUS } px_behavior;
typedef enum px_split_kind {
    PX_SPLIT_PATTERN, PX_SPLIT_CLASS, PX_SPLIT_BYTE_LEVEL, PX_SPLIT_WORDS, PX_SPLIT_METASPACE, PX_SPLIT_LENGTH,
} px_split_kind;
typedef enum px_prepend { PX_PREPEND_ALWAYS, PX_PREPEND_FIRST, PX_PREPEND_NEVER } px_prepend;
typedef struct px_split {
    px_split_kind kind;
    px_pattern pattern;        /* pattern; byte level with use_regex; metaspace: the replacement */
    bool (*is_match)(uint32_t c); /* class */
    px_behavior behavior;
    bool invert;
    bool prefix_space;         /* byte level: add_prefix_space */
    bool use_pattern;          /* byte level: use_regex; metaspace: split */
    px_prepend prepend;        /* metaspace */
    int characters;            /* length: of a piece */
} px_split;
typedef struct px_span {
    size_t start, end;
    bool match; /* while splitting: this part is a match */
} px_span;
typedef struct px_pieces {
    px_buf text;          /* what the spans point into */
    px_span *spans;
    size_t count, capacity;
    bool at_start;        /* text begins where the whole input begins */
    bool bytes;           /* the last step is byte level: the model maps the bytes itself */
    px_buf next_text;     /* scratch of a step */
    px_span *next;
    size_t next_count, next_capacity;
    px_span *parts;       /* matches and gaps of one piece */
    size_t part_count, part_capacity;
} px_pieces;
/* pieces->text becomes spans. defer: leave the byte map of a final byte-level step to the model. */
px_status px_split_text(const px_split *steps, int count, bool defer, px_pieces *pieces);
void px_pieces_free(px_pieces *pieces);
extern const char px_gpt2_pattern[]; /* what ByteLevel with use_regex splits by */

/* ---- models: one piece to ids */
typedef struct px_merge {
    uint64_t pair;    /* left << 32 | right, plus 1 so that 0 is free */
    int32_t rank, id; /* of the merged token */
} px_merge;
typedef struct px_cached_word px_cached_word;
typedef struct px_bpe {
    px_merge *merges; /* open addressing */
    uint64_t mask;
    int32_t byte_char[256];     /* id of a byte's printable character; -1: none */
    int32_t byte_fallback[256]; /* id of <0xXX>; -1: none */
    bool all_bytes;             /* byte_char is complete and no prefix or suffix is in use */
    bool fall_back, fuse_unk, ignore_merges;
    int32_t unk;                /* -1: none */
    char *prefix, *suffix;      /* continuing_subword_prefix, end_of_word_suffix; NULL: none */
    px_cached_word *cache;
    px_buf cache_words;
    px_ids cache_ids;
    int32_t *symbols, *next, *previous, *rank; /* [room] of the word at hand */
    uint64_t *heap;
    size_t room;
    px_buf word;
} px_bpe;
px_status px_bpe_init(px_bpe *bpe, const px_vocab *vocab, size_t merges);
/* PX_DATA when the pair or what it makes is not in the vocabulary. */
px_status px_bpe_merge_add(px_bpe *bpe, const px_vocab *vocab, const char *left, size_t left_length, const char *right,
                           size_t right_length, int32_t rank);
void px_bpe_free(px_bpe *bpe);
px_status px_bpe_encode(px_bpe *bpe, const px_vocab *vocab, const char *word, size_t length, bool bytes, px_ids *ids);

typedef struct px_unigram {
    double *score;        /* [vocab size] */
    double lowest;
    uint64_t *edges;      /* trie, open addressing: node << 8 | byte, plus 1 */
    int32_t *target;      /* node of an edge */
    int32_t *token;       /* [nodes] id of the token that ends here, -1: none */
    uint64_t mask;
    int32_t nodes, room;
    int32_t byte_fallback[256];
    bool fall_back;
    int32_t unk;
    struct px_best *best; /* [best_room] */
    size_t best_room;
} px_unigram;
px_status px_unigram_init(px_unigram *unigram, const px_vocab *vocab);
void px_unigram_free(px_unigram *unigram);
px_status px_unigram_encode(px_unigram *unigram, const px_vocab *vocab, const char *word, size_t length, px_ids *ids);

typedef struct px_wordpiece {
    char *prefix;         /* of the pieces after the first */
    int longest;          /* words of more characters are unk */
    int32_t unk;          /* -1: none */
    px_buf piece;
} px_wordpiece;
void px_wordpiece_free(px_wordpiece *wordpiece);
px_status px_wordpiece_encode(px_wordpiece *wordpiece, const px_vocab *vocab, const char *word, size_t length,
                              px_ids *ids);

/* ---- added tokens: found in the text before anything else */
typedef struct px_added_token {
    char *content;  /* as in the file */
    char *match;    /* what is looked for: content, or its normal form */
    size_t match_length;
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
} px_added_token;
typedef struct px_finder {
    const px_added_token **tokens; /* by first byte, longer ones first */
    int count;
    int first[257];                /* where the tokens of a first byte begin */
} px_finder;
px_status px_finder_init(px_finder *finder, const px_added_token *tokens, int count, bool normalized);
void px_finder_free(px_finder *finder);
/* The next added token at or after *from, as the parts of text: the gap [gap_start, gap_end) before it, which may be
 * empty, and the token (NULL at the end of the text). *from moves behind it, *done is what earlier calls covered. */
const px_added_token *px_finder_next(const px_finder *finder, const char *text, size_t length, size_t *from,
                                     size_t *done, size_t *gap_start, size_t *gap_end);

/* ---- decoder: strings of tokens to text */
typedef enum px_decode_kind {
    PX_DECODE_BYTE_LEVEL, PX_DECODE_METASPACE, PX_DECODE_REPLACE, PX_DECODE_BYTE_FALLBACK, PX_DECODE_FUSE,
    PX_DECODE_STRIP, PX_DECODE_SUFFIX, PX_DECODE_WORDPIECE,
} px_decode_kind;
typedef struct px_decode {
    px_decode_kind kind;
    px_pattern pattern;  /* Replace; metaspace: the replacement */
    char *content;       /* Replace; Strip: one character; WordPiece: the prefix */
    bool cleanup;        /* WordPiece: no space before punctuation and the like */
    int start, stop;     /* Strip */
    px_prepend prepend;  /* metaspace */
} px_decode;
typedef struct px_parts {
    px_buf text;
    size_t *ends;        /* [count] end of each string in text */
    size_t count, capacity;
} px_parts;
px_status px_parts_end(px_parts *parts); /* what was added to text since the last end is one string */
void px_parts_free(px_parts *parts);
px_status px_decode_parts(const px_decode *steps, int count, px_parts *parts, px_parts *spare);

/* ---- the whole */
typedef enum px_model_kind { PX_MODEL_BPE, PX_MODEL_WORDLEVEL, PX_MODEL_UNIGRAM, PX_MODEL_WORDPIECE } px_model_kind;
enum { PX_STEPS_LIMIT = 32 };
struct px_tokenizer {
    char *path, *dir;
    px_vocab vocab;        /* the model's */
    px_added_token *added;
    int added_count;
    px_vocab added_vocab;
    int32_t *added_at;     /* [added_vocab.size] where an id is in added; -1: it is not */
    px_finder raw, normal; /* added tokens looked for before and after the normalizer */
    px_normal normals[PX_STEPS_LIMIT];
    int normal_count;
    px_split splits[PX_STEPS_LIMIT];
    int split_count;
    px_decode decodes[PX_STEPS_LIMIT];
    int decode_count;
    px_model_kind kind;
    px_bpe bpe;
    px_unigram unigram;
    px_wordpiece wordpiece;
    int32_t unk;           /* WordLevel; -1: none */
    px_ids before, after;  /* what the post-processor adds */
    int size;
    int32_t bos, eos, pad;
    char *chat_template, *chat_renderer; /* Jinja text; name of a renderer. NULL: none */
    px_buf gap, spare;     /* scratch of encode */
    px_pieces pieces;
    px_parts parts, parts_spare; /* scratch of decode */
};
struct json_t;
px_status px_tokenizer_parse(px_tokenizer *tokenizer, const struct json_t *root);      /* tokenizer.json */
px_status px_tokenizer_settings(px_tokenizer *tokenizer, const struct json_t *root);   /* tokenizer_config.json */
const px_added_token *px_tokenizer_added(const px_tokenizer *tokenizer, int32_t id); /* NULL: none */
/* Ids of a part of a longer text that begins behind an added token, or (at_start) at its beginning. Valid UTF-8. */
px_status px_tokenizer_encode_part(px_tokenizer *tokenizer, const char *text, size_t length, bool at_start,
                                   px_ids *ids);

#endif
