/* Models as commands take them: a directory or a GGUF file with weights, and the tokenizer and chat template that lie in it. */
#include "cli.h"

#include <stdio.h>
#include <string.h>

int px_cores(void)
{
    uint64_t mask[PX_MOST_CPUS / 64];
    px_cpus_read(0, mask);
    return px_cpus_count(mask);
}

px_status px_stops_check(const char *command, const px_words *stop)
{
    for (int i = 0; i < stop->count; i++) {
        if (stop->word[i][0] == '\0') {
            return px_fail(PX_USAGE, "%s: --stop is empty; valid is a text", command);
        }
    }
    return PX_OK;
}

px_status px_precision_read(const char *command, const char *word, px_dtype *precision)
{
    bool bf16 = strcmp(word, "bf16") == 0;
    if (!bf16 && strcmp(word, "f32") != 0) {
        return px_fail(PX_USAGE, "%s: --precision is '%s'; valid are f32, bf16", command, word);
    }
    *precision = px_compute_precision(bf16);
    return PX_OK;
}

px_status px_tokenizer_open(px_tokenizer **tokenizer, const char *dir)
{
    *tokenizer = NULL;
    return px_tokenizer_exists(dir) ? px_tokenizer_load(tokenizer, dir) : PX_OK;
}

px_status px_template_read(const px_renderer **renderer, const char *name, const px_tokenizer *tokenizer)
{
    px_status status = px_renderer_find(renderer, name, tokenizer);
    return status != PX_CONFIG ? status : px_fail(PX_USAGE, "--template: %s", px_error_text());
}

static px_status load(px_opened *opened, const char *dir, px_head head, const char *tokenizer_path,
                      const char *template)
{
    PX_TRY(px_model_map(&opened->model, dir, head, NULL, &opened->had_score));
    PX_TRY(tokenizer_path != NULL ? px_tokenizer_load(&opened->tokenizer, tokenizer_path)
                                  : px_tokenizer_open(&opened->tokenizer, dir));
    return opened->tokenizer != NULL ? px_template_read(&opened->renderer, template, opened->tokenizer) : PX_OK;
}

px_status px_opened_load(px_opened *opened, const char *dir, px_head head, const char *tokenizer_path,
                         const char *template)
{
    *opened = (px_opened){.threads = px_cores(), .precision = PX_F32};
    px_status status = load(opened, dir, head, tokenizer_path, template);
    if (status != PX_OK) {
        px_opened_free(opened);
    }
    return status;
}

void px_opened_free(px_opened *opened)
{
    px_model_free(&opened->model);
    px_tokenizer_destroy(opened->tokenizer);
    opened->tokenizer = NULL;
}

static px_status add_stops(px_sampling *s, const px_opened *opened, const px_words *stop, bool rendered)
{
    const px_model_config *config = &opened->model.config;
    for (int i = 0; i < config->eos_count; i++) {
        PX_TRY(px_sampling_stop_at(s, config->eos_ids[i]));
    }
    if (opened->tokenizer == NULL) {
        return PX_OK;
    }
    int32_t id = px_tokenizer_eos(opened->tokenizer);
    PX_TRY(px_sampling_stop_at(s, id < config->vocab_size ? id : -1));
    if (rendered && opened->renderer != NULL) {
        PX_TRY(px_renderer_stop(opened->renderer, opened->tokenizer, &id));
        PX_TRY(px_sampling_stop_at(s, id < config->vocab_size ? id : -1));
    }
    for (int i = 0; i < stop->count; i++) {
        px_status status = px_tokenizer_stop(opened->tokenizer, stop->word[i], &id);
        status = status == PX_OK ? px_sampling_stop_at(s, id < config->vocab_size ? id : -1) : status;
        if (status != PX_OK) {
            return px_fail(PX_USAGE, "--stop: %s", px_error_text());
        }
    }
    return PX_OK;
}

px_status px_sampling_make(px_sampling *sampling, const px_sampling_options *options, const px_opened *opened,
                           const px_words *stop, bool rendered)
{
    *sampling = (px_sampling){.temperature = options->temperature,
                              .top_k = (int)options->top_k,
                              .top_p = options->top_p,
                              .min_p = options->min_p,
                              .repetition_penalty = options->repetition_penalty,
                              .max_new_tokens = (int)options->max_new_tokens,
                              .rng = px_rng_make((uint64_t)options->seed, NULL, PX_RNG_SAMPLE)};
    return add_stops(sampling, opened, stop, rendered);
}

size_t px_stops_find(px_stops *stops, const px_request *request, const px_completion *completion)
{
    size_t first = SIZE_MAX;
    px_buf_clear(&stops->text);
    if (stops->tokenizer == NULL || stops->words->count == 0 ||
        px_tokenizer_decode_after(stops->tokenizer, request->prompt, request->prompt_length, completion->ids,
                                  completion->length, true, &stops->text) != PX_OK || stops->text.data == NULL) {
        return first;
    }
    for (int i = 0; i < stops->words->count; i++) {
        const char *at = strstr(stops->text.data, stops->words->word[i]);
        if (at != NULL && (size_t)(at - stops->text.data) < first) {
            first = (size_t)(at - stops->text.data);
        }
    }
    return first;
}
