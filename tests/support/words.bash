# Sourced: words DIR COUNT writes a tokenizer whose ids are the words w0, w1, ..., for runs on rows of ids whose rewards read text.
words() {
    mkdir -p "$1"
    { printf '{"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "Whitespace"},'
      printf ' "post_processor": null, "decoder": null, "model": {"type": "WordLevel", "unk_token": "w0", "vocab": {"w0": 0'
      for ((word = 1; word < $2; word++)); do printf ', "w%d": %d' $word $word; done
      echo '}}}'; } > "$1/tokenizer.json"
}
