/* phalanx COMMAND [ARGS]: finds the command, runs it, and ends with its status as the exit code. */
#include "cli.h"
#include "phalanx/dist.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct command {
    const char *name, *summary;
    px_status (*run)(int argc, char **argv);
    bool everywhere; /* each process that a launcher started runs it; else the first one alone */
} command;

static const command commands[] = {
    {"train", "run the stages of an experiment, or continue it", px_command_train, true},
    {"plan", "schedule, memory, disk use and time of an experiment before it runs", px_command_plan, false},
    {"submit", "plan, write the batch script and hand it to Slurm", px_command_submit, false},
    {"supervise", "run a command again until it is done, inside an allocation", px_command_supervise, true},
    {"config", "the resolved configuration, its differences to the defaults, its schema", px_command_config, false},
    {"generate", "completions of prompts", px_command_generate, false},
    {"chat", "talk with a model in the terminal", px_command_chat, false},
    {"evaluate", "loss of a language model, accuracy of a reward model, rule rewards", px_command_evaluate, true},
    {"tokens", "text to token ids and back", px_command_tokens, false},
    {"tokenizer", "train a byte-level BPE tokenizer", px_command_tokenizer, false},
    {"export", "a Hugging Face directory from a run or checkpoint", px_command_export, false},
    {"inspect", "look into runs, living or killed", px_command_inspect, false},
    {"watch", "live view of a run", px_command_watch, false},
    {"report", "one HTML page with plots of runs", px_command_report, false},
    {"bench", "what this machine can do and what the kernels reach", px_command_bench, true},
    {"version", "version, build and machine", px_command_version, false},
};

static void print_overview(FILE *out)
{
    fprintf(out, "Phalanx trains language models by reinforcement learning from human feedback, on MPI ranks.\n\n"
                 "phalanx COMMAND [ARGS]\n\ncommands:\n");
    for (int i = 0; i < PX_COUNT(commands); i++) {
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
    }
    fprintf(out, "\n'phalanx help COMMAND' or 'phalanx COMMAND --help' explains a command; 'phalanx --version' names "
                 "the build.\nFirst steps: README.md, experiments/quickstart/run.sh\n"
                 "Exit codes: 0 done, 64 usage, 65 bad data, 69 too few healthy runners, 70 bug, 74 input/output,\n"
                 "75 stopped and resumable, 78 configuration, 80 diverged.\n");
}

static px_status find_command(const char *name, const command **found)
{
    const char *names[PX_COUNT(commands)];
    for (int i = 0; i < PX_COUNT(commands); i++) {
        names[i] = commands[i].name;
        if (strcmp(name, commands[i].name) != 0) {
            continue;
        }
        *found = &commands[i];
        return PX_OK;
    }
    const char *nearest = px_nearest_name(name, names, PX_COUNT(names));
    if (nearest != NULL) {
        return px_fail(PX_USAGE, "unknown command '%s'; did you mean '%s'?", name, nearest);
    }
    return px_fail(PX_USAGE, "unknown command '%s'; 'phalanx --help' lists the valid ones", name);
}

static px_status help(const char *name)
{
    const command *found;
    PX_TRY(find_command(name, &found));
    char word[32], option[] = "--help";
    snprintf(word, sizeof word, "%s", name);
    char *words[] = {word, option, NULL};
    return found->run(2, words);
}

/* What `argv` asks for is the work of one process, and a launcher started this one as another. The second says so: who wanted each
 * to do something else learns why nothing came of it. */
static bool is_not_needed(int argc, char **argv)
{
    const command *asked = NULL;
    for (int i = 0; argc > 1 && i < PX_COUNT(commands); i++) {
        asked = strcmp(argv[1], commands[i].name) == 0 ? &commands[i] : asked;
    }
    if (px_launch_rank() == 0 || (asked != NULL && asked->everywhere)) {
        return false;
    }
    if (asked != NULL && px_launch_rank() == 1) {
        px_log(PX_NOTE, "%s is the work of one process: the first of those that the launcher has started does it", asked->name);
    }
    return true;
}

/* A reader that has seen enough (head) is no error: the program ends as others do. */
static void end_if_unread(void)
{
    struct pollfd out = {.fd = STDOUT_FILENO};
    if (ferror(stdout) && poll(&out, 1, 0) == 1 && (out.revents & POLLERR) != 0) {
        signal(SIGPIPE, SIG_DFL);
        raise(SIGPIPE);
    }
}

static px_status run(int argc, char **argv)
{
    if (is_not_needed(argc, argv)) {
        return PX_OK;
    }
    if (argc < 2) {
        print_overview(stderr);
        return px_fail(PX_USAGE, "no command");
    }
    const char *name = argv[1];
    bool asks_help = strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0;
    if (asks_help && argc > 2) {
        return help(argv[2]);
    }
    if (asks_help) {
        print_overview(stdout);
        return px_output_done();
    }
    const command *found;
    PX_TRY(find_command(strcmp(name, "--version") == 0 ? "version" : name, &found));
    px_status status = found->run(argc - 1, argv + 1);
    if (status == PX_IO && !found->everywhere) {
        end_if_unread();
    }
    return status;
}

/* GNU OpenMP's idle threads spin for milliseconds by default. Where ranks or jobs share cores that starves the threads that
 * have work (measured: 35 against 388 tokens a second with three processes on two cores), so they spin for some tens of
 * microseconds here unless the user says otherwise. The library reads its environment before main: the program starts itself
 * once more, before anything else has begun. */
static void limit_spinning(char **argv)
{
    if (getenv("GOMP_SPINCOUNT") != NULL || getenv("OMP_WAIT_POLICY") != NULL || setenv("GOMP_SPINCOUNT", "4000", 1) != 0) {
        return;
    }
    execv("/proc/self/exe", argv); /* comes back only when it fails: then we go on as we are */
}

int main(int argc, char **argv)
{
    limit_spinning(argv);
    px_stop_install();
    px_status status = run(argc, argv);
    return px_dist_finish(status);
}
