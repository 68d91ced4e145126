/* The program's own part: its commands, and what they share. A command parses its options, calls the rooms, and writes
 * what a program reads to stdout and what a person reads to stderr. */
#ifndef PHALANX_CLI_H
#define PHALANX_CLI_H

#include "phalanx/base.h"
#include "phalanx/model.h"
#include "phalanx/text.h"


/* ---- commands: argv[0] is the command's name --------------------------------------------------------------------- */
px_status px_command_train(int argc, char **argv);
px_status px_command_plan(int argc, char **argv);
px_status px_command_submit(int argc, char **argv);
px_status px_command_supervise(int argc, char **argv);
px_status px_command_config(int argc, char **argv);
px_status px_command_generate(int argc, char **argv);
px_status px_command_chat(int argc, char **argv);
px_status px_command_evaluate(int argc, char **argv);
px_status px_command_tokens(int argc, char **argv);
px_status px_command_tokenizer(int argc, char **argv);
px_status px_command_export(int argc, char **argv);
px_status px_command_inspect(int argc, char **argv);
px_status px_command_watch(int argc, char **argv);
px_status px_command_report(int argc, char **argv);
px_status px_command_bench(int argc, char **argv);
px_status px_command_version(int argc, char **argv);

const char *px_program_commit(void); /* of the sources, "" when unknown */

/* ---- options ----------------------------------------------------------------------------------------------------- */
enum { PX_MAX_WORDS = 256 };
typedef struct px_words { /* repeated options and positional arguments; borrowed from argv */
    const char *word[PX_MAX_WORDS];
    int count;
} px_words;

typedef enum px_option_type {
    PX_OPTION_TEXT,
    PX_OPTION_INT,
    PX_OPTION_FLOAT,
    PX_OPTION_FLAG,
    PX_OPTION_LIST,
} px_option_type;
typedef struct px_option {
    const char *name;     /* without "--" */
    px_option_type type;
    void *value;          /* const char **, int64_t *, double *, bool *, px_words *; holds the default before parsing */
    const char *argument; /* "DIR"; NULL for flags */
    const char *help;     /* one line; the default is added */
    double low, high;     /* numbers: valid range, both included */
} px_option;

typedef struct px_usage {
    const char *synopsis; /* "generate --model DIR (--prompt TEXT | --data F.jsonl) [options]" */
    const char *what;     /* a paragraph */
    const char *examples; /* lines, indented by two */
    const char *exits;    /* "0 done, 64 usage, ..." */
} px_usage;

/* Reads argv[1..): "--key value", "--key=value", flags, "--" before words that begin with dashes. words NULL: none are
 * taken. --help prints the usage on stdout and sets *helped: the command then returns PX_OK. PX_USAGE names the option,
 * what is wrong and the nearest name. */
px_status px_options_parse(const px_usage *usage, const px_option *options, int count, int argc, char **argv,
                           px_words *words, bool *helped);
px_status px_option_required(const char *command, const char *name, const char *value); /* PX_USAGE when NULL */
px_status px_one_config(const char *command, const px_words *words); /* PX_USAGE unless there is one word */
px_status px_shell_quote(px_buf *out, const char *word); /* one word of a command line as a shell reads it */
#define PX_COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

/* ---- other programs ---------------------------------------------------------------------------------------------- */
/* One of Slurm's commands, run to its end with `input` (NULL: nothing) as its standard input; what it prints is added to
 * `answer` (NULL: of no interest), its messages go to stderr. PX_IO: not started, not exit code 0, no end within 300 s; PX_STOPPED, where it is stoppable:
 * otherwise neither our stop ends it nor a TERM that reaches it too. */
px_status px_slurm_command(char *const *argv, const px_buf *input, px_buf *answer, bool stoppable);
/* The Slurm job that we are in goes back into the queue (unless Slurm is ending it by itself: what is cancelled stays so), or
 * counts as cancelled. PX_STOPPED once it is ended, or with a message that says why it is not. */
px_status px_job_requeue(void);
px_status px_job_cancel(void);

/* ---- data -------------------------------------------------------------------------------------------------------- */
/* Collective over the ranks. Token ids of a file of more than memory_mib MiB lie in temporary files below $TMPDIR. */
px_status px_data_load(px_dataset **data, const char *path, px_data_options *options, int64_t memory_mib);
#define PX_DATA_MEMORY_MIB 256 /* as data.memory_mib */

/* ---- models and what belongs to them ----------------------------------------------------------------------------- */
typedef struct px_opened {
    px_model model;
    bool had_score;              /* the directory has a score head */
    px_tokenizer *tokenizer;     /* NULL: the directory has none */
    const px_renderer *renderer; /* NULL: no chat template */
    int threads;                 /* cores this process may use */
    px_dtype precision;          /* of the matrix products: PX_F32 from px_opened_load */
} px_opened;
/* tokenizer_path NULL: the one in the model's directory, if there is one. template: "auto", "none" or a renderer's
 * name. */
px_status px_opened_load(px_opened *opened, const char *dir, px_head head, const char *tokenizer_path,
                         const char *template);
void px_opened_free(px_opened *opened);
px_status px_tokenizer_open(px_tokenizer **tokenizer, const char *dir); /* *tokenizer NULL: the directory has none */
/* --template: as px_renderer_find takes it; PX_USAGE where that gives PX_CONFIG. */
px_status px_template_read(const px_renderer **renderer, const char *name, const px_tokenizer *tokenizer);
int px_cores(void); /* by the affinity mask */
px_status px_stops_check(const char *command, const px_words *stop); /* no stop string may be empty */
/* --precision: f32, or bf16 where this processor has it (else f32, with a note). */
px_status px_precision_read(const char *command, const char *word, px_dtype *precision);

/* Sampling as the options say. Stop ids are those of the model and the tokenizer, those that end an answer in the chat
 * template where the prompts went through it, and special tokens among the stop strings. */
typedef struct px_sampling_options {
    int64_t max_new_tokens, top_k, seed;
    double temperature, top_p, min_p, repetition_penalty;
} px_sampling_options;
px_status px_sampling_make(px_sampling *sampling, const px_sampling_options *options, const px_opened *opened,
                           const px_words *stop, bool rendered);

/* Stop strings: cuts a completion where one of them begins. */
typedef struct px_stops {
    px_tokenizer *tokenizer;
    const px_words *words;
    px_buf text; /* scratch */
} px_stops;
/* Byte offset in a completion's text where the first stop string begins; SIZE_MAX: nowhere. */
size_t px_stops_find(px_stops *stops, const px_request *request, const px_completion *completion);

/* ---- output ------------------------------------------------------------------------------------------------------ */
struct json_t;
px_status px_print_json(struct json_t *json); /* one compact line on stdout; takes the reference */
px_status px_output_done(void);               /* flushes stdout; PX_IO when something was lost */

#endif
