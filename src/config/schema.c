/* The table of every configuration key. Defaults, checks, --set, dump, help, documentation and JSON schema follow it. */
#include "key.h"

#include <stddef.h>

#define INT PX_KEY_INT
#define FLOAT PX_KEY_FLOAT
#define BOOL PX_KEY_BOOL
#define WORD PX_KEY_WORD
#define TEXT PX_KEY_TEXT
#define PATH PX_KEY_PATH
#define ALL PX_ON_ALL
#define DATA PX_ON_DATA
#define LM (PX_ON_PRETRAIN | PX_ON_SFT)
#define PPO PX_ON_PPO
#define CHANGE PX_MAY_CHANGE
#define SPLITTABLE "[0,1000000]"
#define COUNT "[1,1000000000]"
#define TOKENS "[1,10000000]"

const char *const px_algorithm_names[PX_ALGORITHMS] = {"pretrain", "sft", "reward", "ppo"};
const char *const px_algorithms_planned[] = {
    "grpo", "dr_grpo", "dapo", "gspo", "rloo", "reinforce", "remax", "opo", "dpo", "ipo", "kto", "raft", "distill",
};
const int px_algorithm_planned_count = sizeof px_algorithms_planned / sizeof px_algorithms_planned[0];

const px_group px_groups[] = {
    {"run", "Name, place and seed of a run."},
    {"algorithm", "What a stage does: the only key without a group."},
    {"rl_module", "The models of a stage. Each is a map with exactly one of `path`, `stage`, `same_as`, `new`. `pretrain` and "
                  "`sft` train `policy`; `reward` trains `reward` (which gets a scalar head); `ppo` trains `policy` and "
                  "`critic` against the frozen `reference` and `reward`."},
    {"data", "The data set of `pretrain`, `sft` and `reward`."},
    {"environment", "Prompts and rewards: what `ppo` samples for and how samples are scored."},
    {"env_runners", "Sampling."},
    {"training", "Optimisation."},
    {"learners", "How an update is computed."},
    {"evaluation", "Held-out measurements during training."},
    {"checkpointing", "What is saved, and when."},
    {"reporting", "What the run's HDF5 files hold besides metrics."},
    {"fault_tolerance", "When to go on and when to give up."},
    {"placement", "Which rank does what. `env_runners.num_env_runners: 0` is colocated: every rank does everything."},
    {"stop", "When a stage is done: the first condition that holds."},
    {"debugging", "Determinism, log level, time line."},
};
const int px_group_count = sizeof px_groups / sizeof px_groups[0];

const px_exclusive px_exclusives[] = {
    {"rl_module.*", {"path", "stage", "same_as", "new", NULL}},
    {"training", {"batch_size", "batch_tokens", NULL}},
    {"stop", {"steps", "epochs", NULL}},
};
const int px_exclusive_count = sizeof px_exclusives / sizeof px_exclusives[0];

const px_key px_module_keys[] = {
    {"path", PATH, NULL, NULL, NULL, "", ALL, 0, "path", "Hugging Face directory (config.json, safetensors), or a .gguf file."},
    {"stage", TEXT, NULL, NULL, NULL, "", ALL, 0, "stage", "Result of an earlier stage of the same file."},
    {"same_as", WORD, NULL, NULL, "policy|reference|reward|critic", "", ALL, 0, "same_as",
     "Starts as another module of this stage; a critic takes its body and gets a scalar head."},
    {"new.architecture", WORD, "llama", NULL, "llama|gpt2|mistral|qwen2|qwen3|gemma|gpt_neox|opt", "", ALL, 0, "new",
     "Family of a model with random weights."},
    {"new.hidden_size", INT, "128", NULL, "[2,65536]", "", ALL, 0, "new", "Width of the residual stream."},
    {"new.intermediate_size", INT, "auto", NULL, "auto|[1,1000000]", "", ALL, 0, "new",
     "Width of the MLP. auto: 4 x hidden_size for gpt2, gpt_neox and opt, else 8/3 x hidden_size rounded up to a multiple of 32."},
    {"new.num_hidden_layers", INT, "4", NULL, "[1,1024]", "", ALL, 0, "new", "Transformer blocks."},
    {"new.num_attention_heads", INT, "4", NULL, "[1,1024]", "", ALL, 0, "new", "Query heads."},
    {"new.num_key_value_heads", INT, "auto", NULL, "auto|[1,1024]", "", ALL, 0, "new",
     "Key and value heads; divides num_attention_heads. auto: as many as query heads."},
    {"new.head_dim", INT, "auto", NULL, "auto|[2,1024]", "", ALL, 0, "new",
     "Width of a head. auto: hidden_size / num_attention_heads."},
    {"new.max_position_embeddings", INT, "512", NULL, TOKENS, "token", ALL, 0, "new", "Longest sequence."},
    {"new.vocab_size", INT, "auto", NULL, "auto|[2,10000000]", "token", ALL, 0, "new", "auto: the tokenizer's size."},
    {"new.sliding_window", INT, "auto", NULL, "auto|[1,16777216]", "token", ALL, 0, "new",
     "Tokens that a query of mistral sees, its own included. auto: all."},
    {"new.rope_theta", FLOAT, "10000.0", NULL, "(0,1e12]", "", ALL, 0, "new", "Base of the rotary embedding (not gpt2, opt)."},
    {"new.tie_word_embeddings", BOOL, "true", NULL, NULL, "", ALL, 0, "new", "The LM head shares the embedding."},
    {"new.rms_norm_eps", FLOAT, "1e-5", NULL, "(0,1]", "", ALL, 0, "new", "Epsilon of the norms (opt: always 1e-5)."},
    {"new.attention_bias", BOOL, "false", NULL, NULL, "", ALL, 0, "new",
     "Biases on the query, key, value and output projections (llama, qwen3, gemma; gpt2, gpt_neox and opt always have them)."},
    {"new.initializer_range", FLOAT, "0.02", NULL, "(0,10]", "", ALL, 0, "new", "Standard deviation of new weights."},
};
const int px_module_key_count = sizeof px_module_keys / sizeof px_module_keys[0];

const px_key px_reward_keys[] = {
    {"kind", WORD, NULL, NULL, "model|lexicon|length|regex|exact|exec", "", PPO, PX_NEEDED, NULL,
     "model: score of `rl_module.reward`. lexicon: s / sqrt(s^2 + 15), s the sum of the values of the completion's words. "
     "length: -abs(completion tokens - target) / target. regex: 1 where `pattern` matches the completion, else 0. exact: 1 "
     "where the completion (or what `pattern` takes from it) equals the record's `field`, else 0. exec: an outside "
     "program's score."},
    {"name", TEXT, NULL, NULL, NULL, "", PPO, 0, NULL, "Name in metrics and sample files. Default: the kind."},
    {"weight", FLOAT, "1.0", NULL, "[-1e9,1e9]", "1", PPO, 0, NULL, "Factor in the sum of rewards."},
    {"file", PATH, NULL, NULL, NULL, "", PPO, PX_NEEDED, "lexicon", "Lines `word<TAB>value`."},
    {"target", INT, NULL, NULL, TOKENS, "token", PPO, PX_NEEDED, "length", "Wanted length of the completion."},
    {"field", TEXT, "answer", NULL, NULL, "", PPO, 0, "exact", "Field of the prompt's record with the right answer."},
    {"pattern", TEXT, NULL, NULL, "null", "", PPO, 0, "regex|exact",
     "Perl-compatible regular expression. exact: its first group (else its match) is compared, the last match counts; null: "
     "the whole completion without blanks around it."},
    {"command", PX_KEY_TEXTS, NULL, NULL, NULL, "", PPO, PX_NEEDED, "exec",
     "Program and its arguments as a list, found through PATH or relative to the working directory; a text alone is a "
     "program without arguments."},
    {"timeout_s", FLOAT, "60.0", NULL, "(0,1e6]", "s", PPO, 0, "exec",
     "Longest wait for the replies to a batch; then those that are missing are NaN, and a program that gave none is started "
     "again."},
};
const int px_reward_key_count = sizeof px_reward_keys / sizeof px_reward_keys[0];

const px_key px_source_keys[] = {
    {"file", PATH, NULL, NULL, NULL, "", DATA, PX_NEEDED, NULL,
     "JSONL, JSON array or text, also .gz and .zst."},
    {"weight", FLOAT, "1.0", NULL, "(0,1000]", "1", DATA, 0, NULL,
     "How many times an epoch goes through it; 0.5 takes one half in the first epoch, the other in the second."},
};
const int px_source_key_count = sizeof px_source_keys / sizeof px_source_keys[0];

const px_key px_keys[] = {
    {"run.name", TEXT, NULL, NULL, NULL, "", ALL, CHANGE, NULL, "Name of the run. Default: the YAML file's name."},
    {"run.dir", TEXT, "runs/{name}", NULL, NULL, "", ALL, CHANGE, NULL,
     "Run directory, relative to the working directory; takes {name}, {seed} and {hash}."},
    {"run.seed", INT, "0", NULL, "[0,9007199254740991]", "", ALL, 0, NULL, "Key of every random number."},
    {"run.time_limit_s", FLOAT, "auto", NULL, "auto|[0,1e9]", "s", ALL, CHANGE, NULL,
     "Checkpoint and exit 75 before this many seconds have passed. auto: Slurm's end time; 0: no limit."},
    {"run.threads_per_rank", INT, "auto", NULL, "auto|[1,4096]", "", ALL, CHANGE, NULL,
     "auto: the processors that the rank may use, shared with the ranks of the node that may use them too."},

    {"algorithm", WORD, NULL, NULL, "pretrain|sft|reward|ppo", "", ALL, PX_NEEDED, NULL,
     "pretrain: language model on plain text. sft: supervised fine-tuning on completions. reward: reward model from "
     "preference pairs. ppo: reinforcement learning from rewards."},

    {"rl_module.policy", PX_KEY_MODULE, NULL, NULL, NULL, "", LM | PPO, PX_NEEDED, NULL, "The language model that is trained."},
    {"rl_module.reference", PX_KEY_MODULE, "{same_as: policy}", NULL, "null", "", PPO, 0, NULL,
     "Frozen model of the KL penalty; by default, and with null, the policy as it started. No penalty: kl.coeff 0."},
    {"rl_module.reward", PX_KEY_MODULE, NULL, NULL, "null", "", PX_ON_REWARD | PPO, 0, NULL,
     "reward: the model that is trained, from a language model. ppo: frozen scorer, absent with rule rewards only."},
    {"rl_module.critic", PX_KEY_MODULE, "{same_as: reward}", NULL, NULL, "", PPO, 0, NULL,
     "Value model. Without a reward model the default is {same_as: policy}."},
    {"rl_module.tokenizer", PATH, NULL, NULL, "null", "", ALL, 0, NULL,
     "tokenizer.json or its directory. null: the directory of the first model."},

    {"data.train", PX_KEY_SOURCES, NULL, NULL, NULL, "", DATA, PX_NEEDED, NULL,
     "A file, or a list of files and maps {file, weight}. Each may have a shape of its own."},
    {"data.validation", PATH, NULL, NULL, "null", "", DATA, 0, NULL, "Held-out rows of the same shape."},
    {"data.demonstrations", PATH, NULL, NULL, "null", "", PX_ON_REWARD, 0, NULL,
     "Rows {prompt, completion} whose mean score becomes 0 at the end. null: the chosen sides of the pairs."},
    {"data.max_tokens", INT, "1024", NULL, TOKENS, "token", DATA, 0, NULL,
     "Longer rows of pretrain are cut into pieces of so many, those of sft at the end; pairs with a longer side are dropped."},
    {"data.memory_mib", INT, "256", NULL, "[0,1000000000]", "MiB", ALL, CHANGE, NULL,
     "Data sets whose files are larger do not stay in memory: they become token ids once, in files below cache/ of the run "
     "directory (4 bytes a token; of prompts the records too), and are read from there. The result is the same."},
    {"data.packing", BOOL, "true", NULL, NULL, "", LM, 0, NULL,
     "With batch_tokens: choose the rows of a step by best fit decreasing, within windows of about 64 steps of an epoch, so "
     "that steps are full and equally so, and none has a row twice. false: rows follow each other until one does not fit. "
     "No row attends to another either way; with batch_size rows follow each other."},
    {"data.shuffle", BOOL, "true", NULL, NULL, "", DATA, 0, NULL, "Visit the rows in a new random order in each epoch."},

    {"environment.prompts", PATH, NULL, NULL, NULL, "", PPO, PX_NEEDED, NULL,
     "JSONL of prompts; other fields of a row are there for the rewards."},
    {"environment.shuffle", BOOL, "true", NULL, NULL, "", PPO, 0, NULL, "Visit the prompts in a new random order in each epoch."},
    {"environment.chat.template", TEXT, "auto", NULL, NULL, "", ALL & ~(unsigned)PX_ON_PRETRAIN, 0, NULL,
     "How message lists become text. auto: by the tokenizer's template; none: refuse message lists; else a renderer's name "
     "(chatml, llama3, ...)."},
    {"environment.chat.system", TEXT, NULL, NULL, "null", "", ALL & ~(unsigned)PX_ON_PRETRAIN, 0, NULL,
     "System message of conversations that have none."},
    {"environment.max_prompt_tokens", INT, "512", NULL, TOKENS, "token", PPO, 0, NULL, "Longer prompts are dropped."},
    {"environment.max_completion_tokens", INT, "53", NULL, TOKENS, "token", PPO, 0, NULL,
     "A completion without an end-of-sequence token is truncated here."},
    {"environment.min_completion_tokens", INT, "0", NULL, "[0,10000000]", "token", PPO, 0, NULL,
     "No end-of-sequence token is sampled before."},
    {"environment.stop_strings", PX_KEY_TEXTS, "[]", NULL, NULL, "", PPO, 0, NULL, 
     "Texts that end a completion: looked for in its text, or a special token's own text for that token."},
    {"environment.rewards", PX_KEY_REWARDS, "[{kind: model}]", NULL, NULL, "", PPO, 0, NULL, "What a sample's score is the sum of."},
    {"environment.missing_eos.mode", WORD, "auto", NULL, "auto|none|subtract|set|mask", "", PPO, 0, NULL,
     "What happens to the score of a truncated completion: nothing, value is subtracted, the score becomes value, or the "
     "sample leaves the loss. auto: subtract where a model scores, none with rule rewards only."},
    {"environment.missing_eos.value", FLOAT, "1.0", NULL, "[-1e9,1e9]", "1", PPO, 0, NULL, "See mode."},
    {"environment.reward_clip", FLOAT, NULL, NULL, "null|(0,1e9]", "1", PPO, 0, NULL, "Scores are clamped to +-reward_clip."},

    {"env_runners.num_env_runners", INT, "0", NULL, SPLITTABLE, "", PPO, CHANGE, NULL,
     "Ranks that only sample. 0: every rank samples and learns."},
    {"env_runners.samples_per_prompt", INT, "1", NULL, "[1,65536]", "", PPO, 0, NULL, "Completions of each prompt."},
    {"env_runners.temperature", FLOAT, "1.0", NULL, "(0,100]", "1", PPO, 0, NULL, "Logits are divided by it, here and in the loss."},
    {"env_runners.top_p", FLOAT, "1.0", NULL, "(0,1]", "1", PPO, 0, NULL, "Nucleus sampling. 1: off."},
    {"env_runners.top_k", INT, "0", NULL, "[0,10000000]", "token", PPO, 0, NULL, "Only the k likeliest tokens. 0: off."},
    {"env_runners.min_p", FLOAT, "0.0", NULL, "[0,1]", "1", PPO, 0, NULL, "Drop tokens below min_p x the likeliest. 0: off."},
    {"env_runners.repetition_penalty", FLOAT, "1.0", NULL, "(0,100]", "1", PPO, 0, NULL, "1: off."},
    {"env_runners.max_slots", INT, "auto", NULL, "auto|[1,65536]", "", PPO, CHANGE, NULL, "Sequences decoded together on a rank."},
    {"env_runners.max_requests_in_flight_per_env_runner", INT, "4", NULL, "[1,16]", "", PPO, CHANGE, NULL,
     "Requests, of a few prompts each, that an env runner has at a time."},
    {"env_runners.sample_timeout_s", FLOAT, "60.0", NULL, "(0,1e6]", "s", PPO, CHANGE, NULL,
     "An env runner that is silent for longer is left out."},
    {"env_runners.max_staleness", INT, "0", NULL, "[0,32]", "", PPO, 0, NULL, "Iterations that a sample's weights may be behind the learner's. 0: synchronous; above, env runners sample while the "
     "learners learn."},
    {"env_runners.precision", WORD, "auto", NULL, "auto|f32|bf16", "", PPO, 0, NULL, "auto: as the learners."},

    {"training.batch_size", INT, NULL, "sft=32 reward=32", "null|" COUNT, "", DATA, 0, NULL,
     "Rows (reward: pairs) of an optimizer step. Either this or batch_tokens."},
    {"training.batch_tokens", INT, NULL, "pretrain=16384", "null|" COUNT, "token", LM, 0, NULL,
     "Tokens of an optimizer step. Either this or batch_size."},
    {"training.prompts_per_iteration", INT, "64", NULL, "[1,10000000]", "", PPO, 0, NULL, "Prompts of an iteration."},
    {"training.num_epochs", INT, "4", NULL, "[1,1000]", "", PPO, 0, NULL, "Passes over an iteration's samples."},
    {"training.minibatch_size", INT, "auto", NULL, "auto|[1,10000000]", "", PPO, 0, NULL,
     "Samples of an optimizer step. auto: all samples of the iteration."},
    {"training.lr", FLOAT, "3e-6", "pretrain=3e-4 sft=2e-5 reward=1e-4", "[0,10]", "1", ALL, 0, NULL, "Learning rate."},
    {"training.critic_lr", FLOAT, "1e-5", NULL, "[0,10]", "1", PPO, 0, NULL, "Learning rate of the critic."},
    {"training.lr_schedule", WORD, "linear", "pretrain=cosine", "constant|linear|cosine", "", ALL, 0, NULL,
     "How the learning rate goes from its value to lr_floor times it over the steps of `stop`."},
    {"training.warmup_steps", INT, "0", NULL, "[0,1000000000]", "", ALL, 0, NULL, "Optimizer steps of linear warm-up from 0."},
    {"training.lr_floor", FLOAT, "0.0", "pretrain=0.1", "[0,1]", "1", ALL, 0, NULL, "Fraction of the learning rate at the end."},
    {"training.grad_clip", FLOAT, "1.0", NULL, "[0,1e9]", "1", ALL, 0, NULL, "Largest gradient norm. 0: off."},
    {"training.optimizer.betas", PX_KEY_NUMBERS, "[0.9, 0.95]", NULL, "[0,1)", "1", ALL, 0, NULL, "AdamW."},
    {"training.optimizer.eps", FLOAT, "1e-8", "ppo=1e-5", "(0,1]", "1", ALL, 0, NULL, "AdamW, added to the root."},
    {"training.optimizer.weight_decay", FLOAT, "0.0", "pretrain=0.1", "[0,1]", "1", ALL, 0, NULL,
     "AdamW, on matrices and embeddings only."},
    {"training.center_rewards_coefficient", FLOAT, "0.0", NULL, "[0,1e6]", "1", PX_ON_REWARD, 0, NULL,
     "Weight of mean (r_chosen + r_rejected)^2 in the loss."},
    {"training.gamma", FLOAT, "1.0", NULL, "[0,1]", "1", PPO, 0, NULL, "Discount."},
    {"training.lambda_", FLOAT, "0.95", NULL, "[0,1]", "1", PPO, 0, NULL, "Of generalised advantage estimation."},
    {"training.whiten_advantages", BOOL, "true", NULL, NULL, "", PPO, 0, NULL,
     "Mean 0 and variance 1 over all tokens of the iteration."},
    {"training.bootstrap_truncated", BOOL, "false", NULL, NULL, "", PPO, 0, NULL,
     "A truncated completion ends with the critic's value instead of 0."},
    {"training.clip_param", FLOAT, "0.2", NULL, "(0,1e6]", "1", PPO, 0, NULL, "Clip range of the probability ratio."},
    {"training.clip_param_high", FLOAT, NULL, NULL, "null|(0,1e6]", "1", PPO, 0, NULL, "Upper clip range. null: clip_param."},
    {"training.dual_clip", FLOAT, NULL, NULL, "null|(1,1e6]", "1", PPO, 0, NULL,
     "Bound of the loss for negative advantages, in units of the advantage. null: off."},
    {"training.importance_sampling_cap", FLOAT, "2.0", NULL, "[1,1e6]", "1", PPO, 0, NULL,
     "With env_runners.max_staleness above 0: each token's policy loss is weighed by min(policy before the update / policy that "
     "sampled, this)."},
    {"training.vf_clip_param", FLOAT, "0.2", NULL, "null|(0,1e9]", "1", PPO, 0, NULL, "Clip range of the value. null: off."},
    {"training.vf_loss_coeff", FLOAT, "1.0", NULL, "[0,1e6]", "1", PPO, 0, NULL, "Weight of the value loss."},
    {"training.entropy_coeff", FLOAT, "0.0", NULL, "[0,1e6]", "1", PPO, 0, NULL, "Weight of the entropy bonus."},
    {"training.kl.coeff", FLOAT, "0.05", NULL, "[0,1e6]", "1", PPO, 0, NULL, "Weight of the KL penalty; its start with a target."},
    {"training.kl.estimator", WORD, "k1", NULL, "k1|k2|k3", "", PPO, 0, NULL,
     "With d = log(policy / reference): k1 = d (not in the loss), k2 = d^2/2, k3 = exp(-d) - 1 + d."},
    {"training.kl.where", WORD, "reward", NULL, "reward|loss", "", PPO, 0, NULL, "In each token's reward, or in the loss."},
    {"training.kl.target", FLOAT, NULL, NULL, "null|(0,1e6]", "nat", PPO, 0, NULL,
     "The coefficient is steered to this mean KL of a sample (sum over tokens). null: constant."},
    {"training.kl.horizon", FLOAT, "10000", NULL, "(0,1e12]", "sample", PPO, 0, NULL, "How slowly it is steered."},
    {"training.early_stop_kl", FLOAT, NULL, NULL, "null|(0,1e6]", "nat", PPO, 0, NULL,
     "An update ends after the minibatch whose mean KL per token is above 1.5 times this. null: off."},
    {"training.loss_aggregation", WORD, "token-mean", NULL,
     "token-mean|seq-mean-token-mean|seq-mean-token-sum|seq-mean-token-sum-norm", "", PPO, 0, NULL,
     "How token losses become one number; the last divides by max_completion_tokens."},

    {"learners.num_learners", INT, "0", NULL, SPLITTABLE, "", ALL, CHANGE, NULL, "Ranks that learn. 0: all that do not only sample."},
    {"learners.micro_batch_tokens", INT, "auto", NULL, "auto|" TOKENS, "token", ALL, CHANGE, NULL,
     "Tokens in one forward and backward: memory only, never the result. Only with debugging.deterministic: false; else "
     "gradient_leaf_tokens counts."},
    {"learners.gradient_leaf_tokens", INT, "4096", NULL, TOKENS, "token", ALL, 0, NULL,
     "Tokens in one forward and backward with debugging.deterministic: true. A minibatch is cut into at least 8 gradient leaves, "
     "fixed by the order of its samples; a leaf with more tokens than this is computed in parts of so many. Leaves are summed in "
     "one tree, the same on 1, 2, 4 and 8 ranks that learn."},
    {"learners.activation_recomputation", BOOL, "false", NULL, NULL, "", ALL, CHANGE, NULL,
     "Keep what lies between the blocks alone and compute what is inside them again for the gradients: the same bits with less "
     "memory, a forward more."},
    {"learners.precision", WORD, "f32", NULL, "f32|bf16", "", ALL, 0, NULL, "Operands of the matrix products, and keys and values; weights and sums are float32. bf16 needs AMX (Intel) or AVX512-BF16 (AMD), else float32 is used."},

    {"evaluation.evaluation_interval", INT, "10", "pretrain=100 sft=100 reward=100", "[0,1000000000]", "", ALL, CHANGE, NULL,
     "Iterations (pretrain, sft, reward: steps) between evaluations; also before the first and after the last. 0: never."},
    {"evaluation.prompts", PATH, NULL, NULL, "null", "", PPO, CHANGE, NULL, "Held-out prompts. null: no evaluation."},
    {"evaluation.num_prompts", INT, NULL, NULL, "null|" COUNT, "", PPO, CHANGE, NULL, "The first so many. null: all."},
    {"evaluation.samples", INT, "1", NULL, "[1,65536]", "", PPO, CHANGE, NULL, "Completions of each prompt."},
    {"evaluation.temperature", FLOAT, "0.0", NULL, "[0,100]", "1", PPO, CHANGE, NULL, "0: greedy."},
    {"evaluation.rewards", PX_KEY_REWARDS, "[]", NULL, NULL, "", PPO, CHANGE, NULL, "Empty: those of the environment."},

    {"checkpointing.recovery_interval", INT, "1", "pretrain=50 sft=50 reward=50", "[0,1000000000]", "", ALL, CHANGE, NULL,
     "Iterations (steps) between saves into the two rolling recovery slots. 0: never."},
    {"checkpointing.interval", INT, "10", "pretrain=500 sft=500 reward=500", "[0,1000000000]", "", ALL, CHANGE, NULL,
     "Iterations (steps) between checkpoints that stay. 0: none."},
    {"checkpointing.keep", INT, "2", NULL, "null|[1,1000000]", "", ALL, CHANGE, NULL, "Latest checkpoints kept. null: all."},
    {"checkpointing.keep_best", TEXT, NULL, NULL, "null", "", ALL, CHANGE, NULL,
     "Metric whose best checkpoint is kept as well, such as evaluation/objective/scores. null: none."},
    {"checkpointing.keep_best_mode", WORD, "max", "pretrain=min sft=min", "max|min", "", ALL, CHANGE, NULL, "Which value is best."},
    {"checkpointing.initial", BOOL, "false", NULL, NULL, "", ALL, CHANGE, NULL, "Also save the state before training."},

    {"reporting.samples.every", INT, "1", NULL, "[0,1000000000]", "", PPO, CHANGE, NULL,
     "Iterations between those whose samples are written. 0: none."},
    {"reporting.samples.tokens", BOOL, "true", NULL, NULL, "", PPO, CHANGE, NULL, "With every token's numbers."},
    {"reporting.samples.iterations_per_file", INT, "10", NULL, "[1,1000000]", "", PPO, CHANGE, NULL, "Then a new file begins."},

    {"fault_tolerance.min_healthy_env_runners", INT, "1", NULL, "[0,1000000]", "", PPO, CHANGE, NULL,
     "Fewer that answer: checkpoint and exit 69."},
    {"fault_tolerance.wait_timeout_s", FLOAT, "1800.0", NULL, "[0,1e9]", "s", ALL, CHANGE, NULL,
     "A rank that waits for longer for the other learners ends the job with a post-mortem and exit 69; longer than any phase "
     "takes. 0: waits for ever."},
    {"fault_tolerance.max_skipped_steps", INT, "10", NULL, "[0,1000000]", "", ALL, 0, NULL,
     "So many optimizer steps in a row that are skipped for a gradient that is not finite, or batches without any score, end "
     "the run with exit 80. 0: never."},
    {"fault_tolerance.kl_limit", FLOAT, NULL, NULL, "null|(0,1e9]", "nat", PPO, 0, NULL,
     "A mean KL of a sample above stops the run with a checkpoint and exit 80. null: none."},

    {"placement.strategy", WORD, "auto", NULL, "auto|colocated|split", "", ALL, CHANGE, NULL,
     "auto: split where num_env_runners is above 0 or env_runner_nodes names nodes."},
    {"placement.env_runner_nodes", TEXT, NULL, NULL, "null", "", PPO, CHANGE, NULL,
     "Nodes whose ranks only sample, instead of a count: names as Slurm lists them (cpu[001-016],old7), or het-group:N, a "
     "component of a heterogeneous Slurm job. They come last in the order of ranks."},
    {"placement.num_scorers", INT, "0", NULL, SPLITTABLE, "", PPO, CHANGE, NULL, "Ranks for reference, rewards and values. 0: the learners."},
    {"placement.num_evaluators", INT, "0", NULL, SPLITTABLE, "", PPO, CHANGE, NULL, "Ranks that only evaluate."},
    {"placement.num_spares", INT, "0", NULL, SPLITTABLE, "", PPO, CHANGE, NULL, "Ranks that wait to replace a lost one."},

    {"stop.iterations", INT, "100", NULL, "[0,1000000000]", "", PPO, CHANGE, NULL, "Iterations in all."},
    {"stop.steps", INT, NULL, NULL, "null|[0,1000000000]", "", DATA, CHANGE, NULL, "Optimizer steps in all. Either this or epochs."},
    {"stop.epochs", FLOAT, "1", NULL, "null|[0,1000000]", "", DATA, CHANGE, NULL, "Passes over the data; the last step takes what is left of them. Either this or steps."},
    {"stop.metrics", PX_KEY_METRICS, "{}", NULL, NULL, "", ALL, CHANGE, NULL,
     "Metric name -> condition, such as objective/kl: \"> 50\"; operators > >= < <=; a bare number means >=. Maps add to those of files below: null is none."},

    {"debugging.deterministic", BOOL, "true", NULL, NULL, "", ALL, CHANGE, NULL,
     "The same bits on 1, 2, 4 or 8 ranks that learn, however many sample or score, and on any number of threads; other numbers by "
     "tolerance. Costs at most 5 % of the time of learning (experiments/speed)."},
    {"debugging.log_level", WORD, "info", NULL, "error|warning|note|info|debug", "", ALL, CHANGE, NULL, ""},
    {"debugging.timeline", BOOL, "false", NULL, NULL, "", ALL, CHANGE, NULL, "Write every rank's phases into timeline-RANK-PART.json (Chrome trace); phalanx inspect RUN timeline joins them."},
};
const int px_key_count = sizeof px_keys / sizeof px_keys[0];
