#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dsa/residency.h"

enum { EXTRA = 40, LARGE = 30, IMAGE = 10 }; /* bytes: outside, a layer for products, a layer as stored */

static struct dsa_sizes uniform(int layers)
{
	struct dsa_sizes sizes = {.layers = layers, .outside = EXTRA};
	for (int l = 0; l < layers; l++)
		sizes.layer[l] = (struct dsa_layer_size){LARGE, IMAGE};
	return sizes;
}

/* The places as letters: D S H K (disk). */
static const char *letters(const struct dsa_residency *plan, int layers)
{
	static char text[DSA_MAX_LAYERS + 1];
	for (int l = 0; l < layers; l++)
		text[l] = "DSHK"[plan->place[l]];
	text[layers] = 0;
	return text;
}

static void places_are_called_as_the_option_calls_them(void **state)
{
	(void)state;
	assert_string_equal(dsa_place_name(DSA_PLACE_DEVICE), "device");
	assert_string_equal(dsa_place_name(DSA_PLACE_STORED), "stored");
	assert_string_equal(dsa_place_name(DSA_PLACE_HOST), "host");
	assert_string_equal(dsa_place_name(DSA_PLACE_DISK), "disk");
}

static void layers_that_fit_for_products_all_do_to_the_last_byte(void **state)
{
	(void)state;
	const struct dsa_sizes sizes = uniform(6);
	struct dsa_residency plan;
	assert_true(dsa_residency_plan(&plan, &sizes, DSA_PLACE_DEVICE, EXTRA + 6 * LARGE, 0));
	assert_string_equal(letters(&plan, 6), "DDDDDD");
	assert_int_equal(plan.layers[DSA_PLACE_DEVICE], 6);
	assert_int_equal(plan.device, 40 + 180);
	assert_int_equal(plan.host + plan.link + plan.disk, 0);
	/* One byte less, and all are there as stored. */
	assert_true(dsa_residency_plan(&plan, &sizes, DSA_PLACE_DEVICE, EXTRA + 6 * LARGE - 1, 0));
	assert_string_equal(letters(&plan, 6), "SSSSSS");
	assert_int_equal(plan.device, 40 + 30 + 60);
	assert_int_equal(plan.host + plan.link + plan.disk, 0);
	assert_int_equal(plan.layers[DSA_PLACE_STORED], 6);
}

static void layers_that_do_not_fit_on_the_device_cross_the_bus(void **state)
{
	(void)state;
	const struct dsa_sizes sizes = uniform(6);
	struct dsa_residency plan;
	/* A block, two landings and four images: 40 + 30 + 20 + 40. */
	assert_true(dsa_residency_plan(&plan, &sizes, DSA_PLACE_DEVICE, 129, 1000));
	assert_string_equal(letters(&plan, 6), "HSHSHS");
	assert_int_equal(plan.device, 120);
	assert_int_equal(plan.least_device, 90);
	assert_int_equal(plan.host, 30); /* nothing is staged where nothing is read */
	assert_int_equal(plan.link, 30);
	assert_int_equal(plan.disk, 0);
	/* Of three that cross, two staging buffers and less than one image: all on disk. */
	assert_true(dsa_residency_plan(&plan, &sizes, DSA_PLACE_DEVICE, 129, 29));
	assert_string_equal(letters(&plan, 6), "KSKSKS");
	assert_int_equal(plan.host, 20);
	assert_int_equal(plan.link, 30);
	assert_int_equal(plan.disk, 30);
	assert_int_equal(plan.layers[DSA_PLACE_STORED], 3);
	assert_int_equal(plan.layers[DSA_PLACE_DISK], 3);
	/* Nothing but what streaming takes; five bytes short of the next image on both sides. */
	assert_true(dsa_residency_plan(&plan, &sizes, DSA_PLACE_DEVICE, 95, 45));
	assert_string_equal(letters(&plan, 6), "KKHKKH");
	assert_int_equal(plan.device, 90);
	assert_int_equal(plan.host, 40);
	assert_int_equal(plan.link, 60);
	assert_int_equal(plan.disk, 40);
}

static void no_layer_is_in_a_faster_place_than_allowed(void **state)
{
	(void)state;
	const struct dsa_sizes sizes = uniform(6);
	static const char *const expected[] = {"DDDDDD", "SSSSSS", "HHHHHH", "KKKKKK"};
	for (int best = DSA_PLACE_DEVICE; best < DSA_PLACES; best++) {
		struct dsa_residency plan;
		assert_true(dsa_residency_plan(&plan, &sizes, (enum dsa_place)best, UINT64_MAX, UINT64_MAX));
		assert_string_equal(letters(&plan, 6), expected[best]);
		assert_int_equal(plan.layers[best], 6);
	}
}

static void what_does_not_fit_at_all_is_refused_with_what_it_takes(void **state)
{
	(void)state;
	const struct dsa_sizes sizes = uniform(6);
	struct dsa_residency plan;
	for (int best = DSA_PLACE_DEVICE; best < DSA_PLACES; best++) {
		memset(&plan, 0xff, sizeof plan);
		assert_false(dsa_residency_plan(&plan, &sizes, (enum dsa_place)best, 89, 1000));
		assert_int_equal(plan.least_device, 90);
		assert_int_equal(plan.host, 20);
		memset(&plan, 0xff, sizeof plan);
		assert_false(dsa_residency_plan(&plan, &sizes, (enum dsa_place)best, 90, 19));
		assert_int_equal(plan.least_device, 90);
		assert_int_equal(plan.host, 20);
		assert_true(dsa_residency_plan(&plan, &sizes, (enum dsa_place)best, 90, 20));
	}
}

static void one_layer_needs_no_second_one_to_hide_behind(void **state)
{
	(void)state;
	const struct dsa_sizes sizes = uniform(1);
	struct dsa_residency plan;
	assert_true(dsa_residency_plan(&plan, &sizes, DSA_PLACE_DEVICE, 70, 0));
	assert_string_equal(letters(&plan, 1), "D");
	assert_true(dsa_residency_plan(&plan, &sizes, DSA_PLACE_STORED, 80, 0));
	assert_string_equal(letters(&plan, 1), "S");
	assert_true(dsa_residency_plan(&plan, &sizes, DSA_PLACE_HOST, 90, 10));
	assert_string_equal(letters(&plan, 1), "H");
	assert_true(dsa_residency_plan(&plan, &sizes, DSA_PLACE_DISK, 90, 20));
	assert_string_equal(letters(&plan, 1), "K");
	assert_false(dsa_residency_plan(&plan, &sizes, DSA_PLACE_HOST, 90, 9));
	assert_false(dsa_residency_plan(&plan, &sizes, DSA_PLACE_DISK, 89, 20));
}

/* In any stretch of layers there are as many as their share of all says, give or take one. */
static void assert_even(const struct dsa_residency *plan, int layers, enum dsa_place place, enum dsa_place slowest)
{
	int own = 0, all = 0;
	for (int l = 0; l < layers; l++) {
		own += plan->place[l] == place;
		all += plan->place[l] >= place && plan->place[l] <= slowest;
	}
	for (int from = 0; from < layers; from++)
		for (int to = from + 1, some = 0, seen = 0; to <= layers; to++) {
			some += plan->place[to - 1] == place;
			seen += plan->place[to - 1] >= place && plan->place[to - 1] <= slowest;
			double share = (double)seen * own / all;
			if (some - share >= 1 + 1e-9 || share - some >= 1 + 1e-9)
				fail_msg("%s: layers %d to %d hold %d of %s, expected %.2f", letters(plan, layers),
				         from, to, some, dsa_place_name(place), share);
		}
}

static void layers_of_each_place_are_spread_evenly_and_fill_the_room(void **state)
{
	(void)state;
	for (int layers = 3; layers <= 78; layers += 15)
		for (int stored = 0; stored < layers - 2; stored++) /* two more fit where two landings would be */
			for (int host = 0; host <= layers - stored; host += 3) {
				const struct dsa_sizes sizes = uniform(layers);
				struct dsa_residency plan;
				const uint64_t device = EXTRA + LARGE + 2 * IMAGE + (uint64_t)stored * IMAGE + 9;
				const uint64_t room = 2 * IMAGE + (uint64_t)host * IMAGE + 9;
				if (EXTRA + (uint64_t)layers * LARGE <= device)
					continue;
				assert_true(dsa_residency_plan(&plan, &sizes, DSA_PLACE_DEVICE, device, room));
				int rest = layers - stored, kept = rest <= host + 2 ? rest : host;
				assert_int_equal(plan.layers[DSA_PLACE_STORED], stored);
				assert_int_equal(plan.layers[DSA_PLACE_HOST], kept);
				assert_int_equal(plan.layers[DSA_PLACE_DISK], rest - kept);
				if (stored)
					assert_even(&plan, layers, DSA_PLACE_STORED, DSA_PLACE_DISK);
				if (kept)
					assert_even(&plan, layers, DSA_PLACE_HOST, DSA_PLACE_DISK);
			}
}

static uint64_t random_state = 0x9e3779b97f4a7c15u;

static uint64_t below(uint64_t bound)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (random_state >> 11) % bound;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* A plan's bytes, worked out from its places alone. */
static void check_plan(const struct dsa_residency *plan, const struct dsa_sizes *sizes, enum dsa_place best,
                       uint64_t device_room, uint64_t host_room)
{
	uint64_t bytes[DSA_PLACES] = {0}, most_device = 0, most_image = 0, device = sizes->outside;
	int layers[DSA_PLACES] = {0};
	for (int l = 0; l < sizes->layers; l++) {
		const enum dsa_place place = plan->place[l];
		assert_true(place >= best && place < DSA_PLACES);
		bytes[place] += place == DSA_PLACE_DEVICE ? sizes->layer[l].device : sizes->layer[l].image;
		layers[place]++;
		most_device = larger(most_device, sizes->layer[l].device);
		most_image = larger(most_image, sizes->layer[l].image);
	}
	assert_memory_equal(layers, plan->layers, sizeof layers);
	if (layers[DSA_PLACE_DEVICE])
		assert_int_equal(layers[DSA_PLACE_DEVICE], sizes->layers);
	else
		device += most_device;
	device += bytes[DSA_PLACE_DEVICE] + bytes[DSA_PLACE_STORED];
	if (layers[DSA_PLACE_HOST] + layers[DSA_PLACE_DISK])
		device += 2 * most_image;
	assert_int_equal(plan->device, device);
	assert_int_equal(plan->least_device, sizes->outside + most_device + 2 * most_image);
	assert_int_equal(plan->host, bytes[DSA_PLACE_HOST] + (layers[DSA_PLACE_DISK] ? 2 * most_image : 0));
	assert_int_equal(plan->link, bytes[DSA_PLACE_HOST] + bytes[DSA_PLACE_DISK]);
	assert_int_equal(plan->disk, bytes[DSA_PLACE_DISK]);
	assert_true(plan->device <= device_room);
	assert_true(plan->host <= host_room);
}

static void no_room_is_ever_exceeded_and_no_room_refused_that_is_enough(void **state)
{
	(void)state;
	int fitting = 0, mixed = 0;
	for (int round = 0; round < 20000; round++) {
		struct dsa_sizes sizes = {.layers = 1 + (int)below(round % 50 ? 12 : DSA_MAX_LAYERS),
		                          .outside = below(50)};
		const uint64_t large = 1 + below(60);
		uint64_t most_device = 0, most_image = 0, whole = 0, images = 0;
		for (int l = 0; l < sizes.layers; l++) {
			sizes.layer[l] = (struct dsa_layer_size){below(2 * large), below(large)}; /* 0 among them */
			most_device = larger(most_device, sizes.layer[l].device);
			most_image = larger(most_image, sizes.layer[l].image);
			whole += sizes.layer[l].device;
			images += sizes.layer[l].image;
		}
		const uint64_t least = sizes.outside + most_device + 2 * most_image;
		const uint64_t device_room = below(sizes.outside + whole + images + 2 * most_image + 10);
		const uint64_t host_room = below(images + 2 * most_image + 10);
		const enum dsa_place best = (enum dsa_place)below(DSA_PLACES);
		struct dsa_residency plan;
		const bool fits = dsa_residency_plan(&plan, &sizes, best, device_room, host_room);
		const bool resident = (best == DSA_PLACE_DEVICE && sizes.outside + whole <= device_room) ||
		                      (best <= DSA_PLACE_STORED && sizes.outside + most_device + images <= device_room);
		if (fits) {
			check_plan(&plan, &sizes, best, device_room, host_room);
			mixed += !resident && plan.layers[DSA_PLACE_DISK] != sizes.layers;
			fitting++;
		} else {
			assert_false(resident);
			assert_true(least > device_room || 2 * most_image > host_room);
			assert_int_equal(plan.least_device, least);
			assert_int_equal(plan.host, 2 * most_image);
		}
	}
	assert_true(fitting > 5000 && fitting < 19000 && mixed > 1000);
}

/* Where both are one memory. */
static void what_is_shared_is_counted_once(void **state)
{
	(void)state;
	const struct dsa_sizes sizes = uniform(6);
	struct dsa_residency plan;
	assert_true(dsa_residency_plan_shared(&plan, &sizes, DSA_PLACE_DEVICE, 220, 0));
	assert_string_equal(letters(&plan, 6), "DDDDDD");
	assert_true(dsa_residency_plan_shared(&plan, &sizes, DSA_PLACE_HOST, 150, 60));
	assert_string_equal(letters(&plan, 6), "HHHHHH");
	/* Apart, 129 bytes and 30 hold three and three; together one is stored, beside what five on disk are read to.
	 */
	assert_true(dsa_residency_plan_shared(&plan, &sizes, DSA_PLACE_DEVICE, 129, 30));
	assert_string_equal(letters(&plan, 6), "KKKKKS");
	assert_int_equal(plan.device + plan.host, 100 + 20);
	assert_false(dsa_residency_plan_shared(&plan, &sizes, DSA_PLACE_DEVICE, 109, 30));
	assert_int_equal(plan.least_device + plan.host, 110);
	for (int round = 0, shrunk = 0; round < 20000 || shrunk < 1000; round++) {
		const struct dsa_sizes some = uniform(1 + (int)below(20));
		const uint64_t room = below(300), host_room = below(150);
		const enum dsa_place best = (enum dsa_place)below(DSA_PLACES);
		struct dsa_residency apart;
		const bool fits = dsa_residency_plan_shared(&plan, &some, best, room, host_room);
		if (!fits) {
			assert_true(room < 90 + 20 || host_room < 20);
			continue;
		}
		check_plan(&plan, &some, best, room, host_room);
		assert_true(plan.device + plan.host <= room);
		assert_true(dsa_residency_plan(&apart, &some, best, room, host_room));
		shrunk += apart.device + apart.host > room;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(places_are_called_as_the_option_calls_them),
	    cmocka_unit_test(layers_that_fit_for_products_all_do_to_the_last_byte),
	    cmocka_unit_test(layers_that_do_not_fit_on_the_device_cross_the_bus),
	    cmocka_unit_test(no_layer_is_in_a_faster_place_than_allowed),
	    cmocka_unit_test(what_does_not_fit_at_all_is_refused_with_what_it_takes),
	    cmocka_unit_test(one_layer_needs_no_second_one_to_hide_behind),
	    cmocka_unit_test(layers_of_each_place_are_spread_evenly_and_fill_the_room),
	    cmocka_unit_test(no_room_is_ever_exceeded_and_no_room_refused_that_is_enough),
	    cmocka_unit_test(what_is_shared_is_counted_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
