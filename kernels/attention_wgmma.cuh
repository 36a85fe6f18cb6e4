/* attention_wgmma.cuh: Hopper's warpgroup matrix products, as the sparse attention uses them.
 *
 * Operands in shared memory are made of tiles of 64 columns: rows of 128 bytes, the 16-byte chunk of row y moved to
 * chunk ^ (y & 7) (the 128-byte swizzle), tiles 1024-byte aligned. A tile is read along its rows (contraction over its
 * columns: queries, keys, probabilities) or across them (contraction over its rows: keys taken as values).
 *
 * Products are asynchronous: fence() before the first one that uses registers written since, commit(), wait(); hold()
 * keeps the compiler from moving its own accesses to registers of a product over a wait. */
#ifndef DSA_KERNELS_ATTENTION_WGMMA_CUH
#define DSA_KERNELS_ATTENTION_WGMMA_CUH

#include <stdint.h>

namespace wgmma
{

__device__ __forceinline__ void fence()
{
	asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void commit()
{
	asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Until at most `pending` groups are not complete. */
template <int pending> __device__ __forceinline__ void wait()
{
	asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

template <int count> __device__ __forceinline__ void hold(float (&d)[count])
{
#pragma unroll
	for (int i = 0; i < count; i++)
		asm volatile("" : "+f"(d[i])::"memory");
}

template <int count> __device__ __forceinline__ void hold(uint32_t (&a)[count])
{
#pragma unroll
	for (int i = 0; i < count; i++)
		asm volatile("" : "+r"(a[i])::"memory");
}

/* Descriptor of an operand at shared address `at`, read along its rows: groups of 8 rows lie 1024 bytes apart. */
__device__ __forceinline__ uint64_t along(uint32_t at)
{
	return (uint64_t)1 << 62 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 16 | (at & 0x3ffff) >> 4;
}

/* Read across its rows: groups of 64 columns lie `tile` bytes apart, groups of 8 rows 1024. */
__device__ __forceinline__ uint64_t across(uint32_t at, uint32_t tile)
{
	return (uint64_t)1 << 62 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)(tile >> 4) << 16 | (at & 0x3ffff) >> 4;
}

#define WGMMA_F4(d, i) "+f"((d)[i]), "+f"((d)[(i) + 1]), "+f"((d)[(i) + 2]), "+f"((d)[(i) + 3])
#define WGMMA_F16(d, i) WGMMA_F4(d, i), WGMMA_F4(d, (i) + 4), WGMMA_F4(d, (i) + 8), WGMMA_F4(d, (i) + 12)
#define WGMMA_F32(d, i) WGMMA_F16(d, i), WGMMA_F16(d, (i) + 16)
#define WGMMA_F128(d) WGMMA_F32(d, 0), WGMMA_F32(d, 32), WGMMA_F32(d, 64), WGMMA_F32(d, 96)
#define WGMMA_D32                                                                                                      \
	"{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "             \
	"%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}"
#define WGMMA_D128                                                                                                     \
	"{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "             \
	"%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, "              \
	"%40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, "              \
	"%59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, "              \
	"%78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, "              \
	"%97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, "                \
	"%113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}"

/* d (64, 64) = a (64, 16) · bᵀ, b (64, 16), both read along their rows; added to d where `add`. */
__device__ __forceinline__ void product_64(float (&d)[32], uint64_t a, uint64_t b, bool add)
{
	asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %34, 0;\n"
	             "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " WGMMA_D32
	             ", %32, %33, add, 1, 1, 0, 0;\n}\n"
	             : WGMMA_F32(d, 0)
	             : "l"(a), "l"(b), "r"((int)add));
}

/* d (64, 256) += a (64, 16), read along its rows, · b (16, 256), read across its rows. */
__device__ __forceinline__ void product_256(float (&d)[128], uint64_t a, uint64_t b)
{
	asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, 1, 0;\n"
	             "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 " WGMMA_D128
	             ", %128, %129, add, 1, 1, 0, 1;\n}\n"
	             : WGMMA_F128(d)
	             : "l"(a), "l"(b));
}

/* The same with a in registers: the layout of an accumulator, pairs of neighbouring columns rounded to bf16. */
__device__ __forceinline__ void product_256(float (&d)[128], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                            uint64_t b)
{
	asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, 1, 0;\n"
	             "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 " WGMMA_D128
	             ", {%128, %129, %130, %131}, %132, add, 1, 1, 1;\n}\n"
	             : WGMMA_F128(d)
	             : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
}

} // namespace wgmma

#endif
