#include "dsa/work.h"

#include <assert.h>
#include <string.h>

#include "dsa/pattern.h"

/* Texts in ascending order of bytes: the longest prefix shared with any of them is shared with a neighbour. */
struct dsa_work_asked {
	const char **texts;
	int count, room;
};

enum dsa_status dsa_work_init(struct dsa_work *work, const struct dsa_evaluator_shape *shape, struct dsa_arena *arena,
                              struct dsa_error *err)
{
	assert(shape->batches >= 0);
	*work = (struct dsa_work){.shape = shape, .arena = arena};
	/* One list per batch, and behind them the list that owns each distinct text once. */
	work->asked = dsa_arena_alloc(arena, (size_t)shape->batches + 1, sizeof *work->asked, "the work count", err);
	return work->asked ? DSA_OK : DSA_E_MEMORY;
}

/* The place of text, or where it belongs. */
static int place_of(const struct dsa_work_asked *asked, const char *text, bool *found)
{
	int low = 0, high = asked->count;
	*found = false;
	while (low < high) {
		int middle = low + (high - low) / 2;
		int order = strcmp(asked->texts[middle], text);
		if (order == 0) {
			*found = true;
			return middle;
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static enum dsa_status insert(struct dsa_work *work, struct dsa_work_asked *asked, int place, const char *text,
                              struct dsa_error *err)
{
	if (asked->count == asked->room) {
		int room = asked->room ? 2 * asked->room : 16;
		const char **texts =
		    dsa_arena_alloc(work->arena, (size_t)room, sizeof *texts, "the patterns asked so far", err);
		if (!texts)
			return DSA_E_MEMORY;
		if (asked->count)
			memcpy(texts, asked->texts, (size_t)asked->count * sizeof *texts);
		asked->texts = texts;
		asked->room = room;
	}
	memmove(asked->texts + place + 1, asked->texts + place, (size_t)(asked->count - place) * sizeof *asked->texts);
	asked->texts[place] = text;
	asked->count++;
	return DSA_OK;
}

static struct dsa_work_asked *list_of(struct dsa_work *work, int index, struct dsa_error *err)
{
	if (!work->asked[index])
		work->asked[index] =
		    dsa_arena_alloc(work->arena, 1, sizeof **work->asked, "the patterns asked so far", err);
	return work->asked[index];
}

/* The one copy of text that all batches share. */
static const char *kept_text(struct dsa_work *work, const char *text, struct dsa_error *err)
{
	struct dsa_work_asked *all = list_of(work, work->shape->batches, err);
	if (!all)
		return NULL;
	bool found;
	int place = place_of(all, text, &found);
	if (found)
		return all->texts[place];
	const char *copy = dsa_arena_text(work->arena, text, strlen(text), err);
	return copy && insert(work, all, place, copy, err) == DSA_OK ? copy : NULL;
}

/* What it costs behind the longest prefix it shares with a neighbour of its place. */
static int64_t price_at(const struct dsa_work *work, const struct dsa_work_asked *asked, int place, int batch,
                        const char *pattern, bool savings)
{
	const struct dsa_evaluator_batch *b = &work->shape->batch[batch];
	int common = 0;
	if (!asked || asked->count == 0 || !savings)
		return b->tokens * work->shape->layers;
	if (place > 0)
		common = dsa_pattern_common(asked->texts[place - 1], pattern);
	if (place < asked->count) {
		int above = dsa_pattern_common(asked->texts[place], pattern);
		common = above > common ? above : common;
	}
	return b->suffix * (work->shape->layers - common);
}

int64_t dsa_work_price(const struct dsa_work *work, int batch, const char *pattern, bool savings)
{
	const struct dsa_work_asked *asked = work->asked[batch];
	bool found = false;
	int place = asked ? place_of(asked, pattern, &found) : 0;
	return found ? 0 : price_at(work, asked, place, batch, pattern, savings);
}

enum dsa_status dsa_work_count(struct dsa_work *work, int batch, const char *pattern, bool savings,
                               struct dsa_error *err)
{
	const struct dsa_evaluator_shape *shape = work->shape;
	assert(batch >= 0 && batch < shape->batches && strlen(pattern) == (size_t)shape->layers);
	struct dsa_work_asked *asked = list_of(work, batch, err);
	if (!asked)
		return DSA_E_MEMORY;
	bool found;
	int place = place_of(asked, pattern, &found);
	if (found)
		return DSA_OK;

	const int64_t price = price_at(work, asked, place, batch, pattern, savings);
	const char *text = kept_text(work, pattern, err);
	if (!text || insert(work, asked, place, text, err) != DSA_OK)
		return DSA_E_MEMORY;

	const struct dsa_evaluator_batch *b = &shape->batch[batch];
	work->naive += b->tokens * shape->layers;
	work->token_layers += price;
	work->head_tokens += b->scored;
	return DSA_OK;
}

void dsa_work_spare(struct dsa_work *work, int batch)
{
	assert(batch >= 0 && batch < work->shape->batches);
	work->naive += work->shape->batch[batch].tokens * work->shape->layers;
}
