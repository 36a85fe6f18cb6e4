#include "dsa/html.h"

#include <nettle/base64.h>
#include <string.h>

#include "dsa/hash.h"
#include "dsa/pattern.h"
#include "dsa/svg.h"
#include "html_parts.h"

/* Tooltips of the heatmaps cost about 75 bytes a cell; past this many cells the page goes without the rest. */
enum { MOST_TITLED_CELLS = 13000, MOST_DRAWN_CELLS = 26000 };

static const char page_style[] =
    ":root{color-scheme:light dark}"
    "*{box-sizing:border-box}"
    "body{margin:0;background:#ffffff;color:#1d2328;"
    "font:15px/1.55 system-ui,-apple-system,\"Segoe UI\",Roboto,\"DejaVu Sans\",sans-serif}"
    "main,header,footer{max-width:940px;margin:0 auto;padding:0 24px}"
    "header{padding-top:32px}header p{max-width:none}"
    "h1{font-size:26px;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}"
    "h2{font-size:18px;margin:44px 0 4px;padding-top:16px;border-top:1px solid #e3e7eb}"
    "h3{font-size:14px;margin:20px 0 6px}"
    "p{margin:6px 0 12px;max-width:76ch}"
    ".soft{color:#5b6670}"
    ".verdict{font-size:17px;line-height:1.5;margin:18px 0;padding:14px 18px;background:#f4f7fa;"
    "border-left:4px solid #1f5f9e;max-width:none}"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:18px 0 0}"
    ".tiles div{border:1px solid #e3e7eb;border-radius:6px;padding:10px 14px}"
    ".tiles dt{font-size:12px;color:#5b6670}"
    ".tiles dd{margin:0;font-size:21px;font-weight:600;font-variant-numeric:tabular-nums}"
    ".tiles dd span{display:block;font-size:12px;font-weight:400;color:#5b6670}"
    ".wide{overflow-x:auto;margin:8px 0 14px}"
    ".wide:focus-visible{outline:2px solid #1f5f9e;outline-offset:2px}"
    ".wide svg{display:block;max-width:100%;min-width:620px;height:auto}"
    "table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums;min-width:100%}"
    "th,td{padding:5px 12px 5px 0;text-align:right;border-bottom:1px solid #e3e7eb;white-space:nowrap}"
    "th{font-weight:600;color:#5b6670;vertical-align:bottom}"
    "th:first-child,td:first-child,th.left,td.left{text-align:left}"
    "td.name{white-space:normal;overflow-wrap:anywhere;min-width:9em;max-width:22em}"
    "tr.emitted td{font-weight:600;background:#eaf2fa}"
    "tr.past td{color:#5b6670}"
    "code,pre{font-family:ui-monospace,\"SF Mono\",Menlo,Consolas,\"DejaVu Sans Mono\",monospace;font-size:12.5px}"
    "pre{background:#f4f7fa;padding:10px 12px;margin:4px 0 10px;white-space:pre-wrap;overflow-wrap:anywhere;"
    "border-radius:4px}"
    "code{overflow-wrap:anywhere}"
    ".warn{color:#8a4b00;font-size:13px;margin:-4px 0 10px}"
    "dl.facts{display:grid;grid-template-columns:max-content 1fr;gap:3px 18px;font-size:13px;margin:8px 0}"
    "dl.facts dt{color:#5b6670}"
    "dl.facts dd{margin:0;overflow-wrap:anywhere;min-width:0}"
    "details summary{cursor:pointer;margin:8px 0}"
    "footer{padding:32px 24px 40px;font-size:12px;color:#5b6670}"
    "@media (max-width:520px){main,header,footer{padding-left:14px;padding-right:14px}"
    "h1{font-size:21px}.verdict{font-size:15px;padding:12px 14px}"
    "dl.facts{grid-template-columns:1fr;gap:0}dl.facts dd{margin-bottom:6px}}"
    "@media (prefers-color-scheme:dark){"
    "body{background:#14181b;color:#e4e8eb}"
    "h2,.tiles div,th,td{border-color:#2a3137}"
    ".soft,.tiles dt,.tiles dd span,th,tr.past td,dl.facts dt,footer{color:#9ba6b0}"
    ".verdict,pre{background:#1b2126}"
    ".verdict{border-color:#5aa2e6}"
    ".wide:focus-visible{outline-color:#5aa2e6}"
    "tr.emitted td{background:#1a2b3b}"
    ".warn{color:#e0a458}}"
    "@media print{main,header,footer{max-width:none}.wide{overflow:visible}.wide svg{min-width:0}"
    "section,figure,tr{break-inside:avoid}}";

/* The page's only style sheet, and its hash for the policy. */
static void write_head(struct dsa_text *text, const struct dsa_results *results)
{
	struct dsa_text style = {0};
	uint8_t digest[DSA_HASH_BYTES];
	char encoded[BASE64_ENCODE_RAW_LENGTH(DSA_HASH_BYTES) + 1] = {0};
	dsa_text_add(&style, page_style);
	dsa_text_add(&style, dsa_svg_style());
	text->failed |= style.failed;
	if (!style.failed) {
		dsa_hash_bytes(style.data, style.bytes, digest);
		base64_encode_raw(encoded, DSA_HASH_BYTES, digest);
		dsa_text_add(text, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n");
		dsa_text_printf(text,
		                "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
		                "'sha256-%s'; base-uri 'none'; form-action 'none'\"/>\n",
		                encoded);
		dsa_text_add(text, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
		                   "<meta name=\"referrer\" content=\"no-referrer\"/>\n<title>");
		dsa_text_markup_cut(text, results->model_name, 80);
		dsa_text_add(text, ": which layers keep their indexer</title>\n<style>");
		dsa_text_bytes(text, style.data, style.bytes);
		dsa_text_add(text, "</style>\n</head>\n");
	}
	dsa_text_release(&style);
}

static void write_top(struct dsa_text *text, const struct dsa_results *results)
{
	struct dsa_text verdict = {0};
	dsa_text_add(text, "<body>\n<header>\n<h1>");
	html_name(text, results->model_name);
	dsa_text_add(text, "</h1>\n<p class=\"soft\">");
	html_name(text, results->architecture);
	dsa_text_printf(text, " · %d layers · %d positions selected per query · calibrated with dsacal ",
	                results->layers, results->topk);
	dsa_text_markup(text, results->provenance.version);
	dsa_text_add(text, " · ");
	dsa_text_markup(text, results->provenance.date);
	dsa_text_add(text, "</p>\n</header>\n<main>\n<p class=\"verdict\">");
	dsa_verdict_write(&verdict, results);
	text->failed |= verdict.failed;
	dsa_text_markup(text, verdict.data);
	dsa_text_release(&verdict);
	dsa_text_add(text, "</p>\n");
	html_tiles(text, results);
}

static void figure_begin(struct dsa_text *text, const char *name)
{
	dsa_text_add(text, "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"");
	dsa_text_markup_cut(text, name, 120);
	dsa_text_add(text, "\">\n");
}

static void write_pattern(struct dsa_text *text, const struct dsa_results *results)
{
	dsa_text_add(text, "<section>\n<h2>Pattern</h2>\n");
	figure_begin(text, "Pattern, scrolls sideways");
	dsa_svg_pattern(text, results, false);
	dsa_text_add(text, "</div>\n<pre>");
	dsa_text_markup(text, results->pattern);
	dsa_text_add(text, "</pre>\n");
	html_baselines(text, results);
	dsa_text_add(text, "</section>\n");
}

static void write_curve(struct dsa_text *text, const struct dsa_results *results)
{
	dsa_text_add(
	    text, "<section>\n<h2>Quality against indexers kept</h2>\n"
		  "<p class=\"soft\">Each point is one flip of the search, measured on every calibration document; the "
		  "search never sees the held-out ones. Lower is better.</p>\n");
	figure_begin(text, "Quality curve, scrolls sideways");
	dsa_svg_curve(text, results, false);
	dsa_text_add(text, "</div>\n");
	html_steps(text, results);
	html_refined(text, results);
	dsa_text_add(text, "</section>\n");
	if (!results->trace.count || !results->trace.steps[0].candidate_count)
		return;
	dsa_text_add(text, "<section>\n<h2>Sensitivity of each layer</h2>\n"
	                   "<p class=\"soft\">Mean KL when this layer alone shares. Strong bars are kept full in the "
	                   "pattern, faint ones share.</p>\n");
	figure_begin(text, "Sensitivity by layer, scrolls sideways");
	dsa_svg_sensitivity(text, results, false);
	dsa_text_add(text, "</div>\n</section>\n");
}

static void write_overlap(struct dsa_text *text, const struct dsa_results *results)
{
	const struct dsa_overlap *overlap = &results->overlap;
	int64_t cells = (int64_t)overlap->layers * overlap->layers, drawn = 0;
	if (!overlap->corpora)
		return;
	dsa_text_add(
	    text, "<section>\n<h2>Overlap of selections</h2>\n"
		  "<p class=\"soft\">|T<sub>i</sub> ∩ T<sub>j</sub>| / K, mean over scored positions. A diagnosis, not "
		  "the judge: patterns are chosen by the output alone. Boxes are the segments that one indexer "
		  "serves.</p>\n");
	for (int c = 0; c < overlap->corpora; c++) {
		if (drawn + cells > MOST_DRAWN_CELLS) {
			dsa_text_add(text, "<p class=\"soft\">Further corpora are in overlap.csv.</p>\n");
			break;
		}
		dsa_text_add(text, c ? "<details>\n<summary>" : "<details open=\"open\">\n<summary>");
		html_name(text, results->corpora[c].name);
		dsa_text_add(text, "</summary>\n");
		figure_begin(text, "Overlap matrix, scrolls sideways");
		dsa_svg_overlap(text, results, c, drawn + cells <= MOST_TITLED_CELLS, false);
		dsa_text_add(text, "</div>\n</details>\n");
		drawn += cells;
	}
	dsa_text_add(text, "</section>\n");
}

void dsa_html_write(struct dsa_text *text, const struct dsa_results *results)
{
	write_head(text, results);
	write_top(text, results);
	write_pattern(text, results);
	write_curve(text, results);
	write_overlap(text, results);
	html_corpora(text, results);
	html_positions(text, results);
	html_gain(text, results);
	html_engines(text, results);
	html_provenance(text, results);
	dsa_text_add(text,
	             "</main>\n<footer>All figures compare next-token distributions of this model with and without "
	             "sharing, over the whole vocabulary, at positions past K. ± is one standard error over "
	             "documents.</footer>\n</body>\n</html>\n");
}
