/* The input is what a reward program prints, in reads of any length: the first byte says how long. The source is taken in
 * whole, as replies come from a process otherwise, and a process costs more than everything that is tried here. */
#include "rlhf/rewards_exec.c"

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *words[] = {"program", NULL};
    px_reward_spec spec = {.name = "fuzz", .kind = PX_REWARD_EXEC, .weight = 1.0, .command = words, .timeout_s = 1.0};
    px_exec exec = {.spec = spec};
    double scores[3] = {NAN, NAN, NAN};
    bool replied[3] = {false};
    batch b = {.first = 2, .count = 3, .scores = scores, .replied = replied};
    size_t each = size > 0 ? (size_t)data[0] + 1 : 1;
    for (size_t at = 1; at < size; at += each) {
        size_t n = size - at < each ? size - at : each;
        PX_CHECK(px_buf_reserve(&exec.replies, exec.replies.length + n + 1) == PX_OK);
        memcpy(exec.replies.data + exec.replies.length, data + at, n);
        exec.replies.length += n;
        take_lines(&exec, &b);
    }
    for (int i = 0; i < b.count; i++) {
        PX_CHECK(replied[i] || isnan(scores[i]));
        PX_CHECK(px_reward_usable(&spec, i, &scores[i], NULL) == PX_OK);
        PX_CHECK(isnan(scores[i]) || isfinite((float)scores[i]));
    }
    px_buf_free(&exec.replies);
    return 0;
}
