#include "phalanx/optim.h"

#include <math.h>

double px_schedule_at(const px_schedule *schedule, int64_t step)
{
    if (step < schedule->warmup) {
        return (double)step / (double)schedule->warmup;
    }
    if (schedule->kind == PX_CONSTANT) {
        return 1.0;
    }
    double span = (double)(schedule->total - schedule->warmup);
    double done = (double)(step - schedule->warmup) / (span < 1.0 ? 1.0 : span);
    if (done > 1.0) {
        done = 1.0;
    }
    double shape = schedule->kind == PX_LINEAR ? 1.0 - done : 0.5 * (1.0 + cos(3.14159265358979323846 * done));
    return schedule->floor + (1.0 - schedule->floor) * shape;
}
