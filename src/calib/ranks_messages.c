#include "ranks_messages.h"

#include <string.h>
#include <time.h>

struct head {
	int32_t batch, count, layers, overlap;
	uint64_t seed;
};

enum dsa_status ranks_question_write(struct dsa_record_buffer *out, const struct dsa_coming *coming, int layers,
                                     struct dsa_error *err)
{
	const struct dsa_ask *ask = &coming->ask;
	const struct head head = {ask->batch, ask->count, layers, coming->overlap, ask->seed};
	const size_t width = (size_t)layers;
	enum dsa_status status = dsa_record_buffer_reserve(out, sizeof head + width * ((size_t)ask->count + 1), err);
	if (status)
		return status;
	memcpy(out->data, &head, sizeof head);
	memcpy(out->data + sizeof head, ask->base, width);
	out->used = sizeof head + width;
	for (int i = 0; i < ask->count; i++, out->used += width)
		memcpy(out->data + out->used, ask->patterns[i], width);
	return DSA_OK;
}

enum dsa_status ranks_question_read(struct dsa_coming *coming, const struct dsa_record_buffer *message,
                                    const struct dsa_evaluator_shape *shape, struct dsa_arena *arena,
                                    struct dsa_error *err)
{
	struct head head;
	const size_t width = (size_t)shape->layers;
	if (message->used >= sizeof head)
		memcpy(&head, message->data, sizeof head);
	if (message->used < sizeof head || head.layers != shape->layers || head.count < 0 || head.batch < 0 ||
	    head.batch >= shape->batches || message->used != sizeof head + width * ((size_t)head.count + 1))
		return dsa_fail(
		    err, DSA_E_INPUT,
		    "a question of %zu bytes from rank 0 is none of this program's: start one version of it "
		    "on all machines",
		    message->used);
	const char *text = (const char *)message->data + sizeof head;
	const char **patterns = dsa_arena_alloc(arena, (size_t)head.count, sizeof *patterns, "a question", err);
	const char *base = dsa_arena_text(arena, text, width, err);
	if (!patterns || !base)
		return DSA_E_MEMORY;
	for (int i = 0; i < head.count; i++) {
		patterns[i] = dsa_arena_text(arena, text + width * ((size_t)i + 1), width, err);
		if (!patterns[i])
			return DSA_E_MEMORY;
	}
	*coming = (struct dsa_coming){
	    .ask = {.base = base, .patterns = patterns, .count = head.count, .batch = head.batch, .seed = head.seed},
	    .overlap = head.overlap != 0};
	return DSA_OK;
}

void ranks_pause(void)
{
	const struct timespec pause = {.tv_nsec = 500000};
	nanosleep(&pause, NULL);
}
