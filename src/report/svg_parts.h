/* svg_parts.h: what the figures share: frame, text, log axis. */
#ifndef DSA_SVG_PARTS_H
#define DSA_SVG_PARTS_H

#include <stdbool.h>

#include "dsa/text.h"

enum { SVG_WIDTH = 860, SVG_NAME = 18 /* code points of a name that a label shows */ };

void svg_open(struct dsa_text *text, int height, const char *title, bool standalone);
void svg_close(struct dsa_text *text);
/* anchor: "start", "middle", "end". The content is escaped. */
void svg_label(struct dsa_text *text, double x, double y, const char *class, const char *anchor, const char *content);
void svg_line(struct dsa_text *text, double x1, double y1, double x2, double y2, const char *class);
/* Layer numbers under cells of `width`, as many as fit. */
void svg_layer_ticks(struct dsa_text *text, double x, double y, double width, int layers);

/* A logarithmic axis from 10^low to 10^high over the pixels bottom … top. */
struct svg_log_axis {
	double low, high, bottom, top;
};

/* Feeds a value into the range, NaN and ≤ 0 ignored. Start with {INFINITY, -INFINITY}. */
void svg_log_take(struct svg_log_axis *axis, double value);
/* Widens the range to whole decades, at least one, at most twelve. */
void svg_log_settle(struct svg_log_axis *axis, double bottom, double top);
double svg_log_y(const struct svg_log_axis *axis, double value); /* clamped to the axis */
/* Grid lines and labels, from left to right. */
void svg_log_draw(struct dsa_text *text, const struct svg_log_axis *axis, double left, double right);

#endif
