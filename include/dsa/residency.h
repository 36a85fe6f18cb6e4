/* residency.h: where the weights of a model's layers lie between two visits, and what that takes.
 *
 * Four places, the fastest first. What no layer owns (embeddings, final norm, head, rotary tables) is always on the
 * device. Layers that are not there in the form of products share one block of device memory, into which each is
 * converted when it is visited; those that cross the bus land in one of two buffers, so that the next one comes in
 * while a layer works. A layer's stored bytes are one image, the same in every place, so that no place changes a bit.
 *
 * The plan is a pure function of sizes. */
#ifndef DSA_RESIDENCY_H
#define DSA_RESIDENCY_H

#include <stdbool.h>
#include <stdint.h>

#include "dsa/model_config.h"

enum dsa_place {
	DSA_PLACE_DEVICE, /* on the device, as products use them */
	DSA_PLACE_STORED, /* on the device, as the checkpoint stores them */
	DSA_PLACE_HOST,   /* in pinned host memory, as stored */
	DSA_PLACE_DISK,   /* in the checkpoint's files */
	DSA_PLACES
};
/* "device", "stored", "host", "disk". */
const char *dsa_place_name(enum dsa_place place);

struct dsa_layer_size {
	uint64_t device; /* bytes in the form of products */
	uint64_t image;  /* bytes as stored, with the padding that reading and alignment take */
};

struct dsa_sizes {
	int layers;
	uint64_t outside; /* device bytes of what no layer owns, but for the rotary tables */
	struct dsa_layer_size layer[DSA_MAX_LAYERS];
};

struct dsa_residency {
	enum dsa_place place[DSA_MAX_LAYERS];
	int layers[DSA_PLACES]; /* how many are where */
	uint64_t device;        /* bytes of device memory, in all */
	uint64_t least_device;  /* … that streaming takes at least */
	uint64_t host; /* bytes of pinned host memory; while layers come in, one image more where none is staged */
	uint64_t link, disk; /* bytes that one visit of every layer moves over the bus, off the disk */
};

/* The fastest residency within device_room and host_room bytes, in no place faster than `best` allows; layers that
 * differ in place are spread evenly, so that what is on its way always has others to hide behind. False: not even
 * streaming everything fits; `least_device` and `host` say what that takes. */
bool dsa_residency_plan(struct dsa_residency *out, const struct dsa_sizes *sizes, enum dsa_place best,
                        uint64_t device_room, uint64_t host_room);
/* The same where the device's memory is the host's: `room` bytes for both together, host_room of them for the host. */
bool dsa_residency_plan_shared(struct dsa_residency *out, const struct dsa_sizes *sizes, enum dsa_place best,
                               uint64_t room, uint64_t host_room);

#endif
