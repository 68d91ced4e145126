"""Chat templates as their families publish them, with a tokenizer of the shared data that each is tried with, and what
an assistant's turn is in them."""
import json
import os

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(os.environ.get("PHALANX_SHARED", os.path.join(HERE, "../../../shared")), "data")

TEMPLATES = {
    "chatml": [
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}",
    ],
    "qwen2": ["{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"],
    "qwen2.5": ["""{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\nYou are provided with function signatures within <tools></tools> XML tags:\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>\\n\\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\\n<tool_call>\\n{\\"name\\": <function-name>, \\"arguments\\": <args-json-object>}\\n</tool_call><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""],
    "llama2": ["{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"],
    "llama3": ["{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"],
    "gemma": ["{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"],
    "mistral": ["{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"],
    "zephyr": ["{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"],
    "smollm2": ["{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"],
}
TEMPLATES["qwen2.5-base"] = [TEMPLATES["qwen2.5"][0].replace("You are Qwen, created by Alibaba Cloud. You are", "You are")]
for name, folder in (("qwen3", "qwen3"), ("llama3", "llama3"), ("minimind", "minimind-6400")):
    with open(f"{DATA}/tokenizers/{folder}/tokenizer_config.json", encoding="utf-8") as f:
        TEMPLATES.setdefault(name, []).append(json.load(f)["chat_template"])


def later_qwen3():
    """Qwen3's later template: contents that are no strings count as empty; minimind's comes from it."""
    first, other = TEMPLATES["qwen3"][0], TEMPLATES["minimind"][0]
    start, end = "        {%- if loop.index0 > ns.last_query_index %}", "        {%- if message.tool_calls %}"
    block = first[first.index(start):first.index(end)]
    start = "        {%- if true %}"
    text = other[:other.index(start)] + block + other[other.index(end):]
    tail = "{%- if add_generation_prompt %}"
    return text[:text.index(tail)] + first[first.index(tail):]


TEMPLATES["qwen3"].append(later_qwen3())


def template_hash(text):
    """As px_template_hash."""
    value = 0xCBF29CE484222325
    for byte in text.rstrip(" \t\r\n").replace("\n", "\\n").replace("\r", "").encode():
        value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return value


TOKENIZER_OF = {"qwen2": "qwen3/tokenizer.json.gz", "qwen2.5-base": "qwen3/tokenizer.json.gz", "qwen2.5": "qwen3/tokenizer.json.gz", "qwen3": "qwen3/tokenizer.json.gz", "chatml": "qwen3/tokenizer.json.gz",
                "llama2": "llama2-phi3/tokenizer.json", "mistral": "llama2-phi3/tokenizer.json",
                "zephyr": "llama2-phi3/tokenizer.json", "gemma": "llama2-phi3/tokenizer.json",
                "llama3": "llama3/tokenizer.json.gz", "minimind": "minimind-6400/tokenizer.json",
                "smollm2": "minimind-6400/tokenizer.json"}
BOS_EOS = {"qwen3": ("", "<|im_end|>"), "llama2-phi3": ("<s>", "</s>"), "llama3": ("<|begin_of_text|>", "<|end_of_text|>"),
           "minimind-6400": ("<|im_start|>", "<|im_end|>")}

# No model's own: how the dialogues of Bai et al. (2022) are written, whom a system message precedes.
PLAIN = ("{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}{{ '\n\nHuman: ' + m.content }}"
         "{% elif m.role == 'assistant' %}{{ '\n\nAssistant: ' + m.content }}{% else %}{{ raise_exception('role') }}{% endif %}"
         "{% endfor %}{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}")

# What an answer begins behind and ends with; EOS stands for the tokenizer's own.
EOS = None
ANSWERS = {"llama3": ("<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"), "llama2": (" [/INST]", EOS),
           "mistral": (" [/INST]", EOS), "gemma": ("<start_of_turn>model\n", "<end_of_turn>"), "zephyr": ("<|assistant|>\n", EOS)}
CHATML_ANSWER = ("<|im_start|>assistant\n", "<|im_end|>")
WRITES_TOOLS = {"qwen2.5", "qwen2.5-base", "qwen3", "minimind"}
WRITES_REASONING = {"qwen3", "minimind"}
