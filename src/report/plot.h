#ifndef PX_REPORT_PLOT_H
#define PX_REPORT_PLOT_H

#include "curves.h"

/* Draws every metric with gnuplot; svgs[i] belongs to curves->names[i] and is an <svg> element, or empty when it could
 * not be drawn. *drawn false: there is no gnuplot that works. */
px_status px_plot_all(const px_curves *curves, px_buf *svgs, bool *drawn);

#endif
