#include "dsa/html.h"

#include <nettle/base64.h>
#include <string.h>

#include "dsa/gain.h"
#include "dsa/hash.h"
#include "dsa/svg.h"
#include "html_parts.h"

enum { POLICY_BYTES = BASE64_ENCODE_RAW_LENGTH(DSA_HASH_BYTES) + 1 };

/* How a policy names a text. */
static void policy_hash(const char *content, size_t bytes, char out[POLICY_BYTES])
{
	uint8_t digest[DSA_HASH_BYTES];
	dsa_hash_bytes(content, bytes, digest);
	base64_encode_raw(out, DSA_HASH_BYTES, digest);
	out[POLICY_BYTES - 1] = 0;
}

/* The page's only style sheet, and the policy that allows it and the script by their hashes. */
static void write_head(struct dsa_text *text, const struct dsa_results *results)
{
	struct dsa_text style = {0};
	char style_hash[POLICY_BYTES], script_hash[POLICY_BYTES];
	dsa_text_add(&style, html_style);
	dsa_text_add(&style, dsa_svg_style());
	text->failed |= style.failed;
	if (!style.failed) {
		policy_hash(style.data, style.bytes, style_hash);
		policy_hash(html_script, strlen(html_script), script_hash);
		dsa_text_add(text, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n");
		dsa_text_printf(text,
		                "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
		                "'sha256-%s'; script-src 'sha256-%s'; base-uri 'none'; form-action 'none'\"/>\n",
		                style_hash, script_hash);
		dsa_text_add(text, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
		                   "<meta name=\"referrer\" content=\"no-referrer\"/>\n<title>");
		dsa_text_markup_cut(text, results->model_name, 80);
		dsa_text_add(text, ": which layers keep their indexer</title>\n<style>");
		dsa_text_bytes(text, style.data, style.bytes);
		dsa_text_add(text, "</style>\n</head>\n");
	}
	dsa_text_release(&style);
}

static void write_contents(struct dsa_text *text, const struct dsa_results *results)
{
	struct dsa_gain gain;
	bool searched = results->trace.count > 0;
	const struct {
		const char *id, *name;
		bool there;
	} sections[] = {
	    {"pattern", "Pattern", true},
	    {"quality", "Quality against indexers kept", true},
	    {"sensitivity", "Sensitivity", searched && results->trace.steps[0].candidate_count > 0},
	    {"overlap", "Overlap", results->overlap.corpora > 0},
	    {"corpora", "Corpora", results->corpus_count > 0},
	    {"positions", "By position", results->quality.positions > 0},
	    {"gain", "Expected gain", dsa_gain_at(results, results->topk, &gain)},
	    {"engines", "For the serving engine", true},
	    {"provenance", "Provenance", true},
	};
	dsa_text_add(text, "<nav aria-label=\"Sections\">\n<ul>\n");
	for (size_t i = 0; i < sizeof sections / sizeof *sections; i++)
		if (sections[i].there)
			dsa_text_printf(text, "<li><a href=\"#%s\">%s</a></li>\n", sections[i].id, sections[i].name);
	dsa_text_add(text, "</ul>\n</nav>\n");
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
	dsa_text_add(text, "</p>\n</header>\n<main>\n<div class=\"verdict\" id=\"verdict\">\n<p>");
	dsa_verdict_write(&verdict, results);
	text->failed |= verdict.failed;
	dsa_text_markup(text, verdict.data);
	dsa_text_release(&verdict);
	dsa_text_add(text, "</p>\n");
	if (*dsa_verdict_reason(results))
		dsa_text_printf(text, "<p class=\"soft\">%s</p>\n", dsa_verdict_reason(results));
	dsa_text_add(text, "</div>\n");
	html_tiles(text, results);
	write_contents(text, results);
}

static void write_pattern(struct dsa_text *text, const struct dsa_results *results)
{
	html_section(text, "pattern", "Pattern");
	html_figure_begin(text, NULL, "Strip of F and S layers");
	dsa_svg_pattern(text, results, false);
	dsa_text_add(text, "</div>\n<pre>");
	dsa_text_markup(text, results->pattern);
	dsa_text_add(text, "</pre>\n");
	html_baselines(text, results);
	dsa_text_add(text,
	             "<p class=\"soft\">Letters and sources of every layer are in pattern.csv.</p>\n</section>\n");
}

static void write_curve(struct dsa_text *text, const struct dsa_results *results)
{
	html_section(text, "quality", "Quality against indexers kept");
	dsa_text_add(text, "<p class=\"soft\">Each point is one flip of the search, measured on every calibration "
	                   "document; the search never sees the held-out ones. Lower is better.</p>\n");
	html_figure_begin(text, NULL, "Quality against indexers kept");
	dsa_svg_curve(text, results, false);
	dsa_text_add(text, "</div>\n");
	html_steps(text, results);
	html_candidates(text, results);
	html_refined(text, results);
	dsa_text_add(text, "<p class=\"soft\">The points of the figure are in curve.csv, the candidates in "
	                   "trace.csv.</p>\n</section>\n");
}

void dsa_html_write(struct dsa_text *text, const struct dsa_results *results)
{
	write_head(text, results);
	write_top(text, results);
	write_pattern(text, results);
	write_curve(text, results);
	html_sensitivity(text, results);
	html_overlap(text, results);
	html_corpora(text, results);
	html_positions(text, results);
	html_gain(text, results);
	html_engines(text, results);
	html_provenance(text, results);
	dsa_text_add(text,
	             "</main>\n<footer><p>All figures compare next-token distributions of this model with and without "
	             "sharing, over the whole vocabulary, at positions past K. ± is one standard error over "
	             "documents.</p></footer>\n<script>");
	dsa_text_add(text, html_script);
	dsa_text_add(text, "</script>\n</body>\n</html>\n");
}
