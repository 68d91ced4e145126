/* Model directories as Hugging Face lays them out. Loading matches the file's tensors with the parameter table by name,
 * and every tensor that is missing, unexpected or of another shape is an error that names it. */
#include <stdio.h>
#include <string.h>

#include "config_write.h"
#include "family.h"
#include "safetensors.h"

/* ---- names --------------------------------------------------------------------- */
/* Files of bare bodies (and GPT-2's own on the hub) drop the name of the body. */
static const char *without_base(const px_family_info *family, const char *name)
{
    size_t length = strlen(family->base);
    return strncmp(name, family->base, length) == 0 ? name + length : name;
}

/* GPT-NeoX's has had both names. */
static bool is_lm_head(const char *name)
{
    return strcmp(name, "lm_head.weight") == 0 || strcmp(name, "embed_out.weight") == 0;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

/* Causal masks and rotary frequencies that older files carry along. */
static bool is_buffer(const char *name)
{
    static const char *const ends[] = {".attn.bias",      ".attn.masked_bias",      ".attention.bias",
                                       ".attention.masked_bias", "rotary_emb.inv_freq"};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        if (ends_with(name, ends[i])) return true;
    }
    return false;
}

/* Index of the parameter, -1: none. Files mostly come in the table's order, so the search begins at `hint`. */
static int find_param(const px_model *model, const char *name, int hint)
{
    const px_family_info *family = px_family_get(model->config.family);
    const char *wanted = without_base(family, name);
    for (int i = 0; i < model->param_count; i++) {
        int at = (hint + i) % model->param_count;
        const px_param *param = &model->params[at];
        if (strcmp(without_base(family, param->name), wanted) == 0) return at;
        if (is_lm_head(name) && is_lm_head(param->name)) return at;
    }
    return -1;
}

/* ---- loading --------------------------------------------------------------------- */
static void shape_text(char *out, size_t size, const int64_t *shape, int dims, bool transposed)
{
    size_t used = (size_t)snprintf(out, size, "[");
    for (int i = 0; i < dims && used < size; i++) {
        int64_t n = transposed && dims == 2 ? shape[1 - i] : shape[i];
        used += (size_t)snprintf(out + used, size - used, "%s%lld", i ? ", " : "", (long long)n);
    }
    if (used < size) snprintf(out + used, size - used, "]");
}

static px_status check_shape(const px_param *param, const px_tensor *tensor)
{
    bool fits = tensor->dims == param->dims, transposed = param->transposed && !tensor->as_used;
    for (int i = 0; i < tensor->dims && fits; i++) {
        fits = tensor->shape[i] == param->shape[transposed && param->dims == 2 ? 1 - i : i];
    }
    if (fits) return PX_OK;
    char found[200], wanted[64];
    shape_text(found, sizeof found, tensor->shape, tensor->dims, false);
    shape_text(wanted, sizeof wanted, param->shape, param->dims, transposed);
    return px_fail(PX_DATA, "%s: tensor \"%s\" has shape %s; valid by config.json is %s", tensor->path, tensor->name, found,
                   wanted);
}

/* A tied model may carry its LM head all the same; another head than the embedding would be lost silently. */
static px_status check_tied_head(const px_model *model, const px_tensor *tensor)
{
    const px_param *embed = &model->params[0];
    if (tensor->dims != 2 || tensor->shape[0] != embed->shape[0] || tensor->shape[1] != embed->shape[1]) {
        return px_fail(PX_DATA,
                       "%s: tensor \"%s\" has not the shape of the embedding, to which config.json ties it; valid is "
                       "\"tie_word_embeddings\": false, or the embedding's shape",
                       tensor->path, tensor->name);
    }
    px_real *head = px_alloc_array(tensor->count, sizeof *head, "tied head");
    if (!head) return px_error_code();
    px_status status = px_tensor_read(tensor, false, head);
    if (status == PX_OK && memcmp(head, model->weights + model->embed, tensor->count * sizeof *head) != 0) {
        status = px_fail(PX_DATA,
                         "%s: tensor \"%s\" differs from the embedding, to which config.json ties it; valid is "
                         "\"tie_word_embeddings\": false",
                         tensor->path, tensor->name);
    }
    px_free(head);
    return status;
}

/* Tensors without a row in the table: buffers and heads that this load has no use for are fine. */
static px_status pass_over(const px_model *model, const px_tensor *tensor, const px_tensor **tied_head)
{
    if (is_buffer(tensor->name)) return PX_OK;
    if (is_lm_head(tensor->name)) {
        if (model->config.head == PX_HEAD_LM) *tied_head = tensor;
        return PX_OK;
    }
    if (strcmp(tensor->name, "score.weight") == 0 && model->config.head == PX_HEAD_NONE) return PX_OK;
    char dtype[16];
    snprintf(dtype, sizeof dtype, "%s", tensor->dtype);
    return px_fail(PX_DATA,
                   "%s: unexpected tensor \"%s\" (%s); valid are the tensors of the architecture in config.json",
                   tensor->path, tensor->name, dtype);
}

/* Which tensor of the files each parameter is. */
typedef struct matched {
    const px_tensor **tensor;   /* [param_count]; NULL: a score head that the files have not */
    const px_tensor *tied_head; /* the copy of a tied head; NULL: none */
} matched;

static px_status check_complete(const px_model *model, const matched *m, bool score_optional, const char *dir)
{
    const px_param *first = NULL;
    int missing = 0;
    for (int i = 0; i < model->param_count; i++) {
        const px_param *param = &model->params[i];
        if (m->tensor[i] || (score_optional && param->offset == model->score)) continue;
        if (!first) first = param;
        missing++;
    }
    if (!first) return PX_OK;
    char wanted[64], others[48] = "";
    shape_text(wanted, sizeof wanted, first->shape, first->dims, first->transposed);
    if (missing > 1) snprintf(others, sizeof others, " and %d more", missing - 1);
    return px_fail(PX_DATA, "%s: the weights lack tensor \"%s\"%s; valid by config.json is one of shape %s", dir,
                   first->name, others, wanted);
}

static px_status match_tensors(const px_model *model, const px_tensors *tensors, bool score_optional, const char *dir,
                               matched *m)
{
    *m = (matched){.tensor = px_alloc_array((size_t)model->param_count, sizeof *m->tensor, "tensors of parameters")};
    if (!m->tensor) return px_error_code();
    px_status status = PX_OK;
    int hint = 0;
    for (int i = 0; i < tensors->count && status == PX_OK; i++) {
        const px_tensor *tensor = &tensors->list[i];
        int at = find_param(model, tensor->name, hint);
        if (at < 0) {
            status = pass_over(model, tensor, &m->tied_head);
        } else if (m->tensor[at]) {
            status = px_fail(PX_DATA, "%s: tensor \"%s\" is there twice, with and without its prefix", tensor->path,
                             tensor->name);
        } else {
            status = check_shape(&model->params[at], tensor);
            m->tensor[at] = tensor;
            hint = at + 1;
        }
    }
    if (status == PX_OK) status = check_complete(model, m, score_optional, dir);
    if (status != PX_OK) px_free(m->tensor);
    return status;
}

/* A factor of a product, or the embedding. */
static bool is_matrix(const px_model *model, const px_param *param)
{
    return param->dims == 2 && param->offset != model->score;
}

/* Every parameter that does not lie in its place in a file. */
static px_status read_params(px_model *model, const matched *m)
{
    for (int i = 0; i < model->param_count; i++) {
        const px_param *param = &model->params[i];
        const px_tensor *tensor = m->tensor[i];
        px_real *to = model->weights + param->offset;
        if (!tensor) continue;
        bool there = (const void *)to == tensor->data || (model->bf16 && is_matrix(model, param));
        PX_TRY(there ? px_tensor_check(tensor) : px_tensor_read_param(tensor, param, to));
    }
    return m->tied_head ? check_tied_head(model, m->tied_head) : PX_OK;
}

/* ---- in place ---------------------------------------------------------------------
 * Parameters [first, end) are used as one: a matrix and what is joined to it. */
static int group_end(const px_model *model, int first)
{
    int end = first + 1;
    while (end < model->param_count && model->params[end].joined) end++;
    return end;
}

static bool lies_in_place(const px_model *model, const matched *m, int first, int end)
{
    for (int i = first; i < end; i++) {
        const px_tensor *tensor = m->tensor[i];
        if (!tensor || !px_tensor_in_place(tensor, &model->params[i], PX_F32)) return false;
        const px_tensor *before = i > first ? m->tensor[i - 1] : NULL;
        if (before && (before->path != tensor->path || before->data + before->bytes != tensor->data)) return false;
    }
    return true;
}

/* Whether all of them are used as bf16 from their files. */
static bool lies_as_bf16(const px_model *model, const matched *m)
{
    if (!px_compute_reads_bf16() || model->position != SIZE_MAX || m->tied_head) return false;
    for (int i = 0; i < model->param_count; i++) {
        bool fits = m->tensor[i] && px_tensor_in_place(m->tensor[i], &model->params[i], PX_BF16);
        if (is_matrix(model, &model->params[i]) && !fits) return false;
    }
    return true;
}

/* Where parameters lie, in bytes: of the files, beside them, and of addresses that have no memory, for those in bf16. */
typedef struct areas {
    size_t files, beside, nowhere;
} areas;

/* How many each area has; and with `at`, where the areas begin behind the model's weights, the parameters' offsets. */
static areas lay_out(px_model *model, const matched *m, bool bf16, const areas *at)
{
    enum { LINE = 64 };
    areas used = {0};
    for (int first = 0, end; first < model->param_count; first = end) {
        end = group_end(model, first);
        bool halves = bf16 && is_matrix(model, &model->params[first]), in_place = lies_in_place(model, m, first, end);
        size_t *area = halves ? &used.nowhere : &used.beside, begin = !at ? 0 : halves ? at->nowhere : at->beside;
        for (int i = first; i < end; i++) {
            px_param *param = &model->params[i];
            if (at) {
                param->offset = in_place ? (size_t)((const px_real *)(const void *)m->tensor[i]->data - model->weights)
                                         : (begin + *area) / sizeof(px_real);
            }
            used.files += halves ? param->count * sizeof(uint16_t) : in_place ? param->count * sizeof(px_real) : 0;
            if (!in_place) *area += param->count * sizeof(px_real);
        }
        *area = (*area + LINE - 1) / LINE * LINE;
    }
    used.beside = px_whole_pages(used.beside);
    return used;
}

/* The pieces of the matrix whose first parameter is at this offset. */
static void find_pieces(const px_model *model, const matched *m, size_t offset, px_rows16 *rows)
{
    int first = 0;
    while (model->params[first].offset != offset) first++;
    for (int i = first, end = group_end(model, first); i < end; i++) {
        rows->piece[i - first] = (const uint16_t *)(const void *)m->tensor[i]->data;
        rows->rows[i - first] = (int)model->params[i].shape[0];
    }
}

static px_status point_to_bf16(px_model *model, const matched *m)
{
    px_matrices16 *all = px_alloc(sizeof *all + (size_t)model->config.layers * sizeof all->layers[0], "matrices of files");
    if (!all) return px_error_code();
    model->bf16 = all;
    find_pieces(model, m, model->embed, &all->embed);
    if (model->lm_head != SIZE_MAX) find_pieces(model, m, model->lm_head, &all->lm_head);
    for (int l = 0; l < model->config.layers; l++) {
        const px_layer_view *view = &model->layers[l];
        find_pieces(model, m, view->qkv_w, &all->layers[l].qkv);
        find_pieces(model, m, view->out_w, &all->layers[l].out);
        find_pieces(model, m, view->up_w, &all->layers[l].up);
        find_pieces(model, m, view->down_w, &all->layers[l].down);
    }
    return PX_OK;
}

static px_status place(px_model *model, px_tensors *tensors, const matched *m, const px_model_memory *memory)
{
    bool bf16 = lies_as_bf16(model, m);
    size_t pages = px_tensors_pages(tensors);
    areas size = lay_out(model, m, bf16, NULL), at = {.beside = pages, .nowhere = pages + size.beside};
    char *range = px_address_reserve(at.nowhere + size.nowhere, "model weights");
    if (!range) return px_error_code();
    model->range = range;
    model->range_bytes = at.nowhere + size.nowhere;
    model->weights = (px_real *)(void *)range;
    PX_TRY(memory ? px_address_share(range + pages, size.beside, memory->fd, memory->offset, memory->fill, "model weights")
                  : px_address_use(range + pages, size.beside, "model weights"));
    PX_TRY(px_tensors_move(tensors, range));
    px_tensors_leave(tensors);
    lay_out(model, m, bf16, &at);
    px_model_view(model);
    return bf16 ? point_to_bf16(model, m) : PX_OK;
}

static px_status open_directory(px_model_config *config, px_tensors *tensors, const char *dir, px_head head,
                                bool *classifier)
{
    PX_TRY(px_model_config_read(dir, config));
    *classifier = config->head == PX_HEAD_SCALAR;
    if (head == PX_HEAD_LM && *classifier) {
        return px_fail(PX_DATA,
                       "%s: a ...ForSequenceClassification model has no language-model head; valid is a "
                       "...ForCausalLM or ...LMHeadModel directory",
                       dir);
    }
    config->head = head;
    return px_tensors_open(tensors, dir);
}

static px_status load(px_model *model, const char *dir, px_head head, bool in_place, const px_model_memory *memory,
                      bool *had_score)
{
    px_model_config config;
    px_tensors tensors;
    matched m = {0};
    bool classifier;
    memset(model, 0, sizeof *model);
    PX_TRY(open_directory(&config, &tensors, dir, head, &classifier));
    px_status status = px_model_plan(model, &config);
    if (status == PX_OK) status = match_tensors(model, &tensors, !classifier, dir, &m);
    if (status == PX_OK) {
        status = in_place ? place(model, &tensors, &m, memory) : px_model_alloc(model);
        if (status == PX_OK && (!memory || memory->fill)) status = read_params(model, &m);
        px_free(m.tensor);
    }
    px_tensors_close(&tensors);
    if (status != PX_OK) {
        px_model_free(model);
        return status;
    }
    model->version++;
    if (had_score) *had_score = classifier && head == PX_HEAD_SCALAR;
    return PX_OK;
}

px_status px_model_load(px_model *model, const char *dir, px_head head, bool *had_score)
{
    return load(model, dir, head, false, NULL, had_score);
}

px_status px_model_map(px_model *model, const char *dir, px_head head, const px_model_memory *memory, bool *had_score)
{
    return load(model, dir, head, true, memory, had_score);
}

px_status px_model_map_plan(const px_model *model, const char *dir, px_map_bytes *bytes)
{
    px_model_config config;
    px_tensors tensors;
    matched m;
    bool classifier;
    px_model table = *model; /* lay_out only counts */
    PX_TRY(open_directory(&config, &tensors, dir, model->config.head, &classifier));
    px_status status = match_tensors(&table, &tensors, !classifier, dir, &m);
    if (status == PX_OK) {
        areas size = lay_out(&table, &m, lies_as_bf16(&table, &m), NULL);
        *bytes = (px_map_bytes){.files = size.files, .beside = size.beside, .scores = classifier};
        px_free(m.tensor);
    }
    px_tensors_close(&tensors);
    return status;
}

px_status px_model_hash(const char *dir, uint64_t *hash)
{
    px_tensors tensors;
    PX_TRY(px_tensors_open(&tensors, dir));
    *hash = 0;
    for (int i = 0; i < tensors.count; i++) { /* a sum: in any order */
        const px_tensor *tensor = &tensors.list[i];
        *hash += px_hash(tensor->data, tensor->bytes, px_hash(tensor->name, strlen(tensor->name), 0));
    }
    px_tensors_close(&tensors);
    return PX_OK;
}

px_status px_model_map_check(const px_model *model)
{
    return model->range ? px_file_maps_check(model->range, model->range_bytes) : PX_OK;
}

/* ---- saving --------------------------------------------------------------------- */
static px_status copy_tokenizer(const char *from, const char *to)
{
    static const char *const names[] = {
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
        "merges.txt",     "tokenizer.model",       "chat_template.jinja"};
    char source[PX_PATH_MAX], target[PX_PATH_MAX];
    px_buf buf = {0};
    px_status status = PX_OK;
    for (size_t i = 0; i < sizeof names / sizeof names[0] && status == PX_OK; i++) {
        status = px_path_join(source, sizeof source, from, names[i]);
        if (status == PX_OK) status = px_path_join(target, sizeof target, to, names[i]);
        if (status != PX_OK || !px_file_exists(source)) continue;
        px_buf_clear(&buf);
        status = px_file_read(source, PX_VOCABULARY_MOST, &buf);
        if (status == PX_OK) status = px_file_write(target, buf.data ? buf.data : "", buf.length);
    }
    px_buf_free(&buf);
    return status;
}

static px_status save_weights(const px_model *model, const char *dir, px_dtype dtype)
{
    char path[PX_PATH_MAX];
    PX_TRY(px_path_join(path, sizeof path, dir, "model.safetensors"));
    px_tensor_source *sources = px_alloc_array((size_t)model->param_count, sizeof *sources, "tensor list");
    if (!sources) return px_error_code();
    for (int i = 0; i < model->param_count; i++) {
        const px_param *param = &model->params[i];
        sources[i] = (px_tensor_source){.name = param->name,
                                        .dims = param->dims,
                                        .shape = {param->shape[0], param->shape[1]},
                                        .transposed = param->transposed,
                                        .by_head = param->by_head,
                                        .data = model->weights + param->offset};
    }
    px_status status = px_safetensors_write(path, sources, model->param_count, dtype);
    px_free(sources);
    return status;
}

px_status px_model_save(const px_model *model, const char *dir, px_dtype dtype, const char *tokenizer_dir)
{
    if (!px_dir_exists(dir)) return px_fail(PX_IO, "%s: no such directory", dir);
    PX_TRY(px_model_config_check(&model->config));
    PX_TRY(save_weights(model, dir, dtype));
    PX_TRY(px_model_config_write(&model->config, dir, dtype));
    if (tokenizer_dir) PX_TRY(copy_tokenizer(tokenizer_dir, dir));
    return px_dir_sync(dir);
}
