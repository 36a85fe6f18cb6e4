#include "commands.h"
#include "dsa/config_json.h"
#include "dsa/engines.h"
#include "dsa/file.h"
#include "dsa/json_writer.h"
#include "dsa/pattern_yaml.h"
#include "summary.h"

struct exporting {
	const struct dsa_cli_options *options;
	const struct dsa_log *log;
	struct dsa_arena arena;
	struct dsa_results file;
	struct dsa_export out;
	struct dsa_config_facts facts;
};

static void write_changes(struct dsa_json_writer *writer, const struct exporting *e)
{
	const char *path = e->options->config_json;
	struct dsa_text original = {0};
	if (!path)
		return;
	dsa_text_printf(&original, "%s.orig", path);
	dsa_json_object(writer, "config_json");
	dsa_json_put_text(writer, "path", path);
	dsa_json_put_text(writer, "original", original.data);
	dsa_json_put_int(writer, "layers", e->facts.layers);
	dsa_json_array(writer, "changed");
	dsa_json_put_text(writer, NULL, "indexer_types");
	if (e->facts.wrote_letters)
		dsa_json_put_text(writer, NULL, "index_topk_pattern");
	dsa_json_end(writer);
	dsa_json_end(writer);
	writer->text->failed |= original.failed;
	dsa_text_release(&original);
}

static void write_export(struct dsa_text *text, const struct exporting *e)
{
	const struct dsa_export *out = &e->out;
	struct dsa_json_writer writer;
	if (!e->options->json) {
		dsa_text_bytes(text, out->text.data, out->text.bytes);
		dsa_text_add(text, "\n");
		return;
	}
	dsa_json_writer_init(&writer, text, 1);
	dsa_json_object(&writer, NULL);
	dsa_json_put_text(&writer, "engine", e->options->engine);
	dsa_json_put_text(&writer, "pattern", e->file.pattern);
	dsa_json_put_text(&writer, "where", out->where);
	dsa_json_put_text(&writer, "text", out->text.data);
	dsa_json_put_text(&writer, "note", out->note);
	dsa_json_array(&writer, "warnings");
	for (int w = 0; w < out->warnings; w++)
		dsa_json_put_text(&writer, NULL, out->warning[w].text);
	dsa_json_end(&writer);
	write_changes(&writer, e);
	dsa_json_end(&writer);
}

/* What the checkpoint's own file says of its layers, which counts more than the pattern's file. */
static enum dsa_status read_config(struct exporting *e, struct dsa_error *err)
{
	char *text;
	size_t bytes;
	const char *path = e->options->config_json;
	enum dsa_status status = dsa_file_read(path, DSA_CONFIG_BYTES, &e->arena, &text, &bytes, err);
	if (status == DSA_E_MISSING)
		return DSA_E_INPUT;
	return status ? status : dsa_config_json_facts(&e->facts, text, bytes, path, e->file.architecture, err);
}

static enum dsa_status make_export(struct exporting *e, struct dsa_error *err)
{
	const struct dsa_cli_options *options = e->options;
	struct dsa_export_request request = {.stages = options->pp ? (int)options->pp : 1,
	                                     .replaces = options->config_json != NULL};
	enum dsa_status status = dsa_engine_parse(options->engine, &request.engine, err);
	if (!status)
		status = dsa_pattern_yaml_load(&e->file, options->operands[0], e->log, &e->arena, err);
	if (!status && options->config_json)
		status = read_config(e, err);
	if (status)
		return status;
	request.architecture = e->file.architecture;
	request.pattern = e->file.pattern;
	request.reference = e->file.reference;
	request.layers = options->config_json ? e->facts.layers : e->file.layers;
	request.mtp_layers = e->facts.mtp_layers;
	status = dsa_engine_export(&e->out, &request, err);
	if (status)
		return status;
	for (int w = 0; w < e->out.warnings; w++)
		dsa_log_line(e->log, DSA_LOG_WARN, "%s", e->out.warning[w].text);
	if (e->out.warnings && options->strict)
		return dsa_fail(err, DSA_E_USAGE, "--strict: %s", e->out.warning[0].text);
	dsa_log_line(e->log, DSA_LOG_INFO, "%s: %s", dsa_engine_title(request.engine), e->out.note);
	if (!options->config_json)
		return DSA_OK;
	const struct dsa_config_edit edit = {.pattern = e->file.pattern,
	                                     .architecture = e->file.architecture,
	                                     .letters = request.engine == DSA_ENGINE_TRTLLM};
	status = dsa_config_json_write(options->config_json, &edit, &e->facts, err);
	if (!status)
		dsa_log_line(e->log, DSA_LOG_INFO, "%s: the pattern of %d layers is in it; what it was is %s.orig",
		             options->config_json, e->facts.layers, options->config_json);
	return status;
}

static enum dsa_status export_pattern(const struct dsa_cli_options *options, const struct dsa_log *log,
                                      struct dsa_error *err)
{
	struct exporting e = {.options = options, .log = log};
	struct dsa_text text = {0};
	dsa_arena_init(&e.arena);
	enum dsa_status status = make_export(&e, err);
	if (!status) {
		write_export(&text, &e);
		status = dsa_print_text(&text, "the export", err);
	}
	dsa_export_release(&e.out);
	dsa_arena_release(&e.arena);
	return status;
}

int dsa_cmd_export(const struct dsa_cli_options *options, struct dsa_terminal *terminal)
{
	struct dsa_error err = {""};
	enum dsa_status status;
	if (options->operand_count != 1)
		status = dsa_fail(&err, DSA_E_USAGE, "export needs one PATTERN.yaml, found %d", options->operand_count);
	else if (!options->engine)
		status = dsa_fail(&err, DSA_E_USAGE, "export needs --engine; see 'dsacal help export'");
	else if (options->pp > 1024)
		status = dsa_fail(&err, DSA_E_USAGE, "--pp is %lld, expected at most 1024", (long long)options->pp);
	else
		status = export_pattern(options, &terminal->log, &err);
	return status ? dsa_terminal_fail(terminal, status, &err) : 0;
}
