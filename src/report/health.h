#ifndef PX_REPORT_HEALTH_H
#define PX_REPORT_HEALTH_H

#include "runs.h"

/* {"state", "writer", "iteration", "age_s", "segments", "events/KIND", "rollout/logprob_diff_max", "nan/METRIC", ...}
 */
px_status px_health(const px_run *run, struct json_t **object);

#endif
