#include "fuzz.h"
#include "rlhf/rewards_sources.h"

#include <math.h>

/* The input is what the reward program prints. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char command[160];
    snprintf(command, sizeof command, "%s", fuzz_file("replies", data, size));
    const char *words[] = {"/bin/cat", command, NULL};
    px_reward_spec spec = {.name = "fuzz", .kind = PX_REWARD_EXEC, .weight = 1.0, .command = words, .timeout_s = 1.0};
    px_reward_sample samples[2] = {{"a", "b", 1, "{}"}, {"c", "d", 1, "{}"}};
    double scores[2];
    px_exec *exec = NULL;
    if (px_exec_open(&exec, &spec) == PX_OK) {
        if (px_exec_score(exec, samples, 2, scores, NULL) == PX_OK) {
            PX_CHECK(!isinf(scores[0]) && !isinf(scores[1]));
        }
        px_exec_close(exec);
    }
    return 0;
}
