/* Overlap matrices of results.json, read back into counts. */
#include <limits.h>
#include <math.h>

#include "results_reader.h"

/* Most bytes of overlap counts a file can make us allocate: 26 corpora of 78 layers are 96 MB. */
static const size_t overlap_limit = (size_t)1 << 30;

/* Row `row` of a matrix, `columns` numbers long; every one of them checked. */
static enum dsa_status matrix_row(const struct results_reader *reader, const json_t *matrix, const char *place, int row,
                                  int columns, const json_t **out)
{
	*out = json_array_get(matrix, (size_t)row);
	if (!json_is_array(*out) || json_array_size(*out) != (size_t)columns)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: row %d is not an array of %d numbers", place, row,
		                columns);
	for (int j = 0; j < columns; j++)
		if (!json_is_number(json_array_get(*out, (size_t)j)))
			return dsa_fail(reader->err, DSA_E_INPUT, "%s: row %d, column %d is %s, expected a number",
			                place, row, j, dsa_json_type(json_array_get(*out, (size_t)j)));
	return DSA_OK;
}

/* with_f32, where the file has it. plain (L) */
static enum dsa_status read_plain(const struct results_reader *reader, const json_t *object, const char *place,
                                  int64_t queries, int64_t *plain)
{
	const json_t *shares;
	struct dsa_overlap *overlap = &reader->results->overlap;
	enum dsa_status status = reader_array(reader, object, place, "with_f32", (size_t)overlap->layers, &shares);
	if (status || !shares)
		return status;
	if (json_array_size(shares) != (size_t)overlap->layers)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: with_f32 has not %d entries", place, overlap->layers);
	for (int l = 0; l < overlap->layers; l++) {
		const json_t *entry = json_array_get(shares, (size_t)l);
		double share = json_number_value(entry);
		if (!(json_is_number(entry) || json_is_null(entry)) || !(share >= 0 && share <= 1))
			return dsa_fail(reader->err, DSA_E_INPUT, "%s: with_f32[%d] is no number from 0 to 1", place,
			                l);
		plain[l] = llround(share * (double)queries * (double)overlap->topk);
	}
	overlap->has_plain = true;
	return DSA_OK;
}

static enum dsa_status read_triangle(const struct results_reader *reader, const json_t *object, const char *place,
                                     const char *key, double *out)
{
	const json_t *matrix, *row;
	int layers = reader->results->layers;
	enum dsa_status status = reader_array(reader, object, place, key, (size_t)layers, &matrix);
	if (status || !matrix)
		return status;
	for (int i = 0; i < layers; i++) {
		if ((status = matrix_row(reader, matrix, place, i, layers - i, &row)))
			return status;
		for (int j = i; j < layers; j++) {
			double sum = json_number_value(json_array_get(row, (size_t)(j - i)));
			out[(size_t)i * (size_t)layers + (size_t)j] = sum;
		}
	}
	return DSA_OK;
}

/* The sums over documents behind the errors of one slot. A file from before they were written has none. */
static enum dsa_status read_sums(const struct results_reader *reader, const json_t *object, const char *place,
                                 size_t slot)
{
	struct dsa_overlap *overlap = &reader->results->overlap;
	size_t square = (size_t)overlap->layers * (size_t)overlap->layers;
	enum dsa_status status =
	    reader_int(reader, object, place, "documents", 0, INT_MAX, 0, &overlap->documents[slot]);
	if (!status)
		status = dsa_json_real(object, place, "weight2", 0, &overlap->weight2[slot], reader->err);
	if (!status)
		status = read_triangle(reader, object, place, "squared", overlap->squared + slot * square);
	if (!status)
		status = read_triangle(reader, object, place, "crossed", overlap->crossed + slot * square);
	return status;
}

static enum dsa_status read_bucket(const struct results_reader *reader, const json_t *object, const char *place,
                                   int corpus)
{
	enum dsa_status status;
	const json_t *matrix, *row;
	int bucket, layers = reader->results->layers;
	struct dsa_overlap *overlap = &reader->results->overlap;
	int64_t queries;
	if (!json_is_object(object))
		return reader_wrong_type(reader, place, "an entry", object, "an object");
	/* Counts stay exact in a double below 2^53. */
	const int64_t most = ((int64_t)1 << 50) / reader->results->topk;
	if ((status = reader_int(reader, object, place, "bucket", 0, DSA_POSITION_BUCKETS - 1, 0, &bucket)) ||
	    (status = dsa_json_int(object, place, "queries", 1, most, 1, &queries, reader->err)) ||
	    (status = reader_array(reader, object, place, "overlap", (size_t)layers, &matrix)))
		return status;
	if (!matrix || json_array_size(matrix) != (size_t)layers)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: overlap has not %d rows", place, layers);
	size_t at = (size_t)corpus * DSA_POSITION_BUCKETS + (size_t)bucket;
	if (overlap->queries[at])
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: bucket %d occurs twice", place, bucket);
	overlap->queries[at] = queries;
	int64_t *counts = overlap->counts + at * (size_t)layers * (size_t)layers;
	for (int i = 0; i < layers; i++) {
		if ((status = matrix_row(reader, matrix, place, i, layers, &row)))
			return status;
		for (int j = i; j < layers; j++) {
			double share = json_number_value(json_array_get(row, (size_t)j));
			if (!(share >= 0 && share <= 1))
				return dsa_fail(reader->err, DSA_E_INPUT,
				                "%s: row %d, column %d is %g, expected 0 to 1", place, i, j, share);
			counts[(size_t)i * (size_t)layers + (size_t)j] =
			    llround(share * (double)queries * (double)reader->results->topk);
		}
	}
	if ((status = read_plain(reader, object, place, queries, overlap->plain + at * (size_t)layers)))
		return status;
	return read_sums(reader, object, place, (size_t)corpus * DSA_OVERLAP_SLOTS + (size_t)bucket);
}

enum dsa_status results_read_overlap(const struct results_reader *reader, const json_t *root)
{
	enum dsa_status status;
	const json_t *positions, *documents, *facts, *buckets;
	char inner[READER_PLACE];
	struct dsa_results *results = reader->results;
	struct dsa_overlap *overlap = &results->overlap;
	if ((status = reader_object(reader, root, reader->place, "overlap_by_position", &positions)) ||
	    (status = reader_object(reader, root, reader->place, "overlap_documents", &documents)))
		return status;
	if (!json_object_size(positions))
		return DSA_OK;
	size_t square = (size_t)results->layers * (size_t)results->layers;
	size_t corpora = (size_t)results->corpus_count;
	if (json_object_size(positions) != corpora)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: overlap_by_position has %zu corpora, expected %zu",
		                reader->place, json_object_size(positions), corpora);
	if (corpora > overlap_limit / (square * 3 * DSA_OVERLAP_SLOTS * sizeof(int64_t)))
		return dsa_fail(reader->err, DSA_E_INPUT,
		                "%s: overlap of %zu corpora and %d layers is more than a file may hold", reader->place,
		                corpora, results->layers);
	status = dsa_overlap_init(overlap, results->corpus_count, results->layers, results->topk, reader->arena,
	                          reader->err);
	if (status)
		return status;
	for (int c = 0; c < results->corpus_count; c++) {
		const char *name = results->corpora[c].name;
		reader_below(inner, reader->place, "overlap_by_position");
		if ((status = reader_array(reader, positions, inner, name, DSA_POSITION_BUCKETS, &buckets)))
			return status;
		for (size_t i = 0; buckets && i < json_array_size(buckets); i++)
			if ((status = read_bucket(reader, json_array_get(buckets, i), inner, c)))
				return status;
		reader_below(inner, reader->place, "overlap_documents");
		if ((status = reader_object(reader, documents, inner, name, &facts)) ||
		    (status = read_triangle(reader, facts, inner, "sum", overlap->sum + (size_t)c * square)) ||
		    (status = read_triangle(reader, facts, inner, "sum2", overlap->sum2 + (size_t)c * square)) ||
		    (status = read_sums(reader, facts, inner, (size_t)c * DSA_OVERLAP_SLOTS + DSA_POSITION_BUCKETS)))
			return status;
	}
	return DSA_OK;
}
