/* What one bench row cannot show apart: index scores and their top K, each against a ceiling measured beside it, on the
 * kernels alone (bursts: 50 ms of rest in front of each, the median of 15). Attention, products and whole layers are in
 * `dsacal bench`. */
#include "gpu_cuda.h"

#include <time.h>

#include "dsa/clock.h"

enum { TIMES = 15 };

struct job {
	struct dsa_tensor q, k, weight;
	struct dsa_rows rows;
	float *scores;
	void *copy;
	int64_t stride;
	int heads, dim, topk;
	int32_t *selection;
	struct kernel_fault *fault;
};

static int ascending(const void *a, const void *b)
{
	const float x = *(const float *)a, y = *(const float *)b;
	return (x > y) - (x < y);
}

/* Seconds of one launch. */
static double time_of(struct job *job, void (*launch)(struct job *job))
{
	cudaEvent_t begun, ended;
	float ms[TIMES];
	CUDA(cudaEventCreate(&begun));
	CUDA(cudaEventCreate(&ended));
	launch(job);
	for (int i = 0; i < TIMES; i++) {
		CUDA(cudaDeviceSynchronize());
		nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
		CUDA(cudaEventRecord(begun, NULL));
		launch(job);
		CUDA(cudaEventRecord(ended, NULL));
		CUDA(cudaEventSynchronize(ended));
		CUDA(cudaEventElapsedTime(&ms[i], begun, ended));
	}
	CUDA(cudaEventDestroy(begun));
	CUDA(cudaEventDestroy(ended));
	qsort(ms, TIMES, sizeof *ms, ascending);
	return (double)ms[TIMES / 2] * 1e-3;
}

static void launch_scores(struct job *job)
{
	CUDA(kernel_index_scores(NULL, job->scores, job->stride, job->q, job->k, NULL, job->weight, job->heads,
	                         job->dim, &job->rows));
}

static void launch_topk(struct job *job)
{
	CUDA(kernel_topk(NULL, job->selection, job->topk, job->scores, job->stride, &job->rows, job->fault));
}

static void launch_copy(struct job *job)
{
	CUDA(cudaMemcpyAsync(job->copy, job->scores, (size_t)(job->rows.count * job->stride) * sizeof(float),
	                     cudaMemcpyDeviceToDevice, NULL));
}

/* The last `rows` positions of one document of `context`. */
static void set_rows(struct gpu *g, struct job *job, int64_t rows, int context)
{
	int32_t *pos = gpu_host(g, (size_t)rows * sizeof *pos), *key0 = gpu_host(g, (size_t)rows * sizeof *key0);
	int32_t *at[2];
	for (int64_t i = 0; i < rows; i++) {
		pos[i] = (int32_t)(context - rows + i);
		key0[i] = 0;
	}
	for (int i = 0; i < 2; i++) {
		at[i] = gpu_device(g, g->be[GPU], (size_t)rows * sizeof **at);
		CUDA(cudaMemcpy(at[i], i ? key0 : pos, (size_t)rows * sizeof **at, cudaMemcpyHostToDevice));
	}
	job->rows = (struct dsa_rows){.count = rows, .pos = at[0], .key0 = at[1], .max_pos = context - 1};
	job->stride = (context + 63) / 64 * 64;
	job->scores = gpu_device(g, g->be[GPU], (size_t)(rows * job->stride) * sizeof(float));
}

static void index_scores_reach_300_tflops(struct gpu *g)
{
	if (!gpu_is_there(g))
		return;
	for (int heads = 32; heads <= 64; heads *= 2)
		for (int context = 32768; context <= 131072; context *= 2) {
			struct job job = {.heads = heads, .dim = 128};
			const int64_t rows = 2048;
			set_rows(g, &job, rows, context);
			job.q = gpu_alone(g, rows, heads * job.dim, 1, GPU_ACT);
			job.k = gpu_alone(g, context, job.dim, 1, GPU_ACT);
			job.weight = gpu_alone(g, rows, heads, 1, GPU_F32);
			const double keys = (double)rows * (context - (double)(rows - 1) / 2);
			const double rate = 2 * keys * heads * job.dim / time_of(&job, launch_scores) * 1e-12;
			printf("# index scores, %d heads, %lld rows of %d keys: %.0f TFLOP/s\n", heads, (long long)rows,
			       context, rate);
			assert_true(rate >= 300);
			gpu_end_case(g);
		}
}

static void topk_takes_at_most_four_reads_of_its_scores(struct gpu *g)
{
	static const int contexts[] = {32768, 65536, 131072};
	if (!gpu_is_there(g))
		return;
	for (int c = 0; c < 3; c++)
		for (int kind = 0; kind < 2; kind++) {
			const int64_t rows = 1024;
			struct job job = {.heads = 32, .dim = 128, .topk = 2048};
			struct kernel_fault fault;
			set_rows(g, &job, rows, contexts[c]);
			job.copy = gpu_device(g, g->be[GPU], (size_t)(rows * job.stride) * sizeof(float));
			job.selection = gpu_device(g, g->be[GPU], (size_t)(rows * job.topk) * sizeof *job.selection);
			job.fault = gpu_device(g, g->be[GPU], sizeof *job.fault);
			memset(&fault, 0xff, sizeof fault);
			CUDA(cudaMemcpy(job.fault, &fault, sizeof fault, cudaMemcpyHostToDevice));
			/* Scores as the indexer makes them, and evenly spread ones. */
			if (kind == 0) {
				job.q = gpu_alone(g, rows, job.heads * job.dim, 1, GPU_ACT);
				job.k = gpu_alone(g, contexts[c], job.dim, 1, GPU_ACT);
				job.weight = gpu_alone(g, rows, job.heads, 1, GPU_F32);
				launch_scores(&job);
			} else {
				float *row = gpu_host(g, (size_t)job.stride * sizeof *row);
				for (int64_t s = 0; s < job.stride; s++)
					row[s] = gpu_uniform(g);
				for (int64_t i = 0; i < rows; i++)
					CUDA(cudaMemcpy(job.scores + i * job.stride, row,
					                (size_t)job.stride * sizeof *row, cudaMemcpyHostToDevice));
			}
			/* A copy reads and writes. */
			const double read = time_of(&job, launch_copy) / 2, took = time_of(&job, launch_topk);
			printf("# top 2048 of %lld × %d %s scores: %.3f ms, %.1f times one read at %.2f TB/s\n",
			       (long long)rows, contexts[c], kind ? "uniform" : "indexer's", took * 1e3, took / read,
			       (double)(rows * job.stride) * 4 / read * 1e-12);
			assert_true(took <= 4 * read);
			gpu_end_case(g);
		}
}

/* Streamed layers and kept states lie there: tens of GB, taken at a run's start. */
static void page_locked_memory_comes_faster_than_the_drivers(struct gpu *g)
{
	const size_t bytes = (size_t)4 << 30;
	struct dsa_backend *be = g->be[GPU];
	void *theirs;
	if (!gpu_is_there(g))
		return;
	double begun = dsa_clock_seconds();
	CUDA(cudaMallocHost(&theirs, bytes));
	const double driver = dsa_clock_seconds() - begun;
	CUDA(cudaFreeHost(theirs));
	begun = dsa_clock_seconds();
	void *ours = be->ops->pinned_alloc(be, bytes);
	const double took = dsa_clock_seconds() - begun;
	assert_non_null(ours);
	begun = dsa_clock_seconds();
	be->ops->pinned_free(be, ours);
	printf("# 4 GiB of page-locked memory: %.2f s, given back in %.2f s; the driver's own %.2f s\n", took,
	       dsa_clock_seconds() - begun, driver);
	assert_true(took < driver);
}

const struct check_test speed_tests[] = {
    CHECK_TEST(index_scores_reach_300_tflops),
    CHECK_TEST(topk_takes_at_most_four_reads_of_its_scores),
    CHECK_TEST(page_locked_memory_comes_faster_than_the_drivers),
    {NULL, NULL},
};
