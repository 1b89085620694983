/* Activations on their way by the copy engine: slots of columns, one after another, through a ring in shared memory
 * that two warpgroups read (wgmma.cu, wgmma_half.cu). */
#ifndef TERN_CUDA_SLOT_RING_CUH
#define TERN_CUDA_SLOT_RING_CUH

#include "cuda/hopper.cuh"

/* Slot i lies in stage i % Stages, for the (i / Stages)-th time. */
template <int Stages> struct slot_ring {
    uint32_t stages, full, empty;
    int stage_bytes;

    __device__ uint32_t stage(int slot) const { return stages + (uint32_t)(slot % Stages * stage_bytes); }
    __device__ uint32_t full_of(int slot) const { return full + (uint32_t)(slot % Stages * 8); }
    __device__ uint32_t empty_of(int slot) const { return empty + (uint32_t)(slot % Stages * 8); }
    __device__ static int parity(int slot) { return slot / Stages & 1; }
};

/* What the copy engine is to bring: `slots` boxes of Columns from (column, m0) on. */
template <int Columns> struct slot_supply {
    const CUtensorMap *acts;
    int slots, column, m0;
};

template <int Columns, int Stages>
__device__ static void ask_for(const slot_supply<Columns> &s, const slot_ring<Stages> &r, int slot) {
    barrier_arrive_expecting(r.full_of(slot), r.stage_bytes);
    copy_box(r.stage(slot), s.acts, s.column + slot * Columns, s.m0, r.full_of(slot));
}

/* One thread asks for the slot Ahead of the one that its warp begins, once every warp is done with what lies there.
 * The first Stages slots were asked for at the start. */
template <int Ahead, int Columns, int Stages>
__device__ static void ask_ahead(const slot_supply<Columns> &s, const slot_ring<Stages> &r, int slot) {
    const int wanted = slot + Ahead;
    if (threadIdx.x == 0 && wanted >= Stages && wanted < s.slots) {
        barrier_wait(r.empty_of(wanted), r.parity(wanted) ^ 1);
        ask_for(s, r, wanted);
    }
    __syncwarp();
}

#endif
