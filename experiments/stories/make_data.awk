# TinyStories, one after another, paragraphs apart by an empty line -> one line of JSON a story: its first sentence as
# the prompt, up to two more as the completion. A line that follows a line begins a story. Every tenth goes to
# -v heldout=FILE, the rest to -v train=FILE. Curly quotation marks become straight ones. Any awk, under LC_ALL=C.
function quoted(s) {
    gsub(/\\/, "\\\\", s)
    gsub(/"/, "\\\"", s)
    gsub(/\t/, " ", s)
    return "\"" s "\""
}

# Where the first sentence of s ends: its full stop and closing quotation mark, before a space or the end. 0: nowhere.
function sentence_end(s,    i, next_one) {
    for (i = 1; i <= length(s); i++)
        if (index(".!?", substr(s, i, 1))) {
            if (substr(s, i + 1, 1) == "\"") i++
            next_one = substr(s, i + 1, 1)
            if (next_one == "" || next_one == " ") return i
        }
    return 0
}

function flush_story(    end, prompt, rest, completion, sentences) {
    end = sentence_end(story)
    prompt = substr(story, 1, end)
    rest = substr(story, end + 1)
    completion = ""
    for (sentences = 0; sentences < 2 && (end = sentence_end(rest)) > 0; sentences++) {
        if (length(completion) + end > 160) break
        completion = completion substr(rest, 1, end)
        rest = substr(rest, end + 1)
    }
    story = ""
    if (prompt == "" || completion == "" || length(prompt) > 160) return
    file = count++ % 10 == 9 ? heldout : train
    printf "{\"prompt\":%s,\"completion\":%s}\n", quoted(prompt), quoted(completion) > file
}

NF && previous && story != "" { flush_story() }
NF {
    gsub(/\342\200\234|\342\200\235/, "\"")
    gsub(/\342\200\230|\342\200\231/, "'")
    sub(/\r$/, "")
    story = story == "" ? $0 : story " " $0
}
{ previous = NF > 0 }
END { flush_story() }
