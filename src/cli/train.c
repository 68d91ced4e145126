#include "cli.h"

#include "phalanx/dist.h"
#include "phalanx/roles.h"

static const px_usage usage = {
    .synopsis = "train CONFIG [options]",
    .what = "Runs the stages of an experiment in order, each in its own directory under the run's. A run that was stopped or\n"
            "killed continues from its newest checkpoint when the same command is given again; a finished stage is not run\n"
            "again unless its stop.* was raised, before a later stage began from its result. Data and frozen models must\n"
            "be those that it was started with. Under mpirun or srun all ranks take part; alone it is one rank.\n"
            "Ctrl-C, SIGTERM, SIGUSR1, a file STOP in the run directory or the time limit end it with a checkpoint and\n"
            "exit code 75.",
    .examples = "  phalanx train configs/quickstart.yaml\n"
                "  mpirun -n 4 phalanx train configs/ppo.yaml --set training.lr=1e-6 --set run.seed=3\n"
                "  phalanx train configs/quickstart.yaml --stage ppo --set ppo.stop.iterations=50",
    .exits = "0 done, 64 usage, 65 bad data, 69 too few healthy runners, 70 bug, 74 input/output,\n"
             "75 stopped and resumable, 78 configuration, 80 diverged",
};

/* The command line as the user may give it again. */
static px_status join_command(int argc, char **argv, px_buf *text)
{
    PX_TRY(px_buf_text(text, "phalanx"));
    for (int i = 0; i < argc; i++) {
        PX_TRY(px_buf_text(text, " "));
        PX_TRY(px_shell_quote(text, argv[i]));
    }
    return PX_OK;
}

px_status px_command_train(int argc, char **argv)
{
    px_words sets = {0}, words = {0};
    px_run_options run_options = {.commit = px_program_commit()};
    bool helped;
    const px_option options[] = {
        {"set", PX_OPTION_LIST, &sets, "KEY=VALUE", "change a key, or STAGE.KEY=VALUE of one stage", 0, 0},
        {"run-dir", PX_OPTION_TEXT, &run_options.run_dir, "DIR", "run directory, instead of run.dir", 0, 0},
        {"stage", PX_OPTION_TEXT, &run_options.stage, "NAME", "this stage alone, on the results of those before it", 0, 0},
        {"from", PX_OPTION_TEXT, &run_options.from, "CHECKPOINT", "branch a new run off this checkpoint directory", 0, 0},
        {"fresh", PX_OPTION_FLAG, &run_options.fresh, NULL, "start over; an earlier run is kept as DIR.1", 0, 0},
        {"json", PX_OPTION_FLAG, &run_options.json, NULL, "the end table as one JSON object", 0, 0},
    };
    px_run *run = NULL;
    px_buf command = {0};
    px_status status = px_options_parse(&usage, options, PX_COUNT(options), argc, argv, &words, &helped);
    if (status == PX_OK && helped) {
        return PX_OK;
    }
    if (status == PX_OK) {
        status = px_one_config("train", &words);
    }
    if (status == PX_OK) {
        status = join_command(argc, argv, &command);
    }
    if (status == PX_OK) {
        run_options.config_path = words.word[0];
        run_options.sets = sets.word;
        run_options.set_count = sets.count;
        run_options.command = command.data;
        status = px_run_prepare(&run, &run_options);
    }
    px_status started = px_dist_start(&argc, &argv);
    status = px_agree(status != PX_OK ? status : started);
    if (status == PX_OK) {
        status = px_run_execute(run);
    }
    px_run_destroy(run);
    px_buf_free(&command);
    return status;
}
