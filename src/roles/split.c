/* A stage whose ranks have different roles: the core runs it, the others sample for it, and at its end those that still
 * answer go on together. */
#include "split.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

enum { TAG_CORE = 1, TAG_AFTER };
enum { ANSWER_BYTES = 64 << 20 }; /* of one request: a larger answer would only come later */

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

/* Bytes of a batch of samples that all reach `room` tokens. */
static size_t answer_bytes(size_t samples, int room)
{
    return samples * (sizeof(px_sampled) + (size_t)room * (sizeof(int32_t) + sizeof(float)));
}

/* About four requests a runner and iteration, none larger than half of what a runner decodes at once, nor than a message
 * holds. */
static int prompts_of_request(int prompts, int runners, int slots, int each, int room)
{
    int share = (prompts + 4 * runners - 1) / (4 * runners), most = slots / (2 * each);
    size_t fit = ANSWER_BYTES / answer_bytes((size_t)each, room);
    most = fit < (size_t)most ? (int)fit : most;
    return smaller(share, most > 1 ? most : 1);
}

void px_wire_derive(px_wire *wire, const px_session *session)
{
    const px_stage *stage = session->stage;
    double slots = 64.0;
    px_stage_number(stage, "env_runners.max_slots", &slots);
    *wire = (px_wire){.stage = session->number,
                      .room = (int)px_stage_int(stage, "environment.max_completion_tokens"),
                      .each = (int)px_stage_int(stage, "env_runners.samples_per_prompt"),
                      .evaluation_each = (int)px_stage_int(stage, "evaluation.samples"),
                      .in_flight = (int)px_stage_int(stage, "env_runners.max_requests_in_flight_per_env_runner"),
                      .staleness = (int)px_stage_int(stage, "env_runners.max_staleness"),
                      .timeout = px_stage_float(stage, "env_runners.sample_timeout_s")};
    double deadline = px_stage_float(stage, "fault_tolerance.wait_timeout_s");
    wire->heartbeat = (deadline > 0.0 && deadline < wire->timeout ? deadline : wire->timeout) / 5.0;
    int prompts = (int)px_stage_int(stage, "training.prompts_per_iteration");
    wire->prompts = prompts_of_request(prompts, session->placement.env_runners, (int)slots, wire->each, wire->room);
    int evaluators = session->placement.evaluators > 0 ? session->placement.evaluators : session->placement.env_runners;
    if (px_stage_is_set(stage, "evaluation.num_prompts")) { /* without it all there are, which is not known here */
        prompts = (int)px_stage_int(stage, "evaluation.num_prompts");
    }
    wire->evaluation_prompts = prompts_of_request(prompts, evaluators, (int)slots, wire->evaluation_each, wire->room);
    int samples = wire->prompts * wire->each, held_out = wire->evaluation_prompts * wire->evaluation_each;
    size_t most = (size_t)(samples > held_out ? samples : held_out);
    size_t sizes[] = {answer_bytes(most, wire->room), PX_PIECE, PX_TEXT_BYTES,
                      sizeof(int) * (size_t)session->placement.ranks, sizeof(int64_t) * (size_t)wire->evaluation_prompts,
                      sizeof(int64_t) * (size_t)wire->prompts};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        wire->largest = sizes[i] > wire->largest ? sizes[i] : wire->largest;
    }
    wire->largest += sizeof(px_envelope);
}

px_status px_wire_check(const px_session *session)
{
    px_wire wire;
    px_wire_derive(&wire, session);
    if (wire.largest <= INT_MAX) {
        return PX_OK;
    }
    return px_stage_fail(session->stage, "env_runners.samples_per_prompt",
                         "the samples of one prompt (env_runners.samples_per_prompt %d, evaluation.samples %d, "
                         "environment.max_completion_tokens %d) are a message of %.1f GiB between ranks; valid is at most 2 GiB",
                         wire.each, wire.evaluation_each, wire.room, (double)wire.largest / (1 << 30));
}

px_status px_regroup(const int *ranks, int count, bool dead)
{
    if (count == px_world_size()) {
        px_group_all();
        return PX_OK;
    }
    px_ranks_left(dead);
    return px_group_enter(ranks, count, TAG_AFTER);
}

/* Who samples while the core learns reads the version before the one that is being written. */
int px_session_buffers(const px_session *session)
{
    return px_stage_int(session->stage, "env_runners.max_staleness") > 0 ? 2 : 1;
}

/* What both sides need before they part: the policy's shape, and memory for its weights on every node. */
static px_status open_weights(px_session *session)
{
    px_status status = px_session_tokenizer(session);
    if (status == PX_OK) {
        status = px_module_plan(session, "policy", PX_HEAD_LM, &session->parts.policy);
    }
    PX_TRY(px_agree(status));
    size_t block = session->parts.policy.block * sizeof(px_real);
    return px_agree(px_weights_open(&session->weights, block, px_session_buffers(session)));
}

/* The end of the stage for everybody, also where the stage failed before it began. */
static px_status end(px_session *session)
{
    const px_placement *placement = &session->placement;
    int *ranks = px_alloc_array((size_t)placement->ranks, sizeof *ranks, "the ranks that go on");
    uint8_t *alive = px_alloc_array((size_t)placement->ranks, 1, "the ranks that go on");
    PX_CHECK(ranks != NULL && alive != NULL);
    int count = 0;
    uint8_t dead = 1;
    px_phase_set("farewell", 0);
    if (px_dist_rank() == 0) {
        px_collector_end(session->collector, alive);
    }
    px_bcast(alive, (size_t)placement->ranks, 0);
    for (int r = 0; r < placement->ranks; r++) {
        if (alive[r]) {
            ranks[count++] = r;
        } else {
            dead = dead && px_rank_died(r);
        }
    }
    px_bcast(&dead, sizeof dead, 0); /* as rank 0 knows it */
    if (px_dist_rank() == 0) {
        if (count < placement->ranks) {
            px_log(PX_WARNING, "%d of %d ranks %s and are left behind", placement->ranks - count, placement->ranks,
                   dead ? "have died" : "do not answer any more");
        }
        px_collector_regroup(session->collector, ranks, count, dead != 0);
    }
    px_status status = px_regroup(ranks, count, dead != 0);
    px_free(ranks);
    px_free(alive);
    return status;
}

static px_status run_core(px_session *session, px_status (*core)(px_session *session))
{
    const px_placement *placement = &session->placement;
    int *ranks = px_alloc_array((size_t)px_placement_core(placement), sizeof *ranks, "the ranks of the core");
    PX_CHECK(ranks != NULL);
    for (int r = 0; r < px_placement_core(placement); r++) {
        ranks[r] = r;
    }
    px_status entered = px_group_enter(ranks, px_placement_core(placement), TAG_CORE);
    px_free(ranks);
    PX_CHECK(entered == PX_OK);
    entered = px_team_make(placement->learners);
    PX_CHECK(entered == PX_OK);
    session->collect = (px_collect){.run = px_collector_run, .publish = px_collector_publish};
    px_status status = PX_OK;
    if (px_dist_rank() == 0) {
        status = px_collector_create(&session->collector, session);
        PX_CHECK(status == PX_OK);
        session->collect.self = session->collector;
    }
    status = core(session);
    px_status ended = end(session);
    px_collector_destroy(session->collector);
    session->collector = NULL;
    return status != PX_OK ? status : ended;
}

px_status px_session_split(px_session *session, px_status (*core)(px_session *session))
{
    PX_TRY(px_agree(px_wire_check(session)));
    PX_TRY(open_weights(session));
    px_session_roof(session); /* before anybody takes memory: what a library keeps for itself is taken by then */
    px_status status;
    if (px_world_rank() < px_placement_core(&session->placement)) {
        status = run_core(session, core);
    } else {
        px_group_leave();
        status = px_env_runner(session);
    }
    px_weights_close(&session->weights);
    return px_agree(status);
}
