#include "dry_run_plan.h"

#include <math.h>
#include <string.h>

#include "commands.h"
#include "dsa/json_writer.h"

static const double mib = 1048576.0;

static double journal_bytes(const struct dry_run *dry)
{
	return dry->probe.record_bytes * (double)dry->plan.records +
	       dry->probe.overlap_bytes * (double)dry->plan.overlaps;
}

/* Token-layers that refinement may take after a full trace. */
static double refine_most(const struct dry_run *dry)
{
	const struct dsa_cli_options *options = dry->session->options;
	const bool refines =
	    options->command == DSA_CMD_CALIBRATE && options->refine && strcmp(options->search, "naive") != 0;
	return refines ? options->refine_work * (double)dry->plan.token_layers : 0;
}

/* Up to the first question, and what the first visits of layers take beyond others. */
static double start(const struct dry_run *dry)
{
	return dry->start_seconds + dry->probe.first_visits;
}

/* Exact to the last layer, without refinement, which stops where it is told to. */
static double seconds(const struct dry_run *dry, bool most)
{
	return start(dry) + dsa_plan_seconds(&dry->plan, &dry->probe.rates, most);
}

/* Where nothing is expected of the search, it goes to the last layer. */
static double expected_seconds(const struct dry_run *dry, bool refined)
{
	if (!dry->expects)
		return seconds(dry, false);
	return start(dry) + dsa_expect_seconds(&dry->expectation, &dry->probe.rates, refined);
}

static double expected_refinement(const struct dry_run *dry)
{
	return expected_seconds(dry, true) - expected_seconds(dry, false);
}

/* As much per token-layer as is expected. */
static double most_refinement(const struct dry_run *dry)
{
	const double expected = dry->expects ? dry->expectation.refine_token_layers : 0;
	return expected > 0 ? expected_refinement(dry) / expected * refine_most(dry) : 0;
}

static int batches_of(const struct dsa_evaluator_shape *shape, int corpus, int split)
{
	int count = 0;
	for (int b = 0; b < shape->batches; b++)
		count += shape->batch[b].corpus == corpus && shape->batch[b].split == split;
	return count;
}

/* Named as in results.json where that has the same. */
static void write_corpora(struct dsa_json_writer *json, const struct dry_run *dry)
{
	dsa_json_array(json, "corpora");
	for (int c = 0; c < dry->shape->corpora; c++) {
		const struct dsa_spool_corpus *corpus = dsa_spool_corpus(dry->session->spool, c);
		dsa_json_object(json, NULL);
		dsa_json_put_text(json, "name", corpus->name);
		dsa_json_put_real(json, "weight", corpus->weight);
		dsa_json_put_int(json, "documents", corpus->documents);
		dsa_json_put_int(json, "documents_calibration", corpus->documents_in[DSA_CALIBRATION]);
		dsa_json_put_int(json, "documents_heldout", corpus->documents_in[DSA_HELDOUT]);
		dsa_json_put_int(json, "unscored", corpus->unscored);
		dsa_json_put_int(json, "cut", corpus->cut);
		dsa_json_put_int(json, "tokens", corpus->tokens);
		dsa_json_put_int(json, "cut_tokens", corpus->cut_tokens);
		dsa_json_put_int(json, "scored", corpus->scored);
		dsa_json_put_int(json, "scored_calibration", corpus->scored_in[DSA_CALIBRATION]);
		dsa_json_put_int(json, "scored_heldout", corpus->scored_in[DSA_HELDOUT]);
		dsa_json_put_int(json, "batches_calibration", batches_of(dry->shape, c, DSA_CALIBRATION));
		dsa_json_put_int(json, "batches_heldout", batches_of(dry->shape, c, DSA_HELDOUT));
		dsa_json_end(json);
	}
	dsa_json_end(json);
}

static void write_search(struct dsa_json_writer *json, const struct dry_run *dry)
{
	const struct dsa_plan *plan = &dry->plan;
	dsa_json_object(json, "search");
	dsa_json_put_int(json, "candidate_layers", plan->candidates);
	dsa_json_put_int(json, "evaluations", plan->evaluations);
	dsa_json_put_int(json, "token_layers_least", plan->token_layers);
	dsa_json_put_int(json, "token_layers_most", plan->most);
	dsa_json_put_int(json, "token_layers_naive", plan->naive);
	dsa_json_put_real(json, "refine_token_layers_most", floor(refine_most(dry)));
	if (dry->expects) {
		const struct dsa_expectation *expectation = &dry->expectation;
		dsa_json_put_int(json, "steps_expected", dry->course.steps);
		dsa_json_put_real(json, "raced_expected", dry->course.raced);
		dsa_json_put_real(json, "evaluations_expected", expectation->evaluations);
		dsa_json_put_real(json, "token_layers_expected", round(expectation->token_layers));
		dsa_json_put_real(json, "refine_token_layers_expected", round(expectation->refine_token_layers));
	}
	dsa_json_end(json);
}

/* While the model is opened nothing is kept yet. */
static size_t host_opening(const struct dry_run *dry)
{
	return dry->program + dry->on_host + dry->passing;
}

static size_t host_running(const struct dry_run *dry)
{
	return dry->program + dry->on_host + dry->kept;
}

static size_t host_bytes(const struct dry_run *dry)
{
	const size_t opening = host_opening(dry), running = host_running(dry);
	return opening > running ? opening : running;
}

static void write_memory(struct dsa_json_writer *json, const struct dry_run *dry)
{
	dsa_json_object(json, "memory");
	dsa_json_put_uint(json, "weights", dry->weights);
	dsa_json_put_uint(json, "workspace", dry->workspace);
	dsa_json_put_int(json, "candidates_together", dry->session->wave);
	dsa_json_put_uint(json, "candidates", dry->streams);
	dsa_json_put_uint(json, "program", dry->program);
	dsa_json_put_uint(json, "host", host_bytes(dry));
	dsa_json_put_uint(json, "host_opening", host_opening(dry));
	dsa_json_put_uint(json, "host_running", host_running(dry));
	if (dsa_session_on_gpu(dry->session)) {
		dsa_json_put_uint(json, "device", dry->device);
		dsa_json_put_uint(json, "kept_on_device", dry->kept_on_device);
	} else {
		dsa_json_put_null(json, "device");
		dsa_json_put_null(json, "kept_on_device");
	}
	dsa_json_put_uint(json, "limit", dry->limit);
	dsa_json_put_uint(json, "keys_and_references", dry->memory.kept);
	dsa_json_put_int(json, "batches", dry->shape->batches);
	dsa_json_put_int(json, "batches_kept", dry->batches_kept);
	dsa_json_put_uint(json, "state_pool", dry->memory.pool);
	dsa_json_put_uint(json, "state_of_one_layer", dry->memory.state);
	dsa_json_put_int(json, "base_layers_kept", dry->base_states);
	dsa_json_put_int(json, "candidate_layers_kept", dry->candidate_states);
	dsa_json_end(json);
}

static void write_time(struct dsa_json_writer *json, const struct dry_run *dry)
{
	const struct probe *probe = &dry->probe;
	if (!probe->done) {
		dsa_json_put_null(json, "seconds");
		return;
	}
	dsa_json_object(json, "seconds");
	dsa_json_put_real(json, "start", start(dry));
	dsa_json_put_real(json, "load", dry->load_seconds);
	dsa_json_put_real(json, "expected", expected_seconds(dry, true));
	dsa_json_put_real(json, "refine_expected", expected_refinement(dry));
	dsa_json_put_real(json, "refine_most", most_refinement(dry));
	dsa_json_put_real(json, "least", seconds(dry, false));
	dsa_json_put_real(json, "most", seconds(dry, true));
	dsa_json_put_int(json, "probe_batch", probe->batch);
	dsa_json_put_real(json, "probe", probe->seconds);
	dsa_json_put_real(json, "per_token_layer_whole", probe->rates.whole);
	dsa_json_put_real(json, "per_token_layer_full", probe->rates.full);
	dsa_json_put_real(json, "per_token_layer_shared", probe->rates.shared);
	dsa_json_put_real(json, "per_token_head", probe->rates.head);
	dsa_json_end(json);
}

void dsa_dry_run_json(struct dsa_text *text, const struct dry_run *dry)
{
	struct dsa_json_writer json;
	const struct dsa_cli_options *options = dry->session->options;
	dsa_json_writer_init(&json, text, 2);
	dsa_json_object(&json, NULL);
	dsa_json_put_int(&json, "schema", 1);
	dsa_json_put_text(&json, "command", dsa_cli_commands[options->command].name);
	write_corpora(&json, dry);
	if (options->command == DSA_CMD_CALIBRATE)
		write_search(&json, dry);
	write_memory(&json, dry);
	dsa_json_object(&json, "disk");
	dsa_json_put_uint(&json, "tokens", dry->spool_bytes);
	dsa_json_put_real(&json, "journal", dry->probe.done ? ceil(journal_bytes(dry)) : NAN);
	dsa_json_put_uint(&json, "spilled_states_most", dry->spill);
	dsa_json_end(&json);
	write_time(&json, dry);
	dsa_json_end(&json);
}

static void add_mib(struct dsa_text *text, double bytes)
{
	dsa_text_printf(text, "%.1f MiB", bytes / 1048576.0);
}

static void add_duration(struct dsa_text *text, double s)
{
	if (s < 120)
		dsa_text_printf(text, "%.1f s", s);
	else if (s < 7200)
		dsa_text_printf(text, "%.0f min", s / 60);
	else
		dsa_text_printf(text, "%.1f h", s / 3600);
}

static void add_corpora(struct dsa_text *text, const struct dry_run *dry)
{
	for (int c = 0; c < dry->shape->corpora; c++) {
		const struct dsa_spool_corpus *corpus = dsa_spool_corpus(dry->session->spool, c);
		dsa_text_printf(text, "%-13s ", c ? "" : "documents");
		dsa_text_utf8(text, corpus->name);
		dsa_text_printf(text, ": %d, %lld tokens; %d without a scored token, %d cut by %lld tokens\n",
		                corpus->documents, (long long)corpus->tokens, corpus->unscored, corpus->cut,
		                (long long)corpus->cut_tokens);
		for (int split = 0; split < DSA_SPLITS; split++)
			if (corpus->documents_in[split])
				dsa_text_printf(text, "%-13s   %s: %d documents, %lld scored tokens, %d batches\n", "",
				                split == DSA_HELDOUT ? "held out" : "calibration",
				                corpus->documents_in[split], (long long)corpus->scored_in[split],
				                batches_of(dry->shape, c, split));
	}
}

static void add_memory(struct dsa_text *text, const struct dry_run *dry)
{
	dsa_text_printf(text, "%-13s ", "memory");
	add_mib(text, (double)dry->weights);
	dsa_text_add(text, " weights, ");
	add_mib(text, (double)dry->workspace);
	dsa_text_add(text, " workspace, ");
	add_mib(text, (double)dry->streams);
	dsa_text_printf(text, " for %d patterns at a time\n%-13s of --host-memory ", dry->session->wave, "");
	add_mib(text, (double)dry->limit);
	dsa_text_add(text, ": ");
	add_mib(text, (double)dry->memory.kept);
	dsa_text_printf(text, " for keys and references of %d of %d batches, ", dry->batches_kept, dry->shape->batches);
	add_mib(text, (double)dry->memory.pool);
	dsa_text_add(text, " for states");
	if (dry->session->options->command == DSA_CMD_CALIBRATE) {
		dsa_text_add(text, " of ");
		add_mib(text, (double)dry->memory.state);
		dsa_text_printf(text, " per layer,\n%-13s kept in front of %d layers of the base, %d of candidates", "",
		                dry->base_states, dry->candidate_states);
	}
	dsa_text_add(text, "\n");
}

/* What the expectation supposes. */
static void add_course(struct dsa_text *text, const struct dry_run *dry)
{
	const struct dsa_course *course = &dry->course;
	dsa_text_printf(text, "%-13s expected: %d of %d steps", "", course->steps, dry->plan.candidates);
	if (course->raced < 1)
		dsa_text_printf(text, ", races that ask for %.2f of their questions", course->raced);
	if (dry->expectation.refine_token_layers > 0) {
		dsa_text_add(text, ", ");
		add_duration(text, expected_refinement(dry));
		dsa_text_add(text, " of it refinement, which may take ");
		add_duration(text, most_refinement(dry));
	}
	dsa_text_add(text, "\n");
}

static void add_time(struct dsa_text *text, const struct dry_run *dry)
{
	bool range = dry->plan.suffix_most > dry->plan.suffix_least;
	dsa_text_printf(text, "%-13s ", "time");
	if (!dry->probe.done) {
		dsa_text_add(text, "not estimated\n");
		return;
	}
	dsa_text_add(text, "about ");
	add_duration(text, expected_seconds(dry, true));
	dsa_text_printf(text, "; from batch %d, measured in ", dry->probe.batch);
	add_duration(text, dry->probe.seconds);
	dsa_text_add(text, "\n");
	if (dry->expects)
		add_course(text, dry);
	if (!range)
		return;
	dsa_text_printf(text, "%-13s exact to the last layer: ", "");
	add_duration(text, seconds(dry, false));
	dsa_text_add(text, " with every state kept, ");
	add_duration(text, seconds(dry, true));
	dsa_text_add(text, " with none\n");
}

void dsa_dry_run_text(struct dsa_text *text, const struct dry_run *dry)
{
	const struct dsa_plan *plan = &dry->plan;
	add_corpora(text, dry);
	if (dry->session->options->command == DSA_CMD_CALIBRATE) {
		dsa_text_printf(text,
		                "%-13s %d of %d layers can be flipped; a full trace asks for %lld patterns, a budget "
		                "that binds for fewer\n",
		                "search", plan->candidates, dry->shape->layers, (long long)plan->evaluations);
		dsa_text_printf(text, "%-13s %.3g token-layers with every state kept, %.3g with none, %.3g naive\n",
		                "work", (double)plan->token_layers, (double)plan->most, (double)plan->naive);
		if (refine_most(dry) > 0)
			dsa_text_printf(text, "%-13s up to %.3g token-layers more\n", "refinement", refine_most(dry));
	}
	add_memory(text, dry);
	dsa_text_printf(text, "%-13s %.1f MiB of the host at most, %.1f MiB of it kept, %.1f MiB the program itself\n",
	                "", (double)host_bytes(dry) / mib, (double)dry->kept / mib, (double)dry->program / mib);
	if (dsa_session_on_gpu(dry->session))
		dsa_text_printf(text, "%-13s %.1f MiB of the device at most, %.1f MiB of it kept\n", "",
		                (double)dry->device / mib, (double)dry->kept_on_device / mib);
	dsa_text_printf(text, "%-13s ", "disk");
	add_mib(text, (double)dry->spool_bytes);
	dsa_text_add(text, " tokens");
	if (dry->probe.done && dry->session->options->command != DSA_CMD_EVALUATE) {
		dsa_text_add(text, ", about ");
		add_mib(text, journal_bytes(dry));
		dsa_text_add(text, " journal");
	}
	if (dry->spill) {
		dsa_text_add(text, ", at most ");
		add_mib(text, (double)dry->spill);
		dsa_text_add(text, " of states");
	}
	dsa_text_add(text, "\n");
	add_time(text, dry);
}
