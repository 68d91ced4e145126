#include "task.h"

#include <string.h>

typedef struct buffer {
    void **where;
    size_t count, size;
} buffer;

enum { BUFFERS = 7 };

static void list_buffers(px_task *task, int prompts, int each, int room, buffer out[BUFFERS])
{
    size_t p = (size_t)prompts, samples = p * (size_t)each, tokens = samples * (size_t)room;
    const buffer all[BUFFERS] = {
        {(void **)&task->rows, p, sizeof(int64_t)},         {(void **)&task->owner, p, sizeof(int32_t)},
        {(void **)&task->completions, samples, sizeof(px_completion)}, {(void **)&task->ids, tokens, sizeof(int32_t)},
        {(void **)&task->logprobs, tokens, sizeof(float)},  {(void **)&task->rank, samples, sizeof(int32_t)},
        {(void **)&task->seq_no, samples, sizeof(int64_t)},
    };
    memcpy(out, all, sizeof all);
}

px_status px_task_alloc(px_task *task, int prompts, int each, int room)
{
    buffer buffers[BUFFERS];
    list_buffers(task, prompts, each, room, buffers);
    for (int i = 0; i < BUFFERS; i++) {
        *buffers[i].where = px_alloc_array(buffers[i].count + 1, buffers[i].size, "samples of the env runners");
        if (*buffers[i].where == NULL) {
            return px_error_code();
        }
    }
    for (int i = 0; i < prompts * each; i++) {
        task->completions[i].ids = task->ids + (size_t)i * (size_t)room;
        task->completions[i].logprobs = task->logprobs + (size_t)i * (size_t)room;
    }
    return PX_OK;
}

void px_task_free(px_task *task)
{
    buffer buffers[BUFFERS];
    list_buffers(task, 0, 0, 0, buffers);
    for (int i = 0; i < BUFFERS; i++) {
        px_free(*buffers[i].where);
    }
}

size_t px_task_bytes(int prompts, int each, int room)
{
    px_task none = {0};
    buffer buffers[BUFFERS];
    size_t bytes = 0;
    list_buffers(&none, prompts, each, room, buffers);
    for (int i = 0; i < BUFFERS; i++) {
        bytes += (buffers[i].count + 1) * buffers[i].size;
    }
    return bytes;
}

void px_task_open(px_task *task, int64_t iteration, int prompts, int each)
{
    task->open = true;
    task->iteration = iteration;
    task->prompts = task->left = prompts;
    task->each = each;
    for (int slot = 0; slot < prompts; slot++) {
        task->owner[slot] = PX_SLOT_WAITING;
    }
}

bool px_task_fits(const px_task *task, int room, const px_envelope *head, size_t bytes)
{
    if (task == NULL || head->first < 0 || head->count < 1 || head->count > task->prompts || head->first > task->prompts - head->count ||
        head->each != task->each) {
        return false;
    }
    size_t samples = (size_t)head->count * (size_t)head->each, tokens = 0, rows = sizeof *head + samples * sizeof(px_sampled);
    if (bytes < rows) {
        return false;
    }
    const px_sampled *rows_in = (const px_sampled *)(const void *)(head + 1);
    for (size_t i = 0; i < samples; i++) {
        if (rows_in[i].length < 1 || rows_in[i].length > room || rows_in[i].finish < 0 || rows_in[i].finish > 1) {
            return false;
        }
        tokens += (size_t)rows_in[i].length;
    }
    return bytes == rows + tokens * (sizeof(int32_t) + sizeof(float));
}

void px_task_take(px_task *task, int rank, const px_envelope *head)
{
    size_t samples = (size_t)head->count * (size_t)head->each, tokens = 0, at = 0;
    const px_sampled *rows = (const px_sampled *)(const void *)(head + 1);
    for (size_t i = 0; i < samples; i++) {
        tokens += (size_t)rows[i].length;
    }
    const int32_t *ids = (const int32_t *)(const void *)(rows + samples);
    const float *logprobs = (const float *)(const void *)(ids + tokens);
    for (size_t i = 0; i < samples; i++) {
        int slot = head->first + (int)(i / (size_t)head->each);
        size_t sample = (size_t)head->first * (size_t)head->each + i, length = (size_t)rows[i].length;
        if (task->owner[slot] != PX_SLOT_DONE) {
            px_completion *to = &task->completions[sample];
            memcpy(to->ids, ids + at, length * sizeof *ids);
            memcpy(to->logprobs, logprobs + at, length * sizeof *logprobs);
            to->length = rows[i].length;
            to->finish = (px_finish)rows[i].finish;
            task->rank[sample] = rank;
            task->seq_no[sample] = head->seq_no;
        }
        at += length;
    }
    for (int slot = head->first; slot < head->first + head->count; slot++) {
        task->left -= task->owner[slot] != PX_SLOT_DONE;
        task->owner[slot] = PX_SLOT_DONE;
    }
}
