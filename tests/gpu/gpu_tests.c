/* gpu_tests: the operators and the forward pass on the GPU against the CPU, in one program that travels.
 *
 *   gpu_tests [--small] [GROUP …]     from the repository's root; without a group: all of them
 *
 * DSA_GPU_TEST_SEED repeats a run's random numbers. DSA_GPU_TEST_DEVICE=cpu puts the CPU in the GPU's place: that tests
 * the tests. */
#include "gpu_fixture.h"

#include <setjmp.h>
#include <time.h>

static const struct {
	const char *name;
	const struct check_test *tests;
} groups[] = {
    {"rows", rows_tests},
    {"products", products_tests},
    {"experts", experts_tests},
    {"select", select_tests},
    {"attention", attention_tests},
    {"figures", figures_tests},
    {"invariance", invariance_tests},
    {"forward", forward_tests},
    {"residency", residency_tests},
    {"speed", speed_tests},
    {"profile", profile_tests},
    {"profile-experts", profile_experts_tests},
};
enum { GROUPS = sizeof groups / sizeof *groups };

static jmp_buf leave;

void check_fail(const char *file, int line, const char *fmt, ...)
{
	va_list args;
	const char *slash = strrchr(file, '/');
	printf("# %s:%d: ", slash ? slash + 1 : file, line);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	printf("\n");
	longjmp(leave, 1);
}

static double seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static bool passes(const struct check_test *test, struct gpu *g)
{
	if (setjmp(leave))
		return false;
	test->run(g);
	gpu_end_case(g);
	return true;
}

static void open_backends(struct gpu *g)
{
	struct dsa_error err = {""};
	const char *device = getenv("DSA_GPU_TEST_DEVICE");
	const struct dsa_backend_options cpu = {.device = "cpu"}, gpu = {.device = device ? device : "cuda"};
	if (dsa_backend_open(&g->be[CPU], &cpu, &err) || dsa_backend_open(&g->be[GPU], &gpu, &err)) {
		printf("# %s\n0 passed, 1 failed\n", err.text);
		exit(1);
	}
	printf("# %s against %s\n", g->be[GPU]->name, g->be[CPU]->name);
}

int main(int argc, char **argv)
{
	struct gpu g = {.small = false};
	const char *seed = getenv("DSA_GPU_TEST_SEED");
	int passed = 0, failed = 0, first = 1;
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 1 && !strcmp(argv[1], "--small"))
		g.small = true, first = 2;
	uint64_t start = seed ? strtoull(seed, NULL, 10) : (uint64_t)time(NULL);
	printf("# DSA_GPU_TEST_SEED=%llu\n", (unsigned long long)start);
	open_backends(&g);
	for (int i = 0; i < GROUPS; i++) {
		bool wanted = first >= argc;
		for (int a = first; a < argc; a++)
			wanted |= !strcmp(argv[a], groups[i].name);
		for (const struct check_test *test = groups[i].tests; wanted && test->name; test++) {
			double began = seconds();
			/* A test's numbers do not depend on which other tests ran. */
			g.random = start * 1000003u + (uint64_t)(test - groups[i].tests) + 1;
			bool good = passes(test, &g);
			printf("%s %s: %s (%.1f s)\n", good ? "ok" : "not ok", groups[i].name, test->name,
			       seconds() - began);
			if (good)
				passed++;
			else
				failed++, gpu_end_case(&g);
		}
	}
	/* What a test left behind where it failed would hide its message behind another. */
	if (!failed) {
		dsa_backend_close(g.be[GPU]);
		dsa_backend_close(g.be[CPU]);
	}
	printf("%d passed, %d failed\n", passed, failed);
	return failed || !passed;
}
