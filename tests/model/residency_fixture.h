/* residency_fixture.h: a tiny checkpoint, as it is shipped or written anew so that nothing in it is aligned; a model of
 * it whose layers lie where letters say, beside one that is resident; a CPU backend that counts, delays and fails. */
#ifndef DSA_TEST_RESIDENCY_FIXTURE_H
#define DSA_TEST_RESIDENCY_FIXTURE_H

#include <dirent.h>
#include <unistd.h>

#include "golden.h"

static char dir[64]; /* a checkpoint that a test may damage */

static uint64_t random_state;

static inline int below(int bound)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (int)((random_state >> 11) % (uint64_t)bound);
}

static inline int set_up(void **state)
{
	(void)state;
	random_state = 88172645463325252u;
	strcpy(dir, "/tmp/dsacal-test-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static inline int tear_down(void **state)
{
	(void)state;
	char command[128];
	snprintf(command, sizeof command, "rm -rf %s", dir);
	return system(command);
}

static inline const char *in_dir(const char *name)
{
	static char path[256];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	return path;
}

static inline void copy_golden(const char *name)
{
	char command[300];
	snprintf(command, sizeof command,
	         "rm -rf %s/* && cp tests/golden/tiny/%s/*.json tests/golden/tiny/%s/*.safetensors %s", dir, name, name,
	         dir);
	assert_int_equal(system(command), 0);
}

static inline void append(char *text, size_t room, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static inline void append(char *text, size_t room, const char *fmt, ...)
{
	const size_t used = strlen(text);
	va_list args;
	va_start(args, fmt);
	assert_true((size_t)vsnprintf(text + used, room - used, fmt, args) < room - used);
	va_end(args);
}

/* One shard: the tensors of `list`, one behind another; `unused` bytes in front of every tenth. The header's length
 * makes the first one begin at an odd place in the file. */
static inline void write_shard(const char *name, const struct dsa_stored *const *list, int count, int unused,
                               char *index, size_t index_room)
{
	enum { HEADER = 1 << 17 };
	char *header = calloc(HEADER, 1);
	FILE *file = fopen(in_dir(name), "wb");
	uint64_t at = 0;
	assert_true(header && file);
	append(header, HEADER, "{");
	for (int i = 0; i < count; i++) {
		const struct dsa_stored *t = list[i];
		if (i % 10 == 0) {
			append(header, HEADER,
			       "%s\"unused.%s.%d\":{\"dtype\":\"U8\",\"shape\":[%d],\"data_offsets\":[%llu,%llu]}",
			       i ? "," : "", name, i, unused, (unsigned long long)at,
			       (unsigned long long)at + (unsigned)unused);
			at += (unsigned)unused;
		}
		append(header, HEADER, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name, dsa_dtype_name(t->dtype));
		for (int d = 0; d < t->dims; d++)
			append(header, HEADER, "%s%lld", d ? "," : "", (long long)t->shape[d]);
		append(header, HEADER, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
		       (unsigned long long)(at + t->bytes));
		append(index, index_room, "%s\"%s\":\"%s\"", index[strlen(index) - 1] == '{' ? "" : ",", t->name, name);
		at += t->bytes;
	}
	append(header, HEADER, "}");
	while (strlen(header) % 4 != 1)
		append(header, HEADER, " ");
	const uint64_t length = strlen(header);
	assert_int_equal(fwrite(&length, sizeof length, 1, file), 1);
	assert_int_equal(fwrite(header, length, 1, file), 1);
	memset(header, 0xff, (size_t)unused); /* NaN */
	for (int i = 0; i < count; i++) {
		if (i % 10 == 0)
			assert_int_equal(fwrite(header, (size_t)unused, 1, file), 1);
		assert_int_equal(fwrite(list[i]->data, list[i]->bytes, 1, file), 1);
	}
	assert_int_equal(fclose(file), 0);
	free(header);
}

/* The checkpoint in `dir` anew: the same tensors in two shards and in an order that has nothing to do with layers, all
 * of them misaligned, NaN in wide gaps between them. */
static inline void misalign(void)
{
	enum { INDEX = 1 << 16, SHARDS = 2, MOST = 1024 };
	static const char *const names[SHARDS] = {"a.safetensors", "b.safetensors"};
	struct dsa_checkpoint *cp;
	const struct dsa_stored *list[SHARDS][MOST];
	int counts[SHARDS] = {0};
	char *index = calloc(INDEX, 1), command[256];
	assert_non_null(index);
	MUST(dsa_checkpoint_open(&cp, dir, &golden_error));
	for (int i = 0; i < dsa_checkpoint_count(cp); i++) {
		const int shard = below(SHARDS);
		assert_true(counts[shard] < MOST);
		list[shard][counts[shard]++] = dsa_checkpoint_at(cp, i);
	}
	append(index, INDEX, "{\"weight_map\":{");
	for (int s = 0; s < SHARDS; s++) {
		for (int i = counts[s] - 1; i > 0; i--) {
			const int j = below(i + 1);
			const struct dsa_stored *other = list[s][j];
			list[s][j] = list[s][i], list[s][i] = other;
		}
		write_shard(names[s], list[s], counts[s], s ? 90001 : 4097, index, INDEX);
	}
	append(index, INDEX, "}}");
	dsa_checkpoint_close(cp);
	snprintf(command, sizeof command, "rm -f %s/model*", dir);
	assert_int_equal(system(command), 0);
	FILE *file = fopen(in_dir("model.safetensors.index.json"), "wb");
	assert_non_null(file);
	assert_int_equal(fwrite(index, strlen(index), 1, file), 1);
	assert_int_equal(fclose(file), 0);
	free(index);
}

/* Overwrites the tensor's element `index` with the low bytes of `bits`; the file's name is returned. */
static inline const char *patch(const char *tensor, int64_t index, uint32_t bits)
{
	static char path[256];
	struct dsa_checkpoint *cp;
	MUST(dsa_checkpoint_open(&cp, dir, &golden_error));
	const struct dsa_stored *stored = dsa_checkpoint_find(cp, tensor);
	assert_non_null(stored);
	snprintf(path, sizeof path, "%s", dsa_checkpoint_shard_path(cp, stored->shard));
	const size_t size = dsa_dtype_bytes(stored->dtype);
	const uint64_t offset = dsa_checkpoint_offset(cp, stored->shard, stored->data) + (uint64_t)index * size;
	FILE *file = fopen(path, "r+b");
	assert_non_null(file);
	assert_int_equal(fseek(file, (long)offset, SEEK_SET), 0);
	assert_int_equal(fwrite(&bits, size, 1, file), 1);
	assert_int_equal(fclose(file), 0);
	dsa_checkpoint_close(cp);
	return path;
}

/* What stands in front of the backend. */
static struct {
	const struct dsa_ops *real;
	struct dsa_ops ops;
	int blocks;           /* of memory that are taken */
	int allowed;          /* requests that are still granted; negative: all */
	int fetches, failing; /* failing: fetches that fail from now on */
	const char *removed;  /* a file that goes when the layers' block is taken */
	/* A fetch that has begun: nothing is moved before fetched() asks, as on a slow bus. */
	void *to;
	const void *from;
	size_t bytes;
	bool waited;          /* since it began: where a layer takes longer than the bus, it is over */
	int uploads, held_up; /* held_up: uploads that queue behind a fetch */
	bool slow;            /* a fetch takes a while; meanwhile: bytes that this process read in such whiles */
	long long meanwhile;
} watch;

static inline bool watch_grants(void)
{
	return watch.allowed < 0 || watch.allowed-- > 0;
}

static inline enum dsa_status watch_alloc(struct dsa_backend *be, size_t bytes, const char *what, void **out,
                                          struct dsa_error *err)
{
	*out = NULL;
	if (watch.removed && !strcmp(what, "a layer's weights"))
		assert_int_equal(unlink(watch.removed), 0);
	if (!watch_grants())
		return dsa_fail(err, DSA_E_MEMORY, "no memory for %s", what);
	enum dsa_status status = watch.real->alloc(be, bytes, what, out, err);
	if (!status) {
		memset(*out, 0xff, bytes); /* NaN */
		watch.blocks++;
	}
	return status;
}

static inline void watch_free(struct dsa_backend *be, void *memory)
{
	watch.blocks -= memory != NULL;
	watch.real->free(be, memory);
}

static inline void *watch_pinned_alloc(struct dsa_backend *be, size_t bytes)
{
	void *memory = watch_grants() ? watch.real->pinned_alloc(be, bytes) : NULL;
	if (memory) {
		assert_int_equal((uintptr_t)memory % 4096, 0);
		memset(memory, 0xff, bytes);
		watch.blocks++;
	}
	return memory;
}

static inline void watch_pinned_free(struct dsa_backend *be, void *memory)
{
	watch.blocks -= memory != NULL;
	watch.real->pinned_free(be, memory);
}

static inline enum dsa_status watch_fetch(struct dsa_backend *be, void *device, const void *pinned, size_t bytes,
                                          struct dsa_error *err)
{
	(void)be;
	assert_null(watch.to); /* one at a time */
	if (watch.failing) {
		watch.failing--;
		return dsa_fail(err, DSA_E_DEVICE, "the bus is down");
	}
	watch.to = device, watch.from = pinned, watch.bytes = bytes, watch.waited = false;
	watch.fetches++;
	memset(device, 0xff, bytes); /* nobody may be using it any more */
	return DSA_OK;
}

static inline long long bytes_read(void)
{
	long long bytes;
	FILE *file = fopen("/proc/self/io", "r");
	assert_non_null(file);
	assert_int_equal(fscanf(file, "rchar: %lld", &bytes), 1);
	assert_int_equal(fclose(file), 0);
	return bytes;
}

static inline enum dsa_status watch_fetched(struct dsa_backend *be, double *seconds, struct dsa_error *err)
{
	(void)be, (void)err;
	assert_non_null(watch.to);
	if (watch.slow) {
		const long long before = bytes_read();
		assert_int_equal(usleep(50000), 0);
		watch.meanwhile += bytes_read() - before;
	}
	memcpy(watch.to, watch.from, watch.bytes);
	watch.to = NULL;
	*seconds = 1;
	return DSA_OK;
}

static inline enum dsa_status watch_upload(struct dsa_backend *be, void *device, const void *host, size_t bytes,
                                           struct dsa_error *err)
{
	watch.uploads++;
	watch.held_up += watch.to && !watch.waited;
	return watch.real->upload(be, device, host, bytes, err);
}

static inline enum dsa_status watch_wait(struct dsa_backend *be, struct dsa_error *err)
{
	watch.waited = true;
	return watch.real->wait(be, err);
}

static inline void watch_backend(struct dsa_backend *be)
{
	memset(&watch, 0, sizeof watch);
	watch.allowed = -1;
	watch.real = be->ops;
	watch.ops = *be->ops;
	watch.ops.alloc = watch_alloc;
	watch.ops.free = watch_free;
	watch.ops.pinned_alloc = watch_pinned_alloc;
	watch.ops.pinned_free = watch_pinned_free;
	watch.ops.fetch = watch_fetch;
	watch.ops.fetched = watch_fetched;
	watch.ops.upload = watch_upload;
	watch.ops.wait = watch_wait;
	be->ops = &watch.ops;
}

/* The resident model, its documents, and the plan of another. */
struct beside {
	struct golden resident, streamed; /* of one backend, which is watched once the resident one is open */
	struct dsa_sizes sizes;
	struct dsa_residency plan;
	int layers;
};

static inline void beside_open(struct beside *b)
{
	*b = (struct beside){.layers = 0};
	golden_open(&b->resident, dir, 1);
	b->layers = b->resident.model->config.layers;
	watch_backend(b->resident.be);
	MUST(dsa_model_sizes(&b->sizes, &b->resident.model->config, dir, b->resident.be->weight, &golden_error));
	b->streamed = b->resident;
	b->streamed.model = NULL;
}

/* letters: S stored, H host, K disk; begun again where there are more layers. */
static inline void beside_plan(struct beside *b, const char *letters)
{
	uint64_t device = 0, image = 0;
	b->plan = (struct dsa_residency){.device = b->sizes.outside};
	for (int l = 0; l < b->layers; l++) {
		const struct dsa_layer_size *size = &b->sizes.layer[l];
		const char letter = letters[(size_t)l % strlen(letters)];
		const enum dsa_place place = letter == 'S'   ? DSA_PLACE_STORED
		                             : letter == 'H' ? DSA_PLACE_HOST
		                                             : DSA_PLACE_DISK;
		b->plan.place[l] = place;
		b->plan.layers[place]++;
		b->plan.device += place == DSA_PLACE_STORED ? size->image : 0;
		b->plan.host += place == DSA_PLACE_HOST ? size->image : 0;
		device = size->device > device ? size->device : device;
		image = size->image > image ? size->image : image;
	}
	b->plan.device += device + 2 * image;
}

static inline enum dsa_status beside_try(struct beside *b, const char *letters)
{
	beside_plan(b, letters);
	golden_error.text[0] = 0;
	return dsa_model_open(&b->streamed.model, b->resident.be, dir, 256, &b->plan, NULL, &golden_error);
}

static inline void beside_stream(struct beside *b, const char *letters)
{
	if (beside_try(b, letters) != DSA_OK)
		fail_msg("%s as %s: %s", dir, letters, golden_error.text);
}

/* Nothing is left of the streamed model. */
static inline void beside_stop(struct beside *b)
{
	dsa_model_close(b->streamed.model);
	b->streamed.model = NULL;
	assert_int_equal(watch.blocks, 0);
	assert_null(watch.to);
}

static inline void beside_close(struct beside *b)
{
	if (b->streamed.model)
		beside_stop(b);
	golden_close(&b->resident);
}

/* An acquired layer holds what the resident one holds, to the bit. */
static inline void compare_layer(struct beside *b, int layer, const struct dsa_layer *got, const char *letters)
{
#define AT(member) offsetof(struct dsa_layer, member)
	static const size_t tensors[] = {AT(input_norm),
	                                 AT(post_norm),
	                                 AT(q_a),
	                                 AT(q_a_bias),
	                                 AT(q_a_norm),
	                                 AT(q_b),
	                                 AT(kv_a),
	                                 AT(kv_a_bias),
	                                 AT(kv_a_norm),
	                                 AT(kv_b),
	                                 AT(o),
	                                 AT(o_bias),
	                                 AT(index_q),
	                                 AT(index_k),
	                                 AT(index_k_norm),
	                                 AT(index_k_bias),
	                                 AT(index_weights),
	                                 AT(gate_up),
	                                 AT(down),
	                                 AT(router),
	                                 AT(correction),
	                                 AT(experts.gate_up),
	                                 AT(experts.down),
	                                 AT(shared_gate_up),
	                                 AT(shared_down)};
#undef AT
	const struct dsa_layer *want;
	MUST(dsa_model_acquire(b->resident.model, layer, &want, &golden_error));
	assert_true(got->experts.count == want->experts.count && got->experts.inner == want->experts.inner);
	for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
		const struct dsa_tensor *w = (const void *)((const char *)want + tensors[i]),
					*g = (const void *)((const char *)got + tensors[i]);
		assert_true(g->rows == w->rows && g->cols == w->cols && g->stride == w->stride);
		assert_true(g->dtype == w->dtype && !g->data == !w->data);
		if (w->data && memcmp(g->data, w->data, (size_t)(w->rows * w->cols) * sizeof(float)) != 0)
			fail_msg("layer %d of %s: its tensor %zu is not what it is in memory", layer, letters, i);
	}
	dsa_model_release(b->resident.model, layer);
}

static inline void assert_layer(struct beside *b, int layer, const char *letters)
{
	const struct dsa_layer *got;
	if (dsa_model_acquire(b->streamed.model, layer, &got, &golden_error) != DSA_OK)
		fail_msg("layer %d of %s: %s", layer, letters, golden_error.text);
	compare_layer(b, layer, got, letters);
	dsa_model_release(b->streamed.model, layer);
}

/* Entries of a directory of /proc/self: open files, threads. */
static inline int count_own(const char *what)
{
	char path[64];
	int count = 0;
	snprintf(path, sizeof path, "/proc/self/%s", what);
	DIR *open_dir = opendir(path);
	assert_non_null(open_dir);
	while (readdir(open_dir))
		count++;
	closedir(open_dir);
	return count;
}

#endif
