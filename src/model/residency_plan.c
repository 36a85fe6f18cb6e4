#include "dsa/residency.h"

#include <assert.h>

const char *dsa_place_name(enum dsa_place place)
{
	static const char *const names[DSA_PLACES] = {"device", "stored", "host", "disk"};
	return names[place];
}

struct largest {
	uint64_t device, image, images; /* images: of all layers */
};

static struct largest largest_of(const struct dsa_sizes *sizes)
{
	struct largest most = {0};
	for (int l = 0; l < sizes->layers; l++) {
		const struct dsa_layer_size *size = &sizes->layer[l];
		most.device = size->device > most.device ? size->device : most.device;
		most.image = size->image > most.image ? size->image : most.image;
		most.images += size->image;
	}
	return most;
}

static void put_all(struct dsa_residency *out, const struct dsa_sizes *sizes, enum dsa_place place)
{
	for (int l = 0; l < sizes->layers; l++)
		out->place[l] = place;
}

/* Of the layers at `from`, as many as fit into room, evenly spread, go to `to`. The bytes they take. */
static uint64_t spread(struct dsa_residency *out, const struct dsa_sizes *sizes, enum dsa_place from, enum dsa_place to,
                       uint64_t room)
{
	int count = 0;
	for (int l = 0; l < sizes->layers; l++)
		count += out->place[l] == from;
	for (int chosen = count; chosen > 0; chosen--) {
		uint64_t bytes = 0;
		for (int l = 0, seen = 0; l < sizes->layers; l++)
			if (out->place[l] == from) {
				const bool takes = (seen + 1) * chosen / count > seen * chosen / count;
				bytes += takes ? sizes->layer[l].image : 0;
				seen++;
			}
		if (bytes > room)
			continue;
		for (int l = 0, seen = 0; l < sizes->layers; l++)
			if (out->place[l] == from) {
				if ((seen + 1) * chosen / count > seen * chosen / count)
					out->place[l] = to;
				seen++;
			}
		return bytes;
	}
	return 0;
}

static void count_places(struct dsa_residency *out, const struct dsa_sizes *sizes)
{
	for (int l = 0; l < sizes->layers; l++) {
		const enum dsa_place place = out->place[l];
		out->layers[place]++;
		out->link += place >= DSA_PLACE_HOST ? sizes->layer[l].image : 0;
		out->disk += place == DSA_PLACE_DISK ? sizes->layer[l].image : 0;
	}
}

bool dsa_residency_plan(struct dsa_residency *out, const struct dsa_sizes *sizes, enum dsa_place best,
                        uint64_t device_room, uint64_t host_room)
{
	const struct largest most = largest_of(sizes);
	uint64_t whole = sizes->outside, stored = sizes->outside + most.device + most.images;
	assert(sizes->layers > 0 && sizes->layers <= DSA_MAX_LAYERS);
	*out = (struct dsa_residency){.least_device = sizes->outside + most.device + 2 * most.image};
	for (int l = 0; l < sizes->layers; l++)
		whole += sizes->layer[l].device;
	if (best == DSA_PLACE_DEVICE && whole <= device_room) {
		put_all(out, sizes, DSA_PLACE_DEVICE);
		out->device = whole;
		count_places(out, sizes);
		return true;
	}
	if (best <= DSA_PLACE_STORED && stored <= device_room) {
		put_all(out, sizes, DSA_PLACE_STORED);
		out->device = stored;
		count_places(out, sizes);
		return true;
	}
	put_all(out, sizes, DSA_PLACE_DISK);
	out->device = out->least_device;
	out->host = 2 * most.image;
	if (out->device > device_room || (best == DSA_PLACE_DISK && out->host > host_room))
		return false;
	if (best <= DSA_PLACE_STORED)
		out->device += spread(out, sizes, DSA_PLACE_DISK, DSA_PLACE_STORED, device_room - out->device);
	if (best <= DSA_PLACE_HOST) {
		uint64_t rest = 0;
		for (int l = 0; l < sizes->layers; l++)
			rest += out->place[l] == DSA_PLACE_DISK ? sizes->layer[l].image : 0;
		/* Nothing is read from disk between visits then, so nothing is staged. */
		if (rest <= host_room)
			out->host = spread(out, sizes, DSA_PLACE_DISK, DSA_PLACE_HOST, host_room);
		else if (out->host > host_room)
			return false;
		else
			out->host += spread(out, sizes, DSA_PLACE_DISK, DSA_PLACE_HOST, host_room - out->host);
	}
	count_places(out, sizes);
	return true;
}

bool dsa_residency_plan_shared(struct dsa_residency *out, const struct dsa_sizes *sizes, enum dsa_place best,
                               uint64_t room, uint64_t host_room)
{
	if (!dsa_residency_plan(out, sizes, best, room, host_room))
		return false;
	if (out->device + out->host <= room)
		return true;
	/* A layer as stored is worth more on the device than beside it, so the host gets what reading takes. */
	const uint64_t staging = 2 * largest_of(sizes).image, host = staging < host_room ? staging : host_room;
	return dsa_residency_plan(out, sizes, best, room - host, host);
}
