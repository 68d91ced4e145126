# curves.csv: seed, start, step, loss. Steps to each loss, by a straight line between two evaluations; mean over seeds.
{
    key = $1 SUBSEP $2
    seeds[$1]
    for (loss = 80; loss >= 48; loss -= 4) {
        level = loss / 10
        if (!((key, loss) in steps) && $4 <= level)
            steps[key, loss] = (key in last) ? before[key] + ($3 - before[key]) * (last[key] - level) / (last[key] - $4) : $3
    }
    last[key] = $4
    before[key] = $3
}
END {
    print "held-out loss   steps from English   steps from scratch   saved"
    for (loss = 80; loss >= 48; loss -= 4) {
        n = a = b = square = 0
        for (seed in seeds) {
            if (!((seed, "transferred", loss) in steps) || !((seed, "scratch", loss) in steps)) continue
            n++
            a += steps[seed, "transferred", loss]
            b += steps[seed, "scratch", loss]
            saved = 1 - steps[seed, "transferred", loss] / steps[seed, "scratch", loss]
            sum = (n == 1 ? 0 : sum) + saved
            square += saved * saved
        }
        if (!n) continue
        spread = n > 1 && square / n > (sum / n) ^ 2 ? sqrt((square / n - (sum / n) ^ 2) * n / (n - 1)) : 0
        printf "%13.1f   %18.1f   %18.1f   %.0f %% (std %.0f, %d seeds)\n", loss / 10, a / n, b / n, 100 * sum / n, 100 * spread, n
    }
}
