#include "bench.h"
#include "phalanx/dist.h"

#include <string.h>

static const px_usage usage = {
    .synopsis = "bench [gemm|attention|train|head|adamw|sample|decode|allreduce]... [--model DIR | --shape NAME]",
    .what = "What this machine can do and what is reached of it, best of several runs. Each line has the time that\n"
            "its products take at the roof of products or its bytes at the roof of memory, whichever is more, as\n"
            "a share of the time it took. Products: OpenBLAS's (float32) or oneDNN's (bf16) of 1024x3072x768 on the\n"
            "same threads, without a library multiply-adds on registers. Memory: plain passes over 128 MiB arrays.\n"
            "gemm: products of the sizes of transformers, with the weight as it is and packed as decoding keeps\n"
            "it, in float32 and where it can be had in bf16, beside the library's product of the same shape;\n"
            "attention: one layer, forward and backward; train: forward, cross-entropy, backward and AdamW on\n"
            "random ids; head: LM head, loss and their backward alone; adamw: the optimizer alone; sample:\n"
            "generation of N tokens a sequence; decode: a step of it, B rows and one; allreduce: the ordered sum\n"
            "of gradients over the ranks of mpirun. Without words: all of them, allreduce where there are ranks.",
    .examples = "  phalanx bench gemm --json\n"
                "  phalanx bench train sample --shape gpt2-124m --batch 4 --seq 256\n"
                "  mpirun -n 2 phalanx bench allreduce --threads 1",
    .exits = "0 done, 64 usage, 65 bad model, 74 input/output, 75 stopped",
};

enum { MODEL = 1, SEQUENCES = 2, SAMPLES = 4 }; /* what a kind needs: a model, room in it for --seq, for --prompt and --new */

static const struct {
    const char *name;
    px_status (*run)(px_bench *bench);
    int needs;
} kinds[] = {{"gemm", px_bench_gemm, 0},
             {"attention", px_bench_attention, MODEL | SEQUENCES},
             {"train", px_bench_train, MODEL | SEQUENCES},
             {"head", px_bench_head, MODEL | SEQUENCES},
             {"adamw", px_bench_adamw, MODEL},
             {"sample", px_bench_sample, MODEL | SAMPLES},
             {"decode", px_bench_decode, MODEL | SAMPLES},
             {"allreduce", px_bench_allreduce, 0}};
enum { KINDS = sizeof kinds / sizeof *kinds, ALLREDUCE = KINDS - 1 };

static int64_t within(int64_t room, int64_t usual)
{
    return room < 1 ? 1 : room < usual ? room : usual;
}

/* Lengths that were not given: the usual ones, or what the context leaves. */
static void choose_lengths(px_bench *b, int64_t context)
{
    int64_t prompt = b->new_tokens > 0 ? context - b->new_tokens : context / 3;
    b->seq = b->seq > 0 ? b->seq : within(context, 256);
    b->prompt = b->prompt > 0 ? b->prompt : within(prompt, 32);
    b->new_tokens = b->new_tokens > 0 ? b->new_tokens : within(context - b->prompt, 64);
}

/* The model without its weights. A preset shape takes sequences of any length. */
static px_status open_model(px_bench *b, int needs)
{
    px_model_config config;
    bool had_score;
    if (b->dir != NULL) {
        b->shape = b->dir;
        PX_TRY(px_model_load(&b->model, b->dir, PX_HEAD_LM, &had_score));
        choose_lengths(b, b->model.config.max_positions);
    } else {
        choose_lengths(b, INT32_MAX);
    }
    int64_t sampled = needs & SAMPLES ? b->prompt + b->new_tokens : 1, seq = needs & SEQUENCES ? b->seq : 1;
    int64_t longest = seq > sampled ? seq : sampled;
    if (b->dir == NULL) {
        PX_TRY(px_model_config_shape(b->shape, &config));
        config.max_positions = config.max_positions < longest ? (int)longest : config.max_positions;
        PX_TRY(px_model_plan(&b->model, &config));
    }
    int context = b->model.config.max_positions;
    if (seq > context) {
        return px_fail(PX_USAGE, "bench: --seq is %lld; valid is at most %d, the model's context", (long long)seq, context);
    }
    return sampled <= context ? PX_OK
                              : px_fail(PX_USAGE, "bench: --prompt %lld and --new %lld do not fit the context of %d tokens",
                                        (long long)b->prompt, (long long)b->new_tokens, context);
}

static px_status read_words(const px_words *words, bool *wanted)
{
    for (int k = 0; k < KINDS; k++) {
        wanted[k] = words->count == 0 && (k != ALLREDUCE || px_dist_size() > 1);
    }
    for (int i = 0; i < words->count; i++) {
        int k = 0;
        while (k < KINDS && strcmp(words->word[i], kinds[k].name) != 0) {
            k++;
        }
        if (k == KINDS) {
            return px_fail(PX_USAGE, "bench: '%s' is unknown; valid are gemm, attention, train, head, adamw, sample, decode, "
                                     "allreduce",
                           words->word[i]);
        }
        wanted[k] = true;
    }
    return PX_OK;
}

static px_status read_precision(px_bench *b, const char *word)
{
    b->both = word == NULL;
    return word != NULL ? px_precision_read("bench", word, &b->dtype) : PX_OK;
}

/* All ranks measure at once; the first one prints. */
static px_status run(px_bench *b, const bool *wanted)
{
    int needs = 0;
    for (int k = 0; k < KINDS; k++) {
        needs |= wanted[k] ? kinds[k].needs : 0;
    }
    PX_TRY(px_agree(needs != 0 ? open_model(b, needs) : PX_OK));
    for (int k = 0; k < KINDS; k++) {
        PX_TRY(px_agree(wanted[k] ? kinds[k].run(b) : PX_OK));
    }
    return PX_OK;
}

px_status px_command_bench(int argc, char **argv)
{
    px_words words = {.count = 0};
    const char *precision = NULL;
    bool helped, wanted[KINDS];
    px_bench b = {.shape = "nano10m", .dtype = PX_F32, .batch = 8, .threads = px_cores(), .trials = 5};
    const px_option options[] = {
        {"shape", PX_OPTION_TEXT, &b.shape, "NAME", "gpt2-124m, nano10m, smollm2-135m, stories15m: random weights",
         0, 0},
        {"model", PX_OPTION_TEXT, &b.dir, "DIR", "a Hugging Face directory instead", 0, 0},
        {"batch", PX_OPTION_INT, &b.batch, "B", "sequences", 1, 4096},
        {"seq", PX_OPTION_INT, &b.seq, "T", "tokens of a training sequence; 0: 256, or the model's context", 0, 1 << 17},
        {"prompt", PX_OPTION_INT, &b.prompt, "P", "tokens of a prompt; 0: 32, or what the context leaves", 0, 1 << 17},
        {"new", PX_OPTION_INT, &b.new_tokens, "N", "tokens generated; 0: 64, or what the context leaves", 0, 1 << 17},
        {"precision", PX_OPTION_TEXT, &precision, "TYPE", "f32 or bf16: of the matrix products [f32; gemm: both]", 0, 0},
        {"threads", PX_OPTION_INT, &b.threads, "N", "threads of a rank", 1, 1024},
        {"trials", PX_OPTION_INT, &b.trials, "N", "runs of which the best counts", 1, 1000},
        {"json", PX_OPTION_FLAG, &b.json, NULL, "an object a line", 0, 0},
    };
    PX_TRY(px_options_parse(&usage, options, PX_COUNT(options), argc, argv, &words, &helped));
    if (helped) {
        return PX_OK;
    }
    PX_TRY(px_dist_start(&argc, &argv));
    px_status status = read_words(&words, wanted);
    status = status == PX_OK ? read_precision(&b, precision) : status;
    status = status == PX_OK ? run(&b, wanted) : status;
    px_model_free(&b.model);
    return status;
}
