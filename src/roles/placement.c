/* Which rank does what, from the configuration and the number of ranks alone. */
#include "run.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *key, *name;
} keys[] = {
    [PX_ROLE_LEARNER] = {"learners.num_learners", "learner"},
    [PX_ROLE_ENV_RUNNER] = {"env_runners.num_env_runners", "env_runner"},
    [PX_ROLE_EVALUATOR] = {"placement.num_evaluators", "evaluator"},
    [PX_ROLE_SPARE] = {"placement.num_spares", "spare"},
};
enum { ROLES = 4 };

static px_status check_colocated(const px_stage *stage, int learners, int ranks)
{
    if (learners > 0 && learners != ranks) {
        return px_stage_fail(stage, keys[0].key, "%s is %d, but colocated every rank learns and the job has %d; valid is 0, or "
                             "env_runners.num_env_runners above 0", keys[0].key, learners, ranks);
    }
    return PX_OK;
}

px_status px_placement_make(px_placement *placement, const px_stage *stage, int ranks)
{
    int counts[ROLES] = {0};
    bool ppo = strcmp(px_stage_algorithm(stage), "ppo") == 0;
    *placement = (px_placement){.ranks = ranks, .learners = ranks};
    for (int role = 0; role < ROLES; role++) {
        counts[role] = ppo || role == PX_ROLE_LEARNER ? (int)px_stage_int(stage, keys[role].key) : 0;
    }
    if (!ppo || strcmp(px_stage_text(stage, "placement.strategy"), "split") != 0) {
        return check_colocated(stage, counts[PX_ROLE_LEARNER], ranks);
    }
    if (px_stage_int(stage, "placement.num_scorers") > 0) {
        return px_stage_fail(stage, "placement.num_scorers", "placement.num_scorers: ranks that only score are not built yet; "
                             "valid is 0: the learners score");
    }
    if (counts[PX_ROLE_ENV_RUNNER] < 1) {
        return px_stage_fail(stage, "placement.strategy", "placement.strategy: split needs %s above 0", keys[1].key);
    }
    int others = counts[PX_ROLE_ENV_RUNNER] + counts[PX_ROLE_EVALUATOR] + counts[PX_ROLE_SPARE];
    int learners = counts[PX_ROLE_LEARNER] > 0 ? counts[PX_ROLE_LEARNER] : ranks - others;
    if (others >= ranks) {
        return px_stage_fail(stage, keys[1].key, "%s: %d of %d ranks would only sample (%d env runners, %d evaluators, %d spares) "
                             "and none is left to learn; valid is at least %d ranks (mpirun -n %d), or %s: 0", keys[1].key, others,
                             ranks, counts[1], counts[2], counts[3], others + 1, others + 1, keys[1].key);
    }
    if (learners + others != ranks) {
        return px_stage_fail(stage, keys[0].key, "%s is %d and %d ranks only sample: %d in all, but the job has %d; valid is %d, or "
                             "0 (all that do not only sample)", keys[0].key, learners, others, learners + others, ranks,
                             ranks - others);
    }
    *placement = (px_placement){true, ranks, learners, counts[1], counts[2], counts[3]};
    return PX_OK;
}

px_role px_placement_role(const px_placement *p, int rank)
{
    return rank < p->learners                                  ? PX_ROLE_LEARNER
           : rank < p->learners + p->env_runners                 ? PX_ROLE_ENV_RUNNER
           : rank < p->learners + p->env_runners + p->evaluators ? PX_ROLE_EVALUATOR
                                                                 : PX_ROLE_SPARE;
}

const char *px_role_name(const px_placement *p, int rank)
{
    return rank == 0 ? "driver+learner" : keys[px_placement_role(p, rank)].name;
}

/* "1-3" of the ranks that have a role, "" where none has. */
static void range(const px_placement *p, px_role role, char out[32])
{
    int first = -1, last = -1;
    for (int r = 0; r < p->ranks; r++) {
        if (px_placement_role(p, r) == role) {
            first = first < 0 ? r : first;
            last = r;
        }
    }
    out[0] = '\0';
    if (first >= 0) {
        snprintf(out, 32, first == last ? "%d" : "%d-%d", first, last);
    }
}

static void print(const px_placement *p)
{
    char line[256], ranks[32];
    int n = 0;
    if (!p->split) {
        return;
    }
    for (int role = 0; role < ROLES; role++) {
        range(p, (px_role)role, ranks);
        if (ranks[0] != '\0') {
            n += snprintf(line + n, sizeof line - (size_t)n, "%s%s %s", n > 0 ? ", " : "", keys[role].name, ranks);
        }
    }
    px_log(PX_INFO, "ranks: %s (rank 0 drives)", line);
}

/* Where roles take turns at the cores, the job keeps as many busy as the larger side has threads. */
static int busy_cores(const px_session *session)
{
    int learning = 0, sampling = 0;
    for (int r = 0; r < session->placement.ranks; r++) {
        bool learns = px_placement_role(&session->placement, r) == PX_ROLE_LEARNER;
        learning += learns ? session->ranks[r].cpus : 0;
        sampling += learns ? 0 : session->ranks[r].cpus;
    }
    if (session->placement.split && px_stage_int(session->stage, "env_runners.max_staleness") > 0) {
        return learning + sampling;
    }
    return learning > sampling ? learning : sampling;
}

px_status px_session_ranks(px_session *session)
{
    int size = px_world_size();
    session->ranks = px_alloc_array((size_t)size, sizeof *session->ranks, "the rank map");
    PX_TRY(px_agree(session->ranks != NULL ? PX_OK : px_error_code()));
    px_rank_info *mine = &session->ranks[px_world_rank()];
    mine->cpus = session->threads;
    mine->pid = (int)getpid();
    snprintf(mine->host, sizeof mine->host, "%s", px_dist_host());
    px_gather_shares(session->ranks, sizeof *session->ranks, size);
    session->cores = busy_cores(session);
    print(&session->placement);
    return PX_OK;
}
