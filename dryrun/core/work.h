// What an operator or a copy asks of a device, and how long that takes: a roofline of
// floating-point operations and bytes. Pure functions of a device's description.
#pragma once

#include <array>
#include <cstddef>

#include "dryrun/core/device_model.h"
#include "dryrun/core/export.h"
#include "dryrun/core/tiles.h"

namespace ebbtide::dryrun {

// What a stream is busy with. The order is that of `kActivityNames`, the report's keys.
enum class Activity {
  kMatrix,
  kAttention,
  kOther,       // element by element, reductions, lookups: bound by memory
  kCopyOut,     // to the host
  kCopyIn,      // to the device
  kUnknown,     // kernels of which nothing is known but that they were launched
  kCollective,  // among ranks
};
inline constexpr std::array<const char*, 7> kActivityNames{
    "matrix", "attention", "other", "copy_out", "copy_in", "unknown", "collective"};

// Bytes that a thread loads at once: rows that begin at multiples of them are as fast as any.
inline constexpr int kWholeAlignment = 16;

// Rows that a kernel reads more than once, a block of threads for each.
struct RowPasses {
  double bytes = 0;   // of one, read and written
  double reread = 0;  // bytes of all of them that are read again, from device memory if rows are long
  double blocks = 0;  // of 128 threads, one for each row
  double columns = 0;  // that each of these goes through
  double rounds = 0;  // over each row, at the end of which all threads of its block wait for each other
  double serial = 0;  // rows that one block goes through, one after the other
};

// Work of one operator. Invariant: nothing is negative.
struct Work {
  Activity activity = Activity::kOther;
  double flops = 0;  // of multiplications and additions, each counted
  double bytes = 0;  // read and written
  double single_elements = 0;  // that a kernel takes one by one, not as vectors: a time of their own
  double idle_flops = 0;       // that take time and are of no use: attention's masked and first blocks
  RowPasses rows = {};
  NumberKind numbers = NumberKind::kFloat32;
  bool is_backward = false;  // of attention: its kernels reach another share of the peak
  bool is_cudnn = false;     // of attention: cuDNN's kernels, which reach others again
  int launches = 1;
  double share = 1;  // of the peak that operations reach which are no product's and no attention's
  double steps = 0;  // kernels of few threads, one after the other, whose time comes on top
  ProductShape product = {};  // of a matrix product whose tiles are known
  int row_alignment = kWholeAlignment;  // bytes that a product's rows begin at multiples of
};

// Seconds: as long as the slower of operations and bytes takes, and no less than the shortest
// kernels. A product's operations take whole waves of whole tiles.
EBBTIDE_DRYRUN_API double seconds_of(const Work& work, const DeviceSpeed& speed);

// Pairs of a query and a key that attention looks at. Causal: query i of the last `queries` tokens
// sees all keys up to its own (FlashAttention's alignment).
EBBTIDE_DRYRUN_API double attention_pairs(double queries, double keys, bool is_causal);

}  // namespace ebbtide::dryrun
