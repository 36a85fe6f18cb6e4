#include <math.h>

#include "dsa/gain.h"
#include "results_gain.h"

static const struct {
	const char *name;
	size_t offset;
} seconds[] = {
    {"dense_full", offsetof(struct dsa_layer_costs, dense_full)},
    {"dense_shared", offsetof(struct dsa_layer_costs, dense_shared)},
    {"moe_full", offsetof(struct dsa_layer_costs, moe_full)},
    {"moe_shared", offsetof(struct dsa_layer_costs, moe_shared)},
};
enum { SECONDS = sizeof seconds / sizeof *seconds };

void results_put_gain(struct dsa_json_writer *writer, const struct dsa_results *results)
{
	struct dsa_gain rows[DSA_GAIN_ROWS];
	int count = dsa_gain_table(results, rows);
	if (!count) {
		dsa_json_put_null(writer, "gain");
		return;
	}
	dsa_json_object(writer, "gain");
	dsa_json_put_text(writer, "basis",
	                  dsa_gain_basis_name(results->cost_count ? DSA_GAIN_MEASURED : DSA_GAIN_FLOPS));
	dsa_json_put_text(writer, "device", results->costs_device);
	dsa_json_array(writer, "costs");
	for (int i = 0; i < results->cost_count; i++) {
		dsa_json_object(writer, NULL);
		dsa_json_put_int(writer, "context", results->costs[i].context);
		for (int s = 0; s < SECONDS; s++)
			dsa_json_put_real(writer, seconds[s].name,
			                  *(const double *)((const char *)&results->costs[i] + seconds[s].offset));
		dsa_json_end(writer);
	}
	dsa_json_end(writer);
	dsa_json_array(writer, "rows");
	for (int i = 0; i < count; i++) {
		dsa_json_object(writer, NULL);
		dsa_json_put_int(writer, "context", rows[i].context);
		dsa_json_put_text(writer, "basis", dsa_gain_basis_name(rows[i].basis));
		dsa_json_put_real(writer, "prefill", rows[i].prefill);
		dsa_json_put_real(writer, "decode", rows[i].decode);
		dsa_json_put_real(writer, "indexer_share", rows[i].indexer_share);
		dsa_json_end(writer);
	}
	dsa_json_end(writer);
	dsa_json_end(writer);
}

enum dsa_status results_read_gain(const struct results_reader *reader, const json_t *root)
{
	const json_t *gain, *costs;
	const char *device;
	char place[READER_PLACE], inside[READER_PLACE];
	enum dsa_status status = reader_object(reader, root, reader->place, "gain", &gain);
	if (status || !gain)
		return status;
	reader_below(place, reader->place, "gain");
	reader_below(inside, place, "costs");
	status = reader_text(reader, gain, place, "device", &device);
	if (!status)
		status = reader_array(reader, gain, place, "costs", DSA_LAYER_COSTS, &costs);
	if (status)
		return status;
	for (size_t i = 0; i < json_array_size(costs); i++) {
		struct dsa_layer_costs read;
		const json_t *entry = json_array_get(costs, i);
		if (!json_is_object(entry))
			return reader_wrong_type(reader, inside, "an entry", entry, "an object");
		status = dsa_json_int(entry, inside, "context", 1, INT32_MAX, 0, &read.context, reader->err);
		for (int s = 0; s < SECONDS && !status; s++)
			status = dsa_json_real(entry, inside, seconds[s].name, NAN,
			                       (double *)((char *)&read + seconds[s].offset), reader->err);
		if (!status)
			status = dsa_gain_add_costs(reader->results, &read, device ? device : "an unnamed device",
			                            inside, reader->err);
		if (status)
			return status;
	}
	return DSA_OK;
}
