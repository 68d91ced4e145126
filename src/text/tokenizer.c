#include "tokenizer.h"

#include "bytes.h"
#include "gguf.h"

#include <jansson.h>
#include <string.h>
#include <sys/stat.h>

/* ---- files */
static px_status too_large(const char *path)
{
    return px_fail(PX_DATA, "%s: more than %zu MiB; valid is less", path, PX_VOCABULARY_MOST >> 20);
}

/* A few compressed bytes can be any number of them. */
static px_status read_whole(const char *path, px_buf *text)
{
    px_bytes *bytes;
    struct stat info;
    PX_TRY(px_bytes_open(&bytes, path));
    px_status status = stat(path, &info) == 0 && info.st_size > (off_t)PX_VOCABULARY_MOST ? too_large(path) : PX_OK;
    const char *data;
    size_t length;
    while (status == PX_OK && (status = px_bytes_next(bytes, &data, &length)) == PX_OK && length > 0) {
        status = text->length + length <= PX_VOCABULARY_MOST ? px_buf_add(text, data, length) : too_large(path);
    }
    px_bytes_close(bytes);
    return status;
}

static px_status find_file(char *out, const char *path)
{
    if (!px_dir_exists(path)) {
        if (!px_file_exists(path)) {
            return px_fail(PX_DATA, "%s: no such file; a tokenizer is a tokenizer.json, or a directory with one", path);
        }
        return px_path_join(out, PX_PATH_MAX, ".", path);
    }
    static const char *const names[] = {"tokenizer.json", "tokenizer.json.gz"};
    for (int i = 0; i < 2; i++) {
        PX_TRY(px_path_join(out, PX_PATH_MAX, path, names[i]));
        if (px_file_exists(out)) {
            return PX_OK;
        }
    }
    PX_TRY(px_gguf_find(out, PX_PATH_MAX, path));
    if (out[0] != '\0') {
        return PX_OK;
    }
    return px_fail(PX_DATA, "%s: has no tokenizer.json (nor tokenizer.json.gz); a tokenizer of another format can be "
                   "saved as tokenizer.json by the transformers library", path);
}

/* tokenizer_config.json has numbers that no integer type holds (model_max_length 1e30): all are read as reals. */
static px_status read_settings(const char *path, json_t **settings)
{
    px_buf text = {0};
    json_error_t error;
    px_status status = px_file_read(path, PX_TEXT_MOST, &text);
    if (status == PX_OK) {
        *settings = json_loadb(text.data != NULL ? text.data : "", text.length, JSON_DECODE_INT_AS_REAL, &error);
        status = *settings != NULL ? PX_OK : px_fail(PX_DATA, "%s:%d:%d: not valid JSON: %s", path, error.line,
                                                     error.column, error.text);
    }
    px_buf_free(&text);
    return status;
}

static px_status load_settings(px_tokenizer *t)
{
    char path[PX_PATH_MAX];
    PX_TRY(px_path_join(path, sizeof path, t->dir, "tokenizer_config.json"));
    json_t *settings = NULL;
    if (px_file_exists(path)) {
        PX_TRY(read_settings(path, &settings));
    }
    px_status status = px_tokenizer_settings(t, settings);
    json_decref(settings);
    if (status != PX_OK) {
        return px_fail_within("%s", path);
    }
    PX_TRY(px_path_join(path, sizeof path, t->dir, "chat_template.jinja"));
    if (!px_file_exists(path)) {
        return PX_OK;
    }
    px_buf text = {0}; /* a template of its own file is the one that counts, as in transformers */
    status = px_file_read(path, PX_TEXT_MOST, &text);
    if (status == PX_OK) {
        px_free(t->chat_template);
        t->chat_template = px_strdup(text.data != NULL ? text.data : "");
        status = t->chat_template != NULL ? PX_OK : px_error_code();
    }
    px_buf_free(&text);
    return status;
}

static px_status parse_gguf(px_tokenizer *t, const char *name, const json_t *root, const json_t *settings)
{
    t->path = px_strdup(name);
    t->dir = px_strdup(name);
    if (t->path == NULL || t->dir == NULL) {
        return px_error_code();
    }
    px_status status = px_tokenizer_parse(t, root);
    status = status == PX_OK ? px_tokenizer_settings(t, settings) : status;
    return status == PX_OK ? PX_OK : px_fail_within("%s", name);
}

/* What the metadata leaves open, a tokenizer.json beside the file says: then its path is in name. */
static px_status load_gguf(px_tokenizer *t, char *name, bool *loaded)
{
    char dir[PX_PATH_MAX], beside[PX_PATH_MAX];
    json_t *root, *settings;
    *loaded = false;
    px_status status = px_gguf_tokenizer(name, &root, &settings);
    if (status == PX_OK) {
        status = parse_gguf(t, name, root, settings);
        json_decref(root);
        json_decref(settings);
        *loaded = true;
        return status;
    }
    px_path_parent(dir, sizeof dir, name);
    if (status != PX_DATA || px_path_join(beside, sizeof beside, dir, "tokenizer.json") != PX_OK || !px_file_exists(beside)) {
        return status;
    }
    px_log(PX_NOTE, "%s; the tokenizer is %s", px_error_text(), beside);
    px_error_clear();
    return px_path_join(name, PX_PATH_MAX, "", beside);
}

static px_status load(px_tokenizer *t, const char *path)
{
    char name[PX_PATH_MAX], dir[PX_PATH_MAX];
    PX_TRY(find_file(name, path));
    size_t length = strlen(name);
    if (length > 5 && strcmp(name + length - 5, ".gguf") == 0) {
        bool loaded;
        PX_TRY(load_gguf(t, name, &loaded));
        if (loaded) {
            return PX_OK;
        }
    }
    px_path_parent(dir, sizeof dir, name);
    t->path = px_strdup(name);
    t->dir = px_strdup(dir);
    if (t->path == NULL || t->dir == NULL) {
        return px_error_code();
    }
    px_buf text = {0};
    px_status status = read_whole(name, &text);
    json_t *root = NULL;
    if (status == PX_OK) {
        status = px_json_parse(text.data != NULL ? text.data : "", text.length, name, 0, &root);
    }
    px_buf_free(&text);
    if (status == PX_OK) {
        status = px_tokenizer_parse(t, root);
        if (status != PX_OK) {
            px_fail_within("%s", name);
        }
    }
    json_decref(root);
    PX_TRY(status);
    return load_settings(t);
}

px_status px_tokenizer_load(px_tokenizer **tokenizer, const char *path)
{
    *tokenizer = NULL;
    px_tokenizer *t = px_alloc(sizeof *t, "tokenizer");
    if (t == NULL) {
        return px_error_code();
    }
    t->bos = t->eos = t->pad = t->unk = t->bpe.unk = t->unigram.unk = t->wordpiece.unk = -1;
    px_status status = load(t, path);
    if (status != PX_OK) {
        px_tokenizer_destroy(t);
        return status;
    }
    *tokenizer = t;
    return PX_OK;
}

void px_tokenizer_destroy(px_tokenizer *t)
{
    if (t == NULL) {
        return;
    }
    for (int i = 0; i < t->normal_count; i++) {
        px_pattern_free(&t->normals[i].pattern);
        px_free(t->normals[i].content);
    }
    for (int i = 0; i < t->split_count; i++) {
        px_pattern_free(&t->splits[i].pattern);
    }
    for (int i = 0; i < t->decode_count; i++) {
        px_pattern_free(&t->decodes[i].pattern);
        px_free(t->decodes[i].content);
    }
    for (int i = 0; i < t->added_count; i++) {
        if (t->added[i].match != t->added[i].content) {
            px_free(t->added[i].match);
        }
        px_free(t->added[i].content);
    }
    px_free(t->added);
    px_free(t->added_at);
    px_vocab_free(&t->vocab);
    px_vocab_free(&t->added_vocab);
    px_finder_free(&t->raw);
    px_finder_free(&t->normal);
    px_bpe_free(&t->bpe);
    px_unigram_free(&t->unigram);
    px_wordpiece_free(&t->wordpiece);
    px_ids_free(&t->before);
    px_ids_free(&t->after);
    px_buf_free(&t->gap);
    px_buf_free(&t->spare);
    px_pieces_free(&t->pieces);
    px_parts_free(&t->parts);
    px_parts_free(&t->parts_spare);
    px_free(t->chat_template);
    px_free(t->chat_renderer);
    px_free(t->path);
    px_free(t->dir);
    px_free(t);
}

/* ---- encode */
static px_status encode_piece(px_tokenizer *t, const char *word, size_t length, bool bytes, px_ids *ids)
{
    if (t->kind == PX_MODEL_BPE) {
        return px_bpe_encode(&t->bpe, &t->vocab, word, length, bytes, ids);
    }
    if (t->kind == PX_MODEL_UNIGRAM) {
        return px_unigram_encode(&t->unigram, &t->vocab, word, length, ids);
    }
    if (t->kind == PX_MODEL_WORDPIECE) {
        return px_wordpiece_encode(&t->wordpiece, &t->vocab, word, length, ids);
    }
    int32_t id = px_vocab_find(&t->vocab, word, length);
    id = id >= 0 ? id : t->unk;
    if (id < 0) {
        return px_fail(PX_DATA, "the word \"%.*s\" is not in the vocabulary, which has no unk_token",
                       (int)(length < 80 ? length : 80), word);
    }
    return px_ids_add(ids, id);
}

/* A part of the text that has no added token in it, normalised. */
static px_status encode_plain(px_tokenizer *t, const char *text, size_t length, bool at_start, px_ids *ids)
{
    px_pieces *p = &t->pieces;
    p->text.length = 0;
    PX_TRY(px_buf_add(&p->text, text, length));
    p->at_start = at_start;
    PX_TRY(px_split_text(t->splits, t->split_count, t->kind == PX_MODEL_BPE && t->bpe.all_bytes, p));
    for (size_t i = 0; i < p->count; i++) {
        PX_TRY(encode_piece(t, p->text.data + p->spans[i].start, p->spans[i].end - p->spans[i].start, p->bytes, ids));
    }
    return PX_OK;
}

/* A part between added tokens of the raw text: normalise, look for the added tokens of normal form. */
static px_status encode_gap(px_tokenizer *t, const char *text, size_t length, bool at_start, px_ids *ids)
{
    if (length == 0) {
        return PX_OK;
    }
    if (t->normal_count > 0) {
        t->gap.length = 0;
        PX_TRY(px_buf_add(&t->gap, text, length));
        PX_TRY(px_normalize(t->normals, t->normal_count, &t->gap, &t->spare));
        text = t->gap.data;
        length = t->gap.length;
    }
    size_t from = 0, done = 0, start, end;
    const px_added_token *token;
    do {
        token = px_finder_next(&t->normal, text, length, &from, &done, &start, &end);
        if (end > start) {
            PX_TRY(encode_plain(t, text + start, end - start, at_start && start == 0, ids));
        }
        PX_TRY(token != NULL ? px_ids_add(ids, token->id) : PX_OK);
    } while (token != NULL);
    return PX_OK;
}

px_status px_tokenizer_encode_part(px_tokenizer *t, const char *text, size_t length, bool at_start, px_ids *ids)
{
    size_t from = 0, done = 0, start, end;
    const px_added_token *token;
    do {
        token = px_finder_next(&t->raw, text, length, &from, &done, &start, &end);
        PX_TRY(encode_gap(t, text + start, end - start, at_start && start == 0, ids));
        PX_TRY(token != NULL ? px_ids_add(ids, token->id) : PX_OK);
    } while (token != NULL);
    return PX_OK;
}

px_status px_tokenizer_encode(px_tokenizer *t, const char *text, size_t length, bool add_special, px_ids *ids)
{
    size_t valid = px_utf8_valid(text, length);
    if (valid != length) {
        return px_fail(PX_DATA, "byte %zu of a text of %zu is not UTF-8; texts must be UTF-8", valid, length);
    }
    PX_TRY(add_special ? px_ids_append(ids, t->before.data, t->before.length) : PX_OK);
    PX_TRY(px_tokenizer_encode_part(t, text, length, true, ids));
    return add_special ? px_ids_append(ids, t->after.data, t->after.length) : PX_OK;
}

px_status px_tokenizer_encode_start(px_tokenizer *t, const char *text, size_t length, px_ids *ids)
{
    int64_t from = ids->length;
    bool add = px_tokenizer_adds_bos(t);
    PX_TRY(add ? px_ids_add(ids, t->bos) : PX_OK);
    PX_TRY(px_tokenizer_encode(t, text, length, false, ids));
    if (add && ids->length > from + 1 && ids->data[from + 1] == t->bos) { /* the text had its own */
        ids->length--;
        memmove(ids->data + from, ids->data + from + 1, (size_t)(ids->length - from) * sizeof *ids->data);
    }
    return PX_OK;
}

bool px_tokenizer_prepends_space(const px_tokenizer *t)
{
    for (int i = 0; i < t->normal_count; i++) {
        if (t->normals[i].kind == PX_NORMAL_PREPEND) {
            return strcmp(t->normals[i].content, "\xE2\x96\x81") == 0;
        }
    }
    return false;
}

/* ---- decode */
/* The string of an id as the decoder gets it: of an added token that is looked for in normal form, that form. */
static px_status add_token_text(px_tokenizer *t, int32_t id, px_buf *out)
{
    size_t length = 0;
    const px_added_token *added = px_tokenizer_added(t, id);
    const char *token = added != NULL ? added->match : px_vocab_text(&t->vocab, id, &length);
    if (token == NULL) {
        return px_buf_printf(out, "<unk:%d>", id);
    }
    return px_buf_add(out, token, added != NULL ? added->match_length : length);
}

static px_status add_parts(px_tokenizer *t, const int32_t *ids, int64_t count, bool skip_special)
{
    px_parts *parts = &t->parts;
    for (int64_t i = 0; i < count; i++) {
        if (skip_special && px_tokenizer_is_special(t, ids[i])) {
            continue;
        }
        PX_TRY(t->decode_count == 0 && parts->count > 0 ? px_buf_add(&parts->text, " ", 1) : PX_OK);
        PX_TRY(add_token_text(t, ids[i], &parts->text));
        PX_TRY(px_parts_end(parts));
    }
    return PX_OK;
}

/* The text of two runs of ids, one behind the other, into t->parts.text. */
static px_status decode_runs(px_tokenizer *t, const int32_t *before, int64_t before_count, const int32_t *ids, int64_t count,
                             bool skip_special)
{
    t->parts.count = 0;
    t->parts.text.length = 0;
    PX_TRY(px_buf_reserve(&t->parts.text, 1));
    PX_TRY(add_parts(t, before, before_count, skip_special));
    PX_TRY(add_parts(t, ids, count, skip_special));
    return px_decode_parts(t->decodes, t->decode_count, &t->parts, &t->parts_spare);
}

px_status px_tokenizer_decode(px_tokenizer *t, const int32_t *ids, int64_t count, bool skip_special, px_buf *text)
{
    PX_TRY(decode_runs(t, NULL, 0, ids, count, skip_special));
    return px_buf_add(text, t->parts.text.length > 0 ? t->parts.text.data : "", t->parts.text.length);
}

enum { TAIL = 8 }; /* ids whose text nothing can take away: more than a character has bytes, and a Strip strips */

/* Is the text of an id the same whatever stands some ids before it? Not where a step looks for something in the text of all
 * ids together, other than its beginning. */
static bool decodes_nearby(const px_tokenizer *t)
{
    bool together = false;
    for (int i = 0; i < t->decode_count; i++) {
        const px_decode *step = &t->decodes[i];
        bool strip = step->kind == PX_DECODE_STRIP && step->start < TAIL && step->stop == 0;
        if ((together && !strip && step->kind != PX_DECODE_FUSE) ||
            (step->kind == PX_DECODE_REPLACE && step->content[0] == '\0')) {
            return false;
        }
        together = together || step->kind == PX_DECODE_FUSE || step->kind == PX_DECODE_BYTE_LEVEL;
    }
    return true;
}

/* Where the last ids begin that decide how later ones are read: enough of them that are neither skipped nor bytes, whose run
 * is a character or none as a whole. */
static int64_t tail_start(px_tokenizer *t, const int32_t *ids, int64_t count, bool skip_special)
{
    int64_t start = decodes_nearby(t) ? count : 0;
    for (int solid = 0; start > 0 && solid < TAIL; start--) {
        const char *token = px_tokenizer_token(t, ids[start - 1]);
        bool skipped = skip_special && px_tokenizer_is_special(t, ids[start - 1]);
        solid += !skipped && token != NULL && token[0] != '\0' && strncmp(token, "<0x", 3) != 0;
    }
    return start;
}

px_status px_tokenizer_decode_after(px_tokenizer *t, const int32_t *before, int64_t before_count, const int32_t *ids,
                                    int64_t count, bool skip_special, px_buf *text)
{
    int64_t start = tail_start(t, before, before_count, skip_special);
    px_buf *first = &t->spare;
    const px_buf *all = &t->parts.text;
    px_buf_clear(first);
    PX_TRY(decode_runs(t, NULL, 0, before + start, before_count - start, skip_special));
    PX_TRY(px_buf_add(first, all->length > 0 ? all->data : "", all->length));
    PX_TRY(decode_runs(t, before + start, before_count - start, ids, count, skip_special));
    size_t same = 0;
    while (same < first->length && same < all->length && first->data[same] == all->data[same]) {
        same++;
    }
    while (same > 0 && same < all->length && ((unsigned char)all->data[same] & 0xC0) == 0x80) {
        same--;
    }
    return px_buf_add(text, all->length > same ? all->data + same : "", all->length - same);
}

/* ---- answers */
int px_tokenizer_size(const px_tokenizer *t)
{
    return t->size;
}

const char *px_tokenizer_token(const px_tokenizer *t, int32_t id)
{
    const char *token = px_vocab_text(&t->added_vocab, id, NULL);
    return token != NULL ? token : px_vocab_text(&t->vocab, id, NULL);
}

int32_t px_tokenizer_id(const px_tokenizer *t, const char *token)
{
    int32_t id = px_vocab_find(&t->added_vocab, token, strlen(token));
    return id >= 0 ? id : px_vocab_find(&t->vocab, token, strlen(token));
}

int32_t px_tokenizer_bos(const px_tokenizer *t)
{
    return t->bos;
}

int32_t px_tokenizer_eos(const px_tokenizer *t)
{
    return t->eos;
}

int32_t px_tokenizer_pad(const px_tokenizer *t)
{
    return t->pad;
}

const px_added_token *px_tokenizer_added(const px_tokenizer *t, int32_t id)
{
    int32_t at = id >= 0 && id < t->added_vocab.size ? t->added_at[id] : -1;
    return at >= 0 ? &t->added[at] : NULL;
}

bool px_tokenizer_is_special(const px_tokenizer *t, int32_t id)
{
    const px_added_token *token = px_tokenizer_added(t, id);
    return token != NULL && token->special;
}

px_status px_tokenizer_stop(const px_tokenizer *t, const char *text, int32_t *id)
{
    *id = px_vocab_find(&t->added_vocab, text, strlen(text));
    if (px_tokenizer_is_special(t, *id)) {
        return PX_OK;
    }
    *id = -1;
    for (int32_t i = 0; i < t->added_vocab.size; i++) {
        const char *token = px_tokenizer_is_special(t, i) ? px_tokenizer_token(t, i) : NULL;
        if (token != NULL && *token != '\0' && strstr(text, token) != NULL) {
            return px_fail(PX_CONFIG, "the stop string \"%.80s\" has the special token %s in it; valid is the token alone, or "
                           "text without one", text, token);
        }
    }
    return PX_OK;
}

bool px_tokenizer_adds_bos(const px_tokenizer *t)
{
    return t->bos >= 0 && t->before.length > 0 && t->before.data[0] == t->bos;
}

const char *px_tokenizer_chat_template(const px_tokenizer *t)
{
    return t->chat_template;
}

const char *px_tokenizer_dir(const px_tokenizer *t)
{
    return t->dir;
}
