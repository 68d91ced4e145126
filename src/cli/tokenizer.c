#include "cli.h"

#include <jansson.h>
#include <string.h>

static const px_usage usage = {
    .synopsis = "tokenizer train --data F... --vocab-size V --out DIR [options]",
    .what = "Learns a byte-level BPE tokenizer: the most frequent pair of pieces becomes a new piece until the\n"
            "vocabulary is full. Files are plain text, or records with the field text (or prompt and completion).\n"
            "Writes tokenizer.json and tokenizer_config.json into DIR, which other programs read too.",
    .examples = "  phalanx tokenizer train --data stories.txt --vocab-size 4096 --out tokenizer\n"
                "  phalanx tokenizer train --data a.jsonl --data b.txt --vocab-size 512 --special '<|endoftext|>' "
                "--out tok",
    .exits = "0 done, 64 usage, 65 bad data, 74 input/output",
};

/* What the vocabulary begins with: the special tokens and the 256 bytes. */
static px_status check_vocabulary(int64_t vocab_size, const px_words *special)
{
    for (int i = 0; i < special->count; i++) {
        const char *token = special->word[i];
        if (*token == '\0' || px_utf8_valid(token, strlen(token)) != strlen(token)) {
            return px_fail(PX_USAGE, "tokenizer: --special is %s; valid is a text", *token == '\0' ? "empty" : "not UTF-8");
        }
        for (int k = 0; k < i; k++) {
            if (strcmp(token, special->word[k]) == 0) {
                return px_fail(PX_USAGE, "tokenizer: --special %s is given twice; valid is once", token);
            }
        }
    }
    int64_t least = 256 + special->count;
    return vocab_size >= least ? PX_OK
                               : px_fail(PX_USAGE, "tokenizer: --vocab-size is %lld; valid is %lld or more, for 256 bytes and %d "
                                         "special tokens", (long long)vocab_size, (long long)least, special->count);
}

px_status px_command_tokenizer(int argc, char **argv)
{
    px_words words = {.count = 0}, files = {.count = 0}, special = {.count = 0};
    const char *out = NULL;
    int64_t vocab_size = 0, min_frequency = 2;
    bool json = false, helped;
    const px_option options[] = {
        {"data", PX_OPTION_LIST, &files, "F", "text to learn from", 0, 0},
        {"vocab-size", PX_OPTION_INT, &vocab_size, "V", "ids, special ones and the 256 bytes included", 0, 1 << 22},
        {"out", PX_OPTION_TEXT, &out, "DIR", "where it is written", 0, 0},
        {"min-frequency", PX_OPTION_INT, &min_frequency, "N", "pairs that are rarer are not merged", 1, 1e9},
        {"special", PX_OPTION_LIST, &special, "TOKEN", "special token; without any: <|endoftext|>", 0, 0},
        {"json", PX_OPTION_FLAG, &json, NULL, "what was made as one object", 0, 0},
    };
    PX_TRY(px_options_parse(&usage, options, PX_COUNT(options), argc, argv, &words, &helped));
    if (helped) {
        return PX_OK;
    }
    if (words.count != 1 || strcmp(words.word[0], "train") != 0) {
        return px_fail(PX_USAGE, "tokenizer: valid is 'tokenizer train'; 'phalanx tokens' shows a tokenizer at work");
    }
    PX_TRY(px_option_required("tokenizer", "data", files.count > 0 ? files.word[0] : NULL));
    PX_TRY(px_option_required("tokenizer", "vocab-size", vocab_size > 0 ? "" : NULL));
    PX_TRY(px_option_required("tokenizer", "out", out));
    if (special.count == 0) {
        special.word[special.count++] = "<|endoftext|>";
    }
    PX_TRY(check_vocabulary(vocab_size, &special));
    double start = px_now();
    PX_TRY(px_tokenizer_train(files.word, files.count, (int)vocab_size, (int)min_frequency, special.word,
                              special.count, out));
    px_tokenizer *tokenizer;
    PX_TRY(px_tokenizer_load(&tokenizer, out));
    int size = px_tokenizer_size(tokenizer);
    px_tokenizer_destroy(tokenizer);
    px_log(PX_INFO, "%s: %d ids, learnt in %.1f s", out, size, px_now() - start);
    if (!json) {
        return PX_OK;
    }
    PX_TRY(px_print_json(json_pack("{s:s, s:i}", "out", out, "vocab_size", size)));
    return px_output_done();
}
