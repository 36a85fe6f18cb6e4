#include "dsa/svg.h"

#include <math.h>
#include <stdio.h>

#include "svg_parts.h"

/* Plain values, no custom properties: viewers outside browsers know no var(). */
static const char style[] =
    ".dsa{font-family:system-ui,-apple-system,\"Segoe UI\",Roboto,\"DejaVu Sans\",sans-serif;font-size:12px}"
    ".dsa text{fill:#1d2328;font-variant-numeric:tabular-nums}"
    ".dsa .soft{fill:#5b6670}"
    ".dsa .small{font-size:11px}"
    ".dsa .strong{font-weight:600}"
    ".dsa .paper{fill:#ffffff}"
    ".dsa .grid{stroke:#e3e7eb;stroke-width:1}"
    ".dsa .axis{stroke:#8a949e;stroke-width:1}"
    ".dsa .full{fill:#1f5f9e}"
    ".dsa .shared{fill:#dbe5ee;stroke:#5f7488;stroke-width:1}"
    ".dsa .on-full{fill:#ffffff;font-size:11px}"
    ".dsa .on-shared{fill:#33404c;font-size:11px}"
    ".dsa .tiny{font-size:9px}"
    ".dsa .chain{stroke:#1f5f9e;stroke-width:1.75;fill:none}"
    ".dsa .point{fill:#1f5f9e}"
    ".dsa .error{stroke:#1f5f9e;stroke-width:1}"
    ".dsa .held{fill:#ffffff;stroke:#b8500f;stroke-width:1.5}"
    ".dsa .other{fill:#5b6670}"
    ".dsa .best{stroke:#1d2328;stroke-width:1.5;fill:none}"
    ".dsa .emitted{fill:none;stroke:#1f5f9e;stroke-width:2}"
    ".dsa .budget{stroke:#a1262d;stroke-width:1.5;stroke-dasharray:6 4}"
    ".dsa .on-budget{fill:#a1262d}"
    ".dsa .noise{fill:#eceff2}"
    ".dsa .unknown{fill:#c9ced3}"
    ".dsa .box-under{fill:none;stroke:#000000;stroke-width:3;stroke-opacity:.55}"
    ".dsa .box{fill:none;stroke:#ffffff;stroke-width:1.5}"
    ".dsa .cursor-under{fill:none;stroke:#000000;stroke-width:5}"
    ".dsa .cursor{fill:none;stroke:#ff5db1;stroke-width:2.5}"
    "@media (prefers-color-scheme:dark){"
    ".dsa text{fill:#e4e8eb}"
    ".dsa .soft{fill:#9ba6b0}"
    ".dsa .paper{fill:#14181b}"
    ".dsa .grid{stroke:#2a3137}"
    ".dsa .axis{stroke:#6d7882}"
    ".dsa .full{fill:#5aa2e6}"
    ".dsa .shared{fill:#2c3844;stroke:#8195a8}"
    ".dsa .on-full{fill:#0d1a26}"
    ".dsa .on-shared{fill:#cfd7de}"
    ".dsa .chain{stroke:#5aa2e6}"
    ".dsa .point{fill:#5aa2e6}"
    ".dsa .error{stroke:#5aa2e6}"
    ".dsa .held{fill:#14181b;stroke:#f0985a}"
    ".dsa .other{fill:#9ba6b0}"
    ".dsa .best{stroke:#e4e8eb}"
    ".dsa .emitted{stroke:#5aa2e6}"
    ".dsa .budget{stroke:#ef7b80}"
    ".dsa .on-budget{fill:#ef7b80}"
    ".dsa .noise{fill:#1f252a}"
    ".dsa .unknown{fill:#444c54}"
    "}";

const char *dsa_svg_style(void)
{
	return style;
}

void svg_open(struct dsa_text *text, int height, const char *title, bool standalone)
{
	dsa_text_add(text, "<svg class=\"dsa\" role=\"img\"");
	if (standalone)
		dsa_text_add(text, " xmlns=\"http://www.w3.org/2000/svg\"");
	dsa_text_printf(text, " width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" aria-label=\"", SVG_WIDTH, height,
	                SVG_WIDTH, height);
	dsa_text_markup(text, title);
	dsa_text_add(text, "\">\n");
	if (standalone)
		dsa_text_printf(text, "<style>%s</style>\n<rect class=\"paper\" width=\"%d\" height=\"%d\"/>\n", style,
		                SVG_WIDTH, height);
}

void svg_close(struct dsa_text *text)
{
	dsa_text_add(text, "</svg>\n");
}

void svg_label(struct dsa_text *text, double x, double y, const char *class, const char *anchor, const char *content)
{
	dsa_text_printf(text, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\" text-anchor=\"%s\">", x, y, class, anchor);
	dsa_text_markup_cut(text, content, 60);
	dsa_text_add(text, "</text>\n");
}

void svg_line(struct dsa_text *text, double x1, double y1, double x2, double y2, const char *class)
{
	dsa_text_printf(text, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"%s\"/>\n", x1, y1, x2, y2,
	                class);
}

void svg_layer_ticks(struct dsa_text *text, double x, double y, double width, int layers)
{
	int every = width >= 18 ? 1 : width >= 9 ? 2 : width >= 6 ? 5 : width >= 2.5 ? 10 : 50;
	char digits[16];
	for (int l = 0; l < layers; l += every) {
		snprintf(digits, sizeof digits, "%d", l);
		svg_label(text, x + (l + 0.5) * width, y, "soft small", "middle", digits);
	}
}

void svg_log_take(struct svg_log_axis *axis, double value)
{
	if (!(value > 0) || !isfinite(value))
		return;
	double power = log10(value);
	axis->low = fmin(axis->low, power);
	axis->high = fmax(axis->high, power);
}

void svg_log_settle(struct svg_log_axis *axis, double bottom, double top)
{
	if (!(axis->low <= axis->high)) {
		axis->low = -4;
		axis->high = 0;
	}
	/* The slack keeps marks off the frame. */
	axis->low = floor(axis->low - 0.08);
	axis->high = ceil(axis->high + 0.05);
	if (axis->high - axis->low > 12)
		axis->low = axis->high - 12;
	axis->bottom = bottom;
	axis->top = top;
}

double svg_log_y(const struct svg_log_axis *axis, double value)
{
	double power = value > 0 ? log10(value) : axis->low;
	power = fmin(fmax(power, axis->low), axis->high);
	return axis->bottom + (power - axis->low) / (axis->high - axis->low) * (axis->top - axis->bottom);
}

void svg_log_draw(struct dsa_text *text, const struct svg_log_axis *axis, double left, double right)
{
	double decades = axis->high - axis->low;
	char digits[32];
	for (int power = (int)axis->low; power <= (int)axis->high; power++) {
		double value = pow(10, power), y = svg_log_y(axis, value);
		svg_line(text, left, y, right, y, "grid");
		if (decades > 8 && (power & 1))
			continue;
		if (power >= -3 && power <= 3)
			snprintf(digits, sizeof digits, "%.*f", power < 0 ? -power : 0, value);
		else
			snprintf(digits, sizeof digits, "1e%d", power);
		svg_label(text, left - 8, y + 4, "soft small", "end", digits);
	}
	svg_line(text, left, axis->bottom, right, axis->bottom, "axis");
}
