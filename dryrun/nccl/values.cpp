#include "dryrun/nccl/values.h"

#include <cstdint>
#include <cstring>

#include "dryrun/core/simulator.h"

namespace ebbtide::dryrun {

namespace {

template <typename Number>
void reduce(void* numbers, std::size_t count, ncclRedOp_t operation, int ranks) {
  char* at = static_cast<char*>(numbers);
  for (std::size_t i = 0; i < count; ++i, at += sizeof(Number)) {
    Number value;
    std::memcpy(&value, at, sizeof value);
    const Number one = value;
    for (int rank = 1; rank < ranks; ++rank) {
      // Integers wrap around, as on the device.
      value = static_cast<Number>(operation == ncclSum ? value + one : value * one);
    }
    std::memcpy(at, &value, sizeof value);
  }
}

using Reduce = void (*)(void*, std::size_t, ncclRedOp_t, int);

// Signed numbers as unsigned ones: the same bits, and a defined overflow.
Reduce reduction_of(ncclDataType_t type) {
  switch (type) {
    case ncclInt8:
    case ncclUint8:
      return reduce<std::uint8_t>;
    case ncclInt32:
    case ncclUint32:
      return reduce<std::uint32_t>;
    case ncclInt64:
    case ncclUint64:
      return reduce<std::uint64_t>;
    case ncclFloat32:
      return reduce<float>;
    case ncclFloat64:
      return reduce<double>;
    default:
      return nullptr;
  }
}

}  // namespace

std::size_t size_of(ncclDataType_t type) {
  switch (type) {
    case ncclInt8:
    case ncclUint8:
    case ncclFloat8e4m3:
    case ncclFloat8e5m2:
      return 1;
    case ncclFloat16:
    case ncclBfloat16:
      return 2;
    case ncclInt32:
    case ncclUint32:
    case ncclFloat32:
      return 4;
    default:
      return 8;
  }
}

void copy_values(void* target, const void* source, std::size_t bytes) {
  if (target != source) Simulator::instance().copy(target, source, bytes);
}

void forget_values(void* target, std::size_t bytes) {
  if (bytes > 0) Simulator::instance().mark(target, bytes, Content::kNotComputed);
}

void reduce_values(void* numbers, std::size_t count, ncclDataType_t type, ncclRedOp_t operation,
                   int ranks) {
  const std::size_t bytes = count * size_of(type);
  if (bytes == 0 || ranks == 1) return;
  if (operation == ncclMax || operation == ncclMin || operation == ncclAvg) return;
  Simulator& simulator = Simulator::instance();
  const Reduce reduction = reduction_of(type);
  const bool is_plain = operation == ncclSum || operation == ncclProd;
  const bool is_small = bytes <= static_cast<std::size_t>(simulator.settings().compute_limit.value);
  const bool is_known = simulator.content(numbers, bytes) != Content::kNotComputed;
  if (reduction == nullptr || !is_plain || !is_small || !is_known) {
    return forget_values(numbers, bytes);
  }
  reduction(numbers, count, operation, ranks);
}

}  // namespace ebbtide::dryrun
