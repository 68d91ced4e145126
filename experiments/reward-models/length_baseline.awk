# Accuracy of "the longer side wins", of pairs as lines of JSON; equally long sides count half. Lengths are bytes of
# the JSON.
function side(name,    at, s, i) {
    at = index($0, "\"" name "\":")
    s = substr($0, at + length(name) + 3)
    sub(/^ *"/, "", s)
    for (i = 1; i <= length(s); i++) {
        if (substr(s, i, 1) == "\\") i++
        else if (substr(s, i, 1) == "\"") return i - 1
    }
    return length(s)
}
{ c = side("chosen"); r = side("rejected"); longer += c > r ? 1 : c == r ? 0.5 : 0 }
END { printf "%d pairs, the longer side is preferred in %.1f %%\n", NR, NR ? 100 * longer / NR : 0 }
