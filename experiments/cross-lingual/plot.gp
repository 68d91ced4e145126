set terminal svg size 640,400
set output "loss.svg"
set datafile separator ","
set xlabel "steps of 2,048 Chinese tokens"
set ylabel "held-out loss, nat a token"
set grid
plot "curves.csv" using 3:(strcol(2) eq "scratch" ? $4 : NaN) with points pt 6 title "from random weights", \
     "curves.csv" using 3:(strcol(2) eq "transferred" ? $4 : NaN) with points pt 7 title "after English"
